"""The interval of a mean where few shoppers differ from all others.

Of a whole catalogue most cases score 0, and two rankers agree on most lists. What a sample tells of
the mean is then a count of events, and what its spread tells is too little: a sample without any
event has none, and would be given an interval without length.

Where most cases have the lowest or the highest value there is, all others deviate to one side, and
the mean is like a share: it has the limits of a binomial count out of the effective number of
cases, which are the exact ones where every case has one of the two values. Nine preferred lists out
of ten tell two rankers apart then, and eight do not, as in the sign test.

Where most cases have a value between the two, such as two rankers that agree, each sum of
deviations, of those above and of those below, has the limits of a weighted sum of Poisson counts,
which are the exact ones where all deviations are equal. Five shoppers for one ranker and none for
the other do not tell the two apart then, six do, as in the sign test.

Sources: E. L. Korn & B. I. Graubard (1998), "Confidence intervals for proportions with small
expected number of positive counts estimated from survey data", Survey Methodology 24, for the
share; M. P. Fay & E. J. Feuer (1997), "Confidence intervals for directly standardized rates: a
method based on the gamma distribution", Statistics in Medicine 16, eq. (6) and (7), for one sum;
G. Y. Zou & A. Donner (2008), "Construction of confidence limits about effect measures: a general
approach", Statistics in Medicine 27, eq. (5), for the difference of two.
"""

import numpy as np
from numpy.typing import NDArray

_EQUAL = 1e-12
_FEW_TO_KNOW_THE_SIZE = 3


def rare_interval(
    deviations: NDArray[np.float64], largest: float | None, confidence: float
) -> tuple[float, float]:
    """Return the limits of a sum of deviations of which most are 0.

    Args:
        deviations: of each shopper, from what most shoppers have.
        largest: that a shopper can deviate, which counts where fewer than three do: they say
            little of the deviations that were not seen. Otherwise these are taken to be as large as
            the root mean square of those seen (the paper takes the largest, which with few shoppers
            covers too much).
        confidence: of the interval.
    """
    differ = int((np.abs(deviations) > _EQUAL).sum())
    unseen = float(np.sqrt(np.sum(deviations**2) / max(differ, 1)))
    if largest is not None and differ < _FEW_TO_KNOW_THE_SIZE:
        unseen = max(unseen, largest)
    if unseen <= _EQUAL:
        return 0.0, 0.0
    above, below = np.maximum(deviations, 0.0), np.maximum(-deviations, 0.0)
    fewer_above, more_above = _reach(above, unseen, confidence)
    fewer_below, more_below = _reach(below, unseen, confidence)
    total = float(deviations.sum())
    low = total - float(np.hypot(fewer_above, more_below))
    return low, total + float(np.hypot(more_above, fewer_below))


def binomial_interval(
    deviations: NDArray[np.float64],
    sizes: NDArray[np.float64],
    common: float,
    bounds: tuple[float, float],
    confidence: float,
) -> tuple[float, float]:
    """Return the limits of a mean over cases most of which have the lowest or the highest value.

    Args:
        deviations: of each shopper, the sum over cases of what they differ from most cases.
        sizes: cases of each shopper.
        common: what most cases have, one of the bounds.
        bounds: the lowest and the highest that a case can have.
        confidence: of the interval.
    """
    from scipy.stats import beta

    cases, width = float(sizes.sum()), bounds[1] - bounds[0]
    away = float(deviations.sum()) / cases
    share = min(1.0, max(0.0, (common + away - bounds[0]) / width))
    effective = cases**2 / float(np.sum(sizes**2))
    spread = float(np.sum(((deviations - away * sizes) / width) ** 2)) / cases**2
    if spread > _EQUAL**2:
        seen = share * (1 - share) / spread * _known_spread(len(sizes), cases, confidence)
        few = int((np.abs(deviations) > _EQUAL).sum()) < _FEW_TO_KNOW_THE_SIZE
        effective = min(seen, effective) if few else seen
    tail, count = (1 - confidence) / 2, share * effective
    others = effective - count
    low = float(beta.ppf(tail, count, others + 1)) if count > _EQUAL else 0.0
    high = float(beta.ppf(1 - tail, count + 1, others)) if others > _EQUAL else 1.0
    return bounds[0] + width * low, bounds[0] + width * high


def _known_spread(shoppers: int, cases: float, confidence: float) -> float:
    """Return what part of the effective cases remains, as few shoppers say little of the spread."""
    from scipy.stats import t as student

    level = (1 + confidence) / 2
    quantiles = student.ppf(level, cases - 1) / student.ppf(level, shoppers - 1)
    return float(quantiles**2 * (1 - 1 / shoppers) / (1 - 1 / cases))


def _reach(weights: NDArray[np.float64], unseen: float, confidence: float) -> tuple[float, float]:
    """Return how far a weighted sum of Poisson counts is from its lower and its upper limit."""
    from scipy.stats import chi2

    tail = (1 - confidence) / 2
    total, variance = float(weights.sum()), float(np.sum(weights**2))
    one_more, with_it = total + unseen, variance + unseen**2
    high = with_it / (2 * one_more) * float(chi2.ppf(1 - tail, 2 * one_more**2 / with_it))
    if total <= _EQUAL:
        return 0.0, high
    low = variance / (2 * total) * float(chi2.ppf(tail, 2 * total**2 / variance))
    # Of n shoppers no more than n can differ: a binomial count has a lower limit like a Poisson
    # one, and an upper limit below it.
    finite = np.sqrt(max(0.0, 1 - total**2 / (len(weights) * variance)))
    return total - low, float(finite) * (high - total)
