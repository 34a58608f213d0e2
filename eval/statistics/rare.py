"""The interval of a mean where few shoppers differ from all others.

Of a whole catalogue most cases score 0, and two rankers agree on most lists. What a sample tells of
the mean is then a count of rare events, and what its spread tells is too little: a sample without
any event has none, and would be given an interval without length. Here each sum of deviations, of
those above and of those below, has the limits of a weighted sum of Poisson counts, which are the
exact ones where all deviations are equal. Five shoppers for one ranker and none for the other do
not tell the two apart then, six do, as in the sign test.

Sources: M. P. Fay & E. J. Feuer (1997), "Confidence intervals for directly standardized rates: a
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
