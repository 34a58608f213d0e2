"""Whether one ranker is better than another: paired by case, clustered by shopper."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from eval.statistics.estimates import (
    Bounds,
    Estimate,
    Floats,
    Integers,
    RefusedEstimate,
    cluster_sums,
    codes,
    mean,
)
from reranker.errors import ConfigError, DataError
from reranker.schema import Value

if TYPE_CHECKING:
    from collections.abc import Hashable

_CHUNK = 4_000_000


class Comparison(Value):
    """One variant against the baseline on the cases that both have a value for.

    Attributes:
        difference: variant less baseline, with an interval clustered by shopper.
        p_value: of a permutation test that swaps the two within shoppers.
        p_holm: the same after Holm's correction over all variants compared at once.
        detectable: smallest true difference that such data would show at 5 % with 80 % power.
    """

    measure: str
    variant: str
    baseline: str
    difference: Estimate
    p_value: float
    p_holm: float
    detectable: float


def _by_cluster(
    measure: str, values: ArrayLike, clusters: ArrayLike
) -> tuple[Floats, Floats, int, int]:
    array = np.asarray(values, np.float64)
    known = ~np.isnan(array)
    _, units = np.unique(np.asarray(clusters)[known], return_inverse=True)
    count = int(units.max()) + 1 if len(units) else 0
    if count < 2:
        message = f"{measure}: {count} shopper has a value: an interval needs at least two"
        raise RefusedEstimate(message, effective_n=float(count))
    sums = cluster_sums(array[known], units, count)
    sizes = np.bincount(units, minlength=count).astype(np.float64)
    return sums, sizes, int(known.sum()), int((~known).sum())


def _error(sums: Floats, sizes: Floats, value: float) -> float:
    """Standard error of the ratio of sums, linearised over clusters."""
    count = len(sums)
    spread = np.sum((sums - value * sizes) ** 2) / (count - 1) * count
    return float(np.sqrt(spread) / sizes.sum())


def permutation_test(
    difference: ArrayLike, clusters: ArrayLike, *, samples: int = 10_000, seed: int = 0
) -> float:
    """Return the two-sided p-value that paired differences have no direction.

    All of a shopper's differences change sign together. The observed assignment counts as one of
    the permutations, so that the p-value is valid and never 0 (Phipson & Smyth 2010).

    Raises:
        RefusedEstimate: fewer than two shoppers have a value.
    """
    sums, _, _, _ = _by_cluster("permutation test", difference, clusters)
    observed = abs(float(sums.sum()))
    rng = np.random.default_rng(seed)
    extreme, size = 0, max(1, _CHUNK // len(sums))
    for start in range(0, samples, size):
        rows = min(size, samples - start)
        signs = rng.integers(2, size=(rows, len(sums)), dtype=np.int8) * 2.0 - 1.0
        # Sums that are equal but for rounding are equally extreme.
        extreme += int((np.abs(signs @ sums) >= observed * (1 - 1e-12) - 1e-300).sum())
    return (extreme + 1) / (samples + 1)


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return p-values adjusted by Holm's (1979) step-down method, in the given order."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    factors = len(values) - np.arange(len(values))
    stepped = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    adjusted = np.empty_like(stepped)
    adjusted[order] = stepped
    return tuple(float(value) for value in adjusted)


def minimum_detectable(
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    shoppers: int | None = None,
    level: float = 0.05,
    power: float = 0.8,
) -> float:
    """Return the smallest true mean difference that a two-sided test would show.

    Args:
        values: paired differences by case (or of a pilot).
        clusters: shopper of each case.
        shoppers: to plan for; None takes as many as there are.
        level: of the test.
        power: chance to find the difference.

    Raises:
        RefusedEstimate: fewer than two shoppers have a value.
        ConfigError: level or power is not between 0 and 1, or fewer than two shoppers are planned.
    """
    from scipy.stats import t as student

    sums, sizes, _, _ = _by_cluster("minimum detectable effect", values, clusters)
    count = len(sums) if shoppers is None else shoppers
    if not (0 < level < 1 and 0 < power < 1 and count >= 2):
        message = f"level {level}, power {power}, shoppers {count}: choose 0 to 1, and two or more"
        raise ConfigError(message)
    error = _error(sums, sizes, float(sums.sum() / sizes.sum())) * np.sqrt(len(sums) / count)
    reach = student.ppf(1 - level / 2, count - 1) + student.ppf(power, count - 1)
    return float(reach * error)


def compare(
    measure: str,
    baseline: str,
    values: Mapping[str, Sequence[float]],
    shoppers: "Sequence[Hashable]",
    *,
    bounds: Bounds | None = None,
    permutations: int = 10_000,
    seed: int = 0,
) -> tuple[Comparison, ...]:
    """Compare all variants with a baseline on the same cases.

    Args:
        measure: name of the values.
        baseline: one of the rankers.
        values: of each ranker, one value a case; NaN where a case has none.
        shoppers: of each case.
        bounds: the lowest and the highest that a ranker's value can be; None if unknown.
        permutations: of the test.
        seed: of the test.

    Raises:
        ConfigError: there is no such baseline.
        DataError: rankers differ in the number of cases.
        RefusedEstimate: fewer than two shoppers have a value.
    """
    if baseline not in values:
        raise ConfigError(f"baseline {baseline!r} is none of the rankers: {', '.join(values)}")
    units = codes(list(shoppers))
    columns = {name: np.asarray(column, np.float64) for name, column in values.items()}
    for name, column in columns.items():
        if len(column) != len(units):
            raise DataError(f"{name}: {len(column)} values for {len(units)} cases")
    variants = [name for name in columns if name != baseline]
    apart = [columns[name] - columns[baseline] for name in variants]
    p_values = [permutation_test(d, units, samples=permutations, seed=seed) for d in apart]
    return tuple(
        _comparison(measure, name, baseline, difference, units, p, adjusted, bounds)
        for name, difference, p, adjusted in zip(
            variants, apart, p_values, holm(p_values), strict=True
        )
    )


def _comparison(
    measure: str,
    variant: str,
    baseline: str,
    difference: Floats,
    units: Integers,
    p_value: float,
    p_holm: float,
    bounds: Bounds | None,
) -> Comparison:
    width = None if bounds is None else bounds[1] - bounds[0]
    apart = mean(
        f"{measure}: {variant} - {baseline}",
        difference,
        units,
        bounds=None if width is None else (-width, width),
    )
    return Comparison(
        measure=measure,
        variant=variant,
        baseline=baseline,
        difference=apart,
        p_value=p_value,
        p_holm=p_holm,
        # Where few shoppers differ their spread tells too little: what half the interval hides.
        detectable=max(minimum_detectable(difference, units), (apart.high - apart.low) / 2),
    )
