"""One figure with its uncertainty: the value, and the interval that all modules here use.

Shoppers, not requests, are the independent units: what one shopper does in ten searches is not ten
observations. Every interval is therefore clustered by shopper.
"""

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from eval.statistics.rare import binomial_interval, rare_interval
from reranker.errors import DataError
from reranker.schema import Value

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Bounds = tuple[float, float]
"""The lowest and the highest that a value can be."""

_RARE = 20
"""Equal deviations from which on Hall's interval keeps its coverage (tests/test_coverage.py)."""


class RefusedEstimate(DataError):  # noqa: N818 - it says what happened
    """The data cannot carry the estimate that was asked for; the message says why and what to do.

    Attributes:
        support: share of the target policy that the log can speak for, where that is the reason.
        effective_n: the effective sample size, where that is the reason.
    """

    def __init__(
        self, message: str, *, support: float | None = None, effective_n: float | None = None
    ) -> None:
        super().__init__(message)
        self.support = support
        self.effective_n = effective_n


class Estimate(Value):
    """A figure and its confidence interval.

    Attributes:
        measure: its name, such as ``nDCG@10``.
        value: the point estimate.
        low: lower end of the interval.
        high: upper end of the interval.
        n: cases (requests, lists) that it rests on.
        effective_n: the number of equally weighted cases that would carry as much: ``n`` for a
            plain mean, Kish's (sum w)^2 / sum w^2 for a weighted one.
        confidence: of the interval.
        clusters: independent units (shoppers) behind it.
        excluded: cases left out because the measure is not defined for them (no target).
    """

    measure: str
    value: float
    low: float
    high: float
    n: int
    effective_n: float
    confidence: float = 0.95
    clusters: int = 0
    excluded: int = 0

    def covers(self, truth: float) -> bool:
        """Tell whether the interval holds a value."""
        return self.low <= truth <= self.high


def codes(names: Sequence[Hashable] | NDArray[Any]) -> Integers:
    """Number names from 0 in the order of their first appearance."""
    seen: dict[Hashable, int] = {}
    return np.fromiter((seen.setdefault(name, len(seen)) for name in names), np.int64, len(names))


def kish(weights: ArrayLike) -> float:
    """Return Kish's effective sample size, (sum w)^2 / sum w^2; 0 where all weights are 0."""
    values = np.asarray(weights, np.float64)
    square = float(np.sum(values**2))
    return float(np.sum(values)) ** 2 / square if square > 0 else 0.0


def cluster_sums(values: Floats, clusters: Integers, count: int) -> Floats:
    """Return the sum of the values of each cluster, shape (count,)."""
    return np.bincount(clusters, weights=values, minlength=count).astype(np.float64)


def ratio(
    measure: str,
    numerator: ArrayLike,
    denominator: ArrayLike,
    clusters: ArrayLike,
    *,
    confidence: float = 0.95,
    effective_n: float | None = None,
    excluded: int = 0,
) -> Estimate:
    """Estimate sum(numerator) / sum(denominator) with an interval clustered by shopper.

    The variance is that of the linearised ratio over clusters; the interval is Student's with
    Hall's (1992) correction for skewness, which importance weights need and which does nothing to
    symmetric data.

    Args:
        measure: name of the figure.
        numerator: one value a case.
        denominator: one value a case, such as 1 for a mean over cases, or an importance weight.
        clusters: the shopper's number of each case, from 0.
        confidence: of the interval.
        effective_n: where it is not Kish's over the denominators.
        excluded: cases that were left out beforehand, to be reported.

    Raises:
        RefusedEstimate: fewer than two shoppers, or the denominator's sum is not positive.
    """
    above, below = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    _, units = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(units.max()) + 1 if len(units) else 0
    if count < 2:
        message = f"{measure}: {count} shopper: an interval needs at least two"
        raise RefusedEstimate(message, effective_n=float(count))
    tops, bottoms = cluster_sums(above, units, count), cluster_sums(below, units, count)
    total = float(bottoms.sum())
    if not total > 0:
        raise RefusedEstimate(f"{measure}: no case carries any weight", effective_n=0.0)
    value = float(tops.sum()) / total
    low, high = interval(value, (tops - value * bottoms) * (count / total), confidence)
    return Estimate(
        measure=measure,
        value=value,
        low=low,
        high=high,
        n=len(above),
        effective_n=kish(below) if effective_n is None else effective_n,
        confidence=confidence,
        clusters=count,
        excluded=excluded,
    )


def mean(
    measure: str,
    values: ArrayLike,
    clusters: ArrayLike,
    *,
    confidence: float = 0.95,
    bounds: Bounds | None = None,
) -> Estimate:
    """Estimate the mean over cases; a NaN is a case without a value: left out and counted.

    The interval is that of `ratio`, and where most cases are alike and few shoppers differ from
    them that of `eval.statistics.rare`. It never reaches beyond the bounds.

    Args:
        measure: name of the figure.
        values: one a case.
        clusters: the shopper's number of each case.
        confidence: of the interval.
        bounds: of one value, such as (0, 1) for a share or (-1, 1) for a difference of two; None
            where they are unknown.

    Raises:
        RefusedEstimate: fewer than two shoppers have a value.
    """
    array = np.asarray(values, np.float64)
    known = ~np.isnan(array)
    found, units = array[known], np.asarray(clusters)[known]
    estimate = ratio(
        measure,
        found,
        np.ones(len(found)),
        units,
        confidence=confidence,
        excluded=int((~known).sum()),
    )
    rare = _rare(found, units, bounds, confidence)
    ends = np.array((estimate.low, estimate.high) if rare is None else rare)
    low, high = (ends if bounds is None else np.clip(ends, *bounds)).tolist()
    return estimate.model_copy(update={"low": low, "high": high})


def _rare(
    values: Floats, clusters: NDArray[Any], bounds: Bounds | None, confidence: float
) -> tuple[float, float] | None:
    """Return the interval of the mean where most cases are alike and few shoppers differ."""
    kinds, counts = np.unique(values, return_counts=True)
    if 2 * counts.max() <= len(values):
        return None
    common = float(kinds[counts.argmax()])
    _, units = np.unique(clusters, return_inverse=True)
    sizes = np.bincount(units).astype(np.float64)
    deviations = cluster_sums(values - common, units, len(sizes))
    if kish(np.abs(deviations)) >= _RARE:
        return None
    if bounds is not None and np.isclose(common, bounds).any():
        return binomial_interval(deviations, sizes, common, bounds, confidence)
    # A shopper of several cases may differ in all: the number that a case's shopper has.
    several = float(np.sum(sizes**2) / np.sum(sizes))
    largest = None if bounds is None else several * max(bounds[1] - common, common - bounds[0])
    low, high = rare_interval(deviations, largest, confidence)
    return common + low / len(values), common + high / len(values)


def interval(value: float, influence: Floats, confidence: float = 0.95) -> tuple[float, float]:
    """Return Hall's skewness-corrected Student interval of a value from influences of its units.

    Source: P. Hall (1992), "On the removal of skewness by transformation", JRSS B 54, eq. (2.3);
    with skewness 0 it is Student's interval.

    Args:
        value: the estimate.
        influence: one a unit; their mean is about 0 and their spread over sqrt(units) its error.
        confidence: of the interval.
    """
    from scipy.stats import t as student

    count = len(influence)
    centred = influence - influence.mean()
    spread = float(np.sqrt(np.sum(centred**2) / (count - 1)))
    # Equal influences leave rounding noise, whose skewness would be meaningless.
    if spread <= 1e-14 * max(1.0, abs(value)):
        return value, value
    error, quantile = spread / np.sqrt(count), float(student.ppf((1 + confidence) / 2, count - 1))
    skew = float(np.mean(centred**3)) / spread**3 / np.sqrt(count)
    return value - error * _unskewed(quantile, skew), value - error * _unskewed(-quantile, skew)


def _unskewed(quantile: float, skew: float) -> float:
    """Invert Hall's cubic transformation; ``skew`` is the skewness over sqrt(units)."""
    if abs(skew) < 1e-8:
        return quantile
    return float(3 / skew * (np.cbrt(1 + skew * (quantile - skew / 6)) - 1))
