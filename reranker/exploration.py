"""An exploration policy that knows its own propensities: Plackett-Luce over scores.

The list is drawn without replacement, each place in proportion to exp(score / temperature) among
the products that are left. What is logged with it makes later evaluation of other policies
possible (`eval.counterfactual`): for every shown product the probability of the list down to it,
and the probability that it stands in its place at all.
"""

from typing import Annotated

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from reranker.errors import ConfigError
from reranker.schema import Value

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_STEP = 0.1
_LOG_TINY = -46.0
_CHUNK = 2_000_000


class ExploredList(Value):
    """A list drawn by an exploration policy, with what has to be logged.

    Attributes:
        order: numbers of the shown candidates, first place first.
        propensity: of each, the probability that the policy puts it in its place (item-position).
        prefix_propensity: of each, the probability of the whole list down to it; the last one is
            the propensity of the list.
    """

    order: tuple[int, ...]
    propensity: tuple[Annotated[float, Field(gt=0, le=1)], ...]
    prefix_propensity: tuple[Annotated[float, Field(gt=0, le=1)], ...]


def explore(
    scores: ArrayLike, k: int, *, temperature: float, rng: np.random.Generator
) -> ExploredList:
    """Draw the first k places for one request.

    Args:
        scores: of the candidates, higher is better.
        k: places; no more than there are candidates are filled.
        temperature: above 0, in units of the scores; small keeps close to their order, large is
            close to random.
        rng: seed it to draw the same list again.

    Raises:
        ConfigError: the temperature is not above 0, or a score is not finite.
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
    return normalised(scores / temperature)


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
    """Return the exact probability of each list down to each place, shape (requests, k)."""
    shown = np.take_along_axis(logits, order, axis=1)
    rest = logits.copy()
    steps = np.empty_like(shown)
    for place in range(order.shape[1]):
        left = _log_sum(rest)
        steps[:, place] = shown[:, place] - left
        np.put_along_axis(rest, order[:, place : place + 1], -np.inf, axis=1)
    result: Floats = np.exp(np.minimum(np.cumsum(steps, axis=1), 0.0))
    return result


def _log_sum(logits: Floats) -> Floats:
    top = logits.max(axis=1)
    safe: Floats = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
    return safe


def item_position_propensities(logits: Floats, order: Integers) -> Floats:
    """Return the probability that each listed candidate stands in its place, shape (requests, k).

    In its clock form (candidate i rings at an exponential time of rate w_i) the order of ringing is
    Plackett-Luce, so that the chance of place k is one integral over time of a Poisson-binomial
    probability that exactly k - 1 others rang before. The integrand is analytic in log time and the
    trapezoid rule on it is exact to about 1e-12: no sampling, no enumeration.
    """
    row, place = np.arange(len(order))[:, None], np.arange(order.shape[1])[None, :]
    result: Floats = _places(logits, order, order.shape[1])[row, place, place]
    return result


def all_propensities(logits: Floats, k: int) -> Floats:
    """Return P(candidate i in place p), shape (requests, candidates, k)."""
    everyone = np.broadcast_to(np.arange(logits.shape[1]), logits.shape)
    return _places(logits, everyone.astype(np.int64), k)


def _places(logits: Floats, wanted: Integers, k: int) -> Floats:
    logits = normalised(logits)
    times = _log_times(logits)
    size = max(1, _CHUNK // (len(times) * wanted.shape[1] * k))
    parts = [
        _place_integrals(logits[start : start + size], wanted[start : start + size], k, times)
        for start in range(0, len(logits), size)
    ]
    return np.clip(np.concatenate(parts), np.finfo(np.float64).tiny, 1.0)


def _log_times(logits: Floats) -> Floats:
    """Log times from before any clock to after the slowest; the weights of a row add up to 1."""
    last = np.log(-_LOG_TINY) - float(logits.min())
    return np.arange(_LOG_TINY, last + _STEP, _STEP)


def _place_integrals(logits: Floats, wanted: Integers, k: int, times: Floats) -> Floats:
    # Past exp(700) a clock has rung for certain, and the number would overflow.
    hazard = np.exp(np.minimum(logits[:, None, :] + times[None, :, None], 700.0))
    rung, waiting = -np.expm1(-hazard), np.exp(-hazard)
    # before[b, w, t, c]: exactly c candidates other than the wanted one rang before time t.
    before = np.zeros((*wanted.shape, len(times), k))
    before[..., 0] = 1.0
    for other in range(logits.shape[1]):
        p, q = rung[:, None, :, other, None], waiting[:, None, :, other, None]
        more = before * q
        more[..., 1:] += before[..., :-1] * p
        before = np.where((wanted == other)[:, :, None, None], before, more)
    chosen = np.take_along_axis(hazard, wanted[:, None, :], axis=2)
    density = np.swapaxes(chosen * np.exp(-chosen), 1, 2)
    total: Floats = np.einsum("bwt,bwtc->bwc", density, before) * _STEP
    return total
