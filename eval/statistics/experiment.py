"""The read-out of an A/B test: the split first, then the effect, safe to look at any day.

The fixed-horizon analysis (Welch's test, CUPED, ratios by the delta method) is `tea-tasting`'s. Its
interval is valid for one look at a time fixed beforehand. Beside it stands an asymptotic
confidence sequence, valid however often one looks.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from eval.statistics.estimates import Estimate, Floats, RefusedEstimate
from reranker.errors import ConfigError, DataError
from reranker.schema import Value

_TWO = 2


class Effect(Value):
    """What the treatment changed.

    Attributes:
        control: mean of the control group.
        treatment: mean of the treatment group.
        difference: treatment less control, with the interval of one planned look.
        anytime: the same with an interval that holds for all looks together.
        relative: difference as a share of control, for one planned look; None where control's mean
            is 0, below it, or too uncertain to divide by.
        p_value: of one planned look (Welch).
        split_p_value: that the groups' sizes are as planned.
        variance_left: variance with the covariate as a share of that without (CUPED).
    """

    control: float
    treatment: float
    difference: Estimate
    anytime: Estimate
    relative: Estimate | None
    p_value: float
    split_p_value: float
    variance_left: float


def read_experiment(
    measure: str,
    treated: ArrayLike,
    values: ArrayLike,
    *,
    planned_shoppers: int,
    shoppers: Sequence[Hashable] | None = None,
    covariate: ArrayLike | None = None,
    planned_share: float = 0.5,
    confidence: float = 0.95,
    split_level: float = 0.001,
) -> Effect:
    """Read an A/B test out, or refuse it if its split is broken.

    Args:
        measure: name of the value.
        treated: of each shopper, whether in the treatment group.
        values: of each shopper, what is compared (such as clicks or revenue).
        planned_shoppers: at whose number the anytime interval is tightest: fixed before the test
            and the same at every look, or the interval does not hold for all of them together.
        shoppers: their names, to check that each comes once.
        covariate: of each shopper, a value from before the test (CUPED, Deng et al. 2013).
        planned_share: of shoppers in treatment.
        confidence: of the intervals.
        split_level: a split less likely than this is a mismatch.

    Raises:
        RefusedEstimate: a sample-ratio mismatch (the groups' sizes are not what was planned), or
            values without any spread.
        DataError: shoppers come twice, columns differ in length, or a value is not finite.
        ConfigError: the planned share is not between 0 and 1, or nobody is planned.
    """
    group = np.asarray(treated).astype(bool)
    value = _column("value", values, len(group))
    before = None if covariate is None else _column("covariate", covariate, len(group))
    if shoppers is not None and len(set(shoppers)) != len(group):
        raise DataError("every shopper may come once: add their requests up first")
    split = check_split(group, planned_share=planned_share, level=split_level)
    if not value[group].std() + value[~group].std() > 0:
        message = f"{measure}: every shopper of a group has the same value: no interval can be had"
        raise RefusedEstimate(message)
    # A shift changes no difference, and keeps tea-tasting's relative effect from dividing by 0.
    shift = 10 * float(value.std()) + 2 * float(np.abs(value).max()) + 1
    result = _analyse(group, value + shift, before, confidence)
    adjusted = value if before is None else _adjusted(group, value, before)
    error = _welch(group, adjusted)
    n = len(group)
    reach = error * anytime_factor(n, confidence=confidence, planned=planned_shoppers)
    plain = _welch(group, value)
    name = f"{measure}: treatment - control"
    found = float(result.effect_size)
    return Effect(
        control=float(result.control) - shift,
        treatment=float(result.treatment) - shift,
        difference=_estimate(
            name, found, result.effect_size_ci_lower, result.effect_size_ci_upper, n, confidence
        ),
        anytime=_estimate(name, found, found - reach, found + reach, n, confidence),
        relative=_relative(name, group, value, before, confidence),
        p_value=float(result.pvalue),
        split_p_value=split,
        variance_left=(error / plain) ** 2 if plain > 0 else 1.0,
    )


def _relative(
    name: str, group: Any, value: Floats, before: Floats | None, confidence: float
) -> Estimate | None:
    try:
        found = _analyse(group, value, before, confidence)
    except (OverflowError, ZeroDivisionError):  # control's mean is 0, or too near to it
        return None
    bounds = (found.rel_effect_size_ci_lower, found.rel_effect_size_ci_upper)
    if found.control <= 0 or not np.isfinite(bounds).all():
        return None
    name = f"{name}, share of control"
    return _estimate(name, found.rel_effect_size, *bounds, len(value), confidence)


def check_split(treated: ArrayLike, *, planned_share: float = 0.5, level: float = 0.001) -> float:
    """Return the p-value that the groups are as large as planned.

    Raises:
        RefusedEstimate: it is below the level, or a group has fewer than two shoppers.
        ConfigError: the planned share is not between 0 and 1.
    """
    import pyarrow as pa
    import tea_tasting as tt

    if not 0 < planned_share < 1:
        raise ConfigError(f"planned share {planned_share}: it has to lie between 0 and 1")
    group = np.asarray(treated).astype(bool)
    inside = int(group.sum())
    if min(inside, len(group) - inside) < _TWO:
        raise RefusedEstimate("an A/B test needs at least two shoppers in each group")
    table = pa.table({"variant": group.astype(np.int64)})
    ratio = tt.SampleRatio(planned_share / (1 - planned_share))
    p_value = float(tt.Experiment(split=ratio).analyze(table)["split"].pvalue)
    if p_value < level:
        message = (
            f"sample-ratio mismatch: {inside} of {len(group)} shoppers are in treatment, "
            f"{planned_share:.1%} were planned (p = {p_value:.2g}): assignment or logging lost "
            "shoppers, so the groups cannot be compared; find the cause, do not read the effect"
        )
        raise RefusedEstimate(message)
    return p_value


def anytime_factor(n: int, *, planned: int, confidence: float = 0.95) -> float:
    """Return by how many standard errors an interval reaches that holds for all looks together.

    It does so for one planned sample size, the same at every look.

    Source: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), "Time-uniform central limit theory
    and asymptotic confidence sequences", eq. (2) for the boundary (Robbins' normal mixture) and
    appendix B.2 for the parameter that makes it tightest at a planned sample size.

    Raises:
        ConfigError: fewer than one is planned.
    """
    if planned < 1:
        raise ConfigError(f"planned shoppers {planned}: plan for at least one")
    alpha = 1 - confidence
    rate = (-2 * np.log(alpha) + np.log(-2 * np.log(alpha) + 1)) / planned
    grown = n * rate + 1
    return float(np.sqrt(grown / (n * rate) * (np.log(grown) - 2 * np.log(alpha))))


def _analyse(group: Any, value: Floats, before: Floats | None, confidence: float) -> Any:
    import pyarrow as pa
    import tea_tasting as tt

    columns = {"variant": group.astype(np.int64), "value": value}
    if before is not None:
        columns["before"] = before
    covariate = "before" if before is not None else None
    mean = tt.Mean("value", covariate, confidence_level=confidence)
    return tt.Experiment(effect=mean).analyze(pa.table(columns))["effect"]


def _adjusted(group: Any, value: Floats, before: Floats) -> Floats:
    """Subtract what the covariate explains; the slope is pooled within groups."""
    within_value, within_before = value.copy(), before.copy()
    for inside in (group, ~group):
        within_value[inside] -= value[inside].mean()
        within_before[inside] -= before[inside].mean()
    square = float(within_before @ within_before)
    slope = float(within_value @ within_before) / square if square > 0 else 0.0
    result: Floats = value - slope * (before - before.mean())
    return result


def _welch(group: Any, value: Floats) -> float:
    parts = [value[inside].var(ddof=1) / inside.sum() for inside in (group, ~group)]
    return float(np.sqrt(sum(parts)))


def _column(name: str, values: ArrayLike, count: int) -> Floats:
    array = np.asarray(values, np.float64)
    if array.shape != (count,):
        raise DataError(f"{name}: {array.shape} values for {count} shoppers")
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array))[0])
        raise DataError(f"{name} of shopper {row + 1} is {array[row]}: it has to be a number")
    return array


def _estimate(
    name: str, value: float, low: float, high: float, n: int, confidence: float
) -> Estimate:
    return Estimate(
        measure=name,
        value=float(value),
        low=float(low),
        high=float(high),
        n=n,
        effective_n=float(n),
        confidence=confidence,
        clusters=n,
    )
