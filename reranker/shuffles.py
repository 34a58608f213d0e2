"""Show the same window in several orders, and average what the model says of each candidate.

The orders are sent together, and averaging takes out most of the position bias (permutation
self-consistency, Tang et al. 2023, arXiv 2310.07712). Every second order is the reverse of the one
before, so that a bias that runs evenly along the list cancels exactly.
"""

import random
from collections.abc import Sequence

from reranker.errors import OutputError
from reranker.schema import Prompt, SlotScores


def shuffled_orders(size: int, count: int, seed: str) -> list[tuple[int, ...]]:
    """Return the orders in which a window is shown, the same for the same seed.

    A single order is the one given, as it is. Of several, each odd one is a random permutation and
    each even one the reverse of its predecessor.
    """
    if count == 1:
        return [tuple(range(size))]
    generator = random.Random(seed)
    orders: list[tuple[int, ...]] = []
    while len(orders) < count:
        order = tuple(generator.sample(range(size), size))
        orders += [order, order[::-1]]
    return orders[:count]


def slots_to_candidates(prompt: Prompt, answer: SlotScores) -> list[float]:
    """Return the log-probabilities in candidate order.

    Raises:
        OutputError: the model scored another number of slots than the prompt has.
    """
    size = len(prompt.order)
    if len(answer.logprobs) != size:
        raise OutputError(f"the model scored {len(answer.logprobs)} of {size} candidates")
    scores = [0.0] * size
    for slot, candidate in enumerate(prompt.order):
        scores[candidate] = answer.logprobs[slot]
    return scores


def instability(by_shuffle: Sequence[Sequence[float]]) -> float | None:
    """Return the mean absolute difference of a candidate's rank between pairs of shuffles.

    0 means that the shown order does not matter; a random order gives about a third of the
    candidates' number.
    """
    if len(by_shuffle) < 2:
        return None
    ranks = []
    for scores in by_shuffle:
        order = sorted(range(len(scores)), key=lambda index: -scores[index])
        ranks.append({candidate: rank for rank, candidate in enumerate(order)})
    changes = [
        abs(first[candidate] - second[candidate])
        for position, first in enumerate(ranks)
        for second in ranks[position + 1 :]
        for candidate in first
    ]
    return sum(changes) / len(changes)


def means(by_shuffle: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Return the mean score of each candidate over the shuffles."""
    return tuple(sum(scores) / len(scores) for scores in zip(*by_shuffle, strict=True))
