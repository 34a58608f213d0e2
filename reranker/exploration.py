"""An exploration policy that knows its own propensities: Plackett-Luce over scores.

The list is drawn without replacement, each place in proportion to exp(score / temperature) among
the products that are left. What is logged with it makes later evaluation of other policies
possible (`eval.counterfactual`): for every shown product the probability of the list down to it,
and the probability that it stands in its place at all.
"""

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from reranker.errors import ConfigError
from reranker.schema import Value

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_SMALLEST = np.finfo(np.float64).tiny
_WIDEST = 1e6
_LOG_NEVER, _LOG_SURE = -38, 4
_CHUNK = 2_000_000
_BLOCK = 65_536


class ExploredList(Value):
    """A list drawn by an exploration policy, with what has to be logged.

    Attributes:
        order: numbers of the shown candidates, first place first.
        propensity: of each, the probability that the policy puts it in its place (item-position).
        prefix_propensity: of each, the probability of the whole list down to it; the last one is
            the propensity of the list. Of a hundred places and more it may be less than a float
            holds; then it is the smallest normal one, about 2e-308.
    """

    order: tuple[int, ...]
    propensity: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    prefix_propensity: tuple[Annotated[float, Field(gt=0, le=1)], ...]


def explore(
    scores: ArrayLike, k: int, *, temperature: float, rng: np.random.Generator
) -> ExploredList:
    """Draw the first k places for one request.

    At a temperature like the scores' differences ten places take a few milliseconds, a hundred
    about 40, two hundred 200, and a thousand ten seconds of one core; at a thousandth of it several
    times as long.

    Args:
        scores: of the candidates, higher is better.
        k: places; no more than there are candidates are filled.
        temperature: above 0, in units of the scores; small keeps close to their order, large is
            close to random. No less than a millionth of the scores' range.
        rng: seed it to draw the same list again.

    Raises:
        ConfigError: the temperature is not above 0 or too small, or a score is not finite.
    """
    logits = _logits(np.asarray(scores, np.float64)[None, :], temperature)
    order = sample(logits, min(k, logits.shape[1]), rng)
    prefixes = prefix_propensities(logits, order)
    places = item_position_propensities(logits, order)
    return ExploredList(
        order=tuple(int(i) for i in order[0]),
        propensity=tuple(float(p) for p in places[0]),
        prefix_propensity=tuple(float(p) for p in prefixes[0]),
    )


def _logits(scores: Floats, temperature: float) -> Floats:
    if not temperature > 0 or not np.isfinite(temperature):
        raise ConfigError(f"temperature {temperature}: exploration needs one above 0")
    if not np.isfinite(scores).all():
        raise ConfigError("exploration needs finite scores: rank what has none by other means")
    # Differences first: they are finite or infinite, where large scores alone would be no numbers.
    with np.errstate(over="ignore"):
        logits = (scores - scores.max(axis=1, keepdims=True)) / temperature
    if not logits.min(initial=0.0) >= -_WIDEST:
        raise ConfigError(
            f"temperature {temperature}: less than a millionth of the scores' range explores "
            "nothing; take a larger one, or show the list as ranked"
        )
    return normalised(logits)


def normalised(logits: Floats) -> Floats:
    """Return log weights whose weights add up to 1 in each row."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    total: Floats = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    result: Floats = shifted - total
    return result


def sample(logits: Floats, k: int, rng: np.random.Generator) -> Integers:
    """Draw one list a row; (requests, candidates) of log weights to (requests, k) of numbers.

    Ordering by score plus Gumbel noise is Plackett-Luce (Yellott 1977).
    """
    noisy = logits + rng.gumbel(size=logits.shape)
    return np.argsort(-noisy, axis=1, kind="stable")[:, :k].astype(np.int64)


def prefix_propensities(logits: Floats, order: Integers) -> Floats:
    """Return the probability of each list down to each place, shape (requests, k).

    It is exact down to the smallest normal float, which stands for all below it.
    """
    shown = np.take_along_axis(logits, order, axis=1)
    rest = logits.copy()
    steps = np.empty_like(shown)
    for place in range(order.shape[1]):
        left = _log_sum(rest)
        steps[:, place] = shown[:, place] - left
        np.put_along_axis(rest, order[:, place : place + 1], -np.inf, axis=1)
    return _as_probabilities(np.exp(np.cumsum(steps, axis=1)))


def _log_sum(logits: Floats) -> Floats:
    top = logits.max(axis=1)
    safe: Floats = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return safe


def item_position_propensities(logits: Floats, order: Integers) -> Floats:
    """Return the probability that each listed candidate stands in its place, shape (requests, k).

    In its clock form (candidate i rings at an exponential time of rate w_i) the order of ringing is
    Plackett-Luce, so that the chance of place k is one integral over time of a Poisson-binomial
    probability that exactly k - 1 others rang before. The integrand is analytic in log time, and
    the trapezoid rule on it is exact to rounding: no sampling, no enumeration.
    """
    k = order.shape[1]
    behind = np.full(logits.shape, k)
    np.put_along_axis(behind, order, np.arange(k)[None, :], axis=1)
    listed_first = np.argsort(behind, axis=1, kind="stable")
    return _integrals(np.take_along_axis(logits, listed_first, axis=1), k, k, own_place=True)


def all_propensities(logits: Floats, k: int) -> Floats:
    """Return P(candidate i in place p), shape (requests, candidates, k)."""
    return _integrals(logits, logits.shape[1], k, own_place=False)


def _as_probabilities(values: Floats) -> Floats:
    """Return values that rounding has taken out of (0, 1] at its ends."""
    result: Floats = np.clip(values, _SMALLEST, 1.0)
    return result


def _integrals(logits: Floats, listed: int, k: int, *, own_place: bool) -> Floats:
    """Return the propensities of the first so many candidates of each row.

    Args:
        logits: shape (requests, candidates).
        listed: number of candidates asked about.
        k: number of places.
        own_place: whether candidate i is asked for place i alone, shape (requests, listed), or for
            all k places, shape (requests, listed, k).
    """
    logits = normalised(logits)
    step, times = _log_times(logits)
    rows = max(1, _CHUNK // (len(times) * k))
    block = max(1, _BLOCK // (min(rows, len(logits)) * k))
    result = np.zeros((len(logits), listed) if own_place else (len(logits), listed, k))
    for row in range(0, len(logits), rows):
        part = result[row : row + rows]
        for start in range(0, len(times), block):
            # Log weights of the clocks in front: each is taken by itself.
            clocks = logits[row : row + rows].T[:, :, None]
            _add_integrals(part, clocks + times[start : start + block], k, own_place=own_place)
    return _as_probabilities(result * step)


def _log_times(logits: Floats) -> tuple[float, Floats]:
    """Return the step of the trapezoid rule, and the log times at which the integrand counts.

    Outside of exp(-38) to exp(4) times its mean time a clock has not rung, or has, but for less
    than rounding: where that holds of all, nothing changes but what grows with time, towards the
    next clock. The rule's error is about exp(-pi^2 / step) for one clock, and for n of them, whose
    k-th ring has a standard deviation of at least 1.24 / sqrt(n) in log time, about
    exp(-2 pi^2 1.24^2 / (n step^2)): steps of 1/8 and of .8 / sqrt(n) keep both below 1e-16.
    """
    steps = max(8, int(np.ceil(1.25 * np.sqrt(logits.shape[1]))))
    near = np.arange(_LOG_NEVER, _LOG_SURE + 1)
    units = np.unique(np.unique(np.floor(-logits))[:, None] + near)
    return 1 / steps, (units[:, None] + np.arange(steps) / steps).ravel()


def _add_integrals(result: Floats, log_hazard: Floats, k: int, *, own_place: bool) -> None:
    """Add the integrand at some moments; log_hazard has the shape (candidates, requests, times)."""
    # Past exp(700) a clock has rung for certain, and the number would overflow.
    hazard = np.exp(np.minimum(log_hazard, 700.0))
    waiting = np.exp(-hazard)
    rung, density = -np.expm1(-hazard), hazard * waiting
    nothing = np.zeros((k, *hazard.shape[1:]))
    nothing[0] = 1.0
    listed = result.shape[1]
    before = _after(nothing, rung[listed:], waiting[listed:])
    for i, first, counts in _others(before, 0, rung[:listed], waiting[:listed], trim=own_place):
        if own_place:
            result[:, i] += (density[i] * counts[i - first]).sum(axis=1)
        else:
            result[:, i] += np.einsum("bt,cbt->bc", density[i], counts)


def _others(
    counts: Floats, first: int, rung: Floats, waiting: Floats, *, trim: bool, start: int = 0
) -> Iterator[tuple[int, int, Floats]]:
    """Yield each clock of some, with how many of all others have rung.

    Halves are taken in turn, the other half being added to what has rung without both: sums of
    products of probabilities alone, so that small ones keep their digits.

    Args:
        counts: probability that exactly so many of all clocks but these have rung, from the lowest
            number on, shape (numbers, requests, times).
        first: the lowest number.
        rung: probability that each of these has rung, shape (clocks, requests, times).
        waiting: one less that.
        trim: whether clock i is asked only for exactly i others; then the numbers that cannot
            become i within these are left out.
        start: number of the first of these clocks.

    Yields:
        The clock, the lowest number, and the probabilities from that number on.
    """
    size = len(rung)
    if trim:
        lowest = max(start - size + 1, first)
        counts, first = counts[lowest - first : start + size - first], lowest
    if size == 1:
        yield start, first, counts
        return
    middle = size // 2
    for mine, others in (
        (slice(0, middle), slice(middle, size)),
        (slice(middle, size), slice(0, middle)),
    ):
        more = _after(counts, rung[others], waiting[others])
        begin = start + mine.start
        yield from _others(more, first, rung[mine], waiting[mine], trim=trim, start=begin)


def _after(counts: Floats, rung: Floats, waiting: Floats) -> Floats:
    """Return how many have rung with some more clocks."""
    counts = counts.copy()
    for p, q in zip(rung, waiting, strict=True):
        one_more = counts[:-1] * p
        counts *= q
        counts[1:] += one_more
    return counts
