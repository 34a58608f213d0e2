"""How well a model ranks lists that it has not learnt from."""

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

_DEPTHS = (1, 5, 10)
_List = TypeVar("_List")


def ndcg(grades: Sequence[float], k: int) -> float:
    """Return nDCG@k of one list: gain ``grade``, discount ``log2(rank + 1)``.

    Järvelin and Kekäläinen 2002. A list without a grade above 0 has 0.

    Args:
        grades: in the order of the ranking.
        k: ranks that count.
    """
    ideal = _gain(sorted(grades, reverse=True)[:k])
    return _gain(grades[:k]) / ideal if ideal else 0.0


def by_score(scores: Sequence[float], grades: Sequence[float]) -> list[float]:
    """Return grades in the order of their scores, the highest first.

    Among equal scores the lowest grade comes first: a model that says nothing gains nothing.
    """
    order = sorted(range(len(scores)), key=lambda slot: (-scores[slot], grades[slot]))
    return [grades[slot] for slot in order]


def summary(rankings: Sequence[Sequence[float]]) -> Mapping[str, float]:
    """Return the mean nDCG at 1, 5 and 10 of some lists, and their number.

    Args:
        rankings: grades in the order of each ranking; at least one.
    """
    found = {
        f"nDCG@{k}": sum(ndcg(ranking, k) for ranking in rankings) / len(rankings) for k in _DEPTHS
    }
    return {**found, "lists": float(len(rankings))}


def shared_out(
    held: Sequence[Sequence[_List]], weights: Sequence[float], count: int
) -> list[_List]:
    """Return at most so many lists, of each source in the share in which it is learnt from.

    A source that has too few gives what it has, and the others more.

    Args:
        held: lists by source, those that were held back.
        weights: of the sources, above 0.
        count: of lists wanted.
    """
    taken = [0] * len(held)
    for _ in range(min(count, sum(map(len, held)))):
        # The source that lags most behind its share comes next, as it does in training.
        left = [source for source, lists in enumerate(held) if taken[source] < len(lists)]
        taken[min(left, key=lambda source: (taken[source] + 0.5) / weights[source])] += 1
    return [
        lists[number * len(lists) // some]
        for lists, some in zip(held, taken, strict=True)
        for number in range(some)
    ]


def _gain(grades: Sequence[float]) -> float:
    return math.fsum(grade / math.log2(rank + 1) for rank, grade in enumerate(grades, start=1))
