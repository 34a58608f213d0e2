"""How many windows each strategy asks for, and how many rounds one after the other."""

import random
from collections.abc import Sequence

from reranker.schema import Value
from reranker.strategies import Ranking, Strategy, Window

SIZES = (1, 2, 15, 20, 25, 35, 52, 53, 95, 100, 500)
_SHOPS = 50


class StrategyCost(Value):
    """What ranking lists of one length costs.

    Attributes:
        recall: whether the candidates come in their true order, or in a random one: the two ends
            between which real recall lies.
        windows: mean number of windows judged.
        rounds: mean number of rounds; the windows of one are judged at the same time.
        most_windows: of any list.
        shown: whether every candidate of every list was shown.
        right: share of lists whose first k are exactly right, the windows being judged faultlessly.
    """

    strategy: Strategy
    size: int
    recall: str
    windows: float
    rounds: float
    most_windows: int
    shown: bool
    right: float


class StrategyCosts(Value):
    """The whole table."""

    window: int
    step: int
    top_k: int
    costs: tuple[StrategyCost, ...]


def strategy_costs(*, window: int = 20, step: int = 10, top_k: int = 10) -> StrategyCosts:
    """Count for lists of many lengths, with a comparison that is never wrong."""
    how: tuple[Strategy, ...] = ("pivot", "sliding")
    costs = [
        _cost(strategy, size, recall, window, step, top_k)
        for strategy in how
        for size in SIZES
        for recall in ("right", "random")
    ]
    return StrategyCosts(window=window, step=step, top_k=top_k, costs=tuple(costs))


def _cost(
    strategy: Strategy, size: int, recall: str, window: int, step: int, top_k: int
) -> StrategyCost:
    windows, rounds, right, shown = [], [], 0, True
    for seed in range(_SHOPS if recall == "random" else 1):
        truth = list(range(size))
        if recall == "random":
            random.Random(seed).shuffle(truth)
        asked, order = _run(strategy, truth, window, step, top_k)
        windows.append(sum(map(len, asked)))
        rounds.append(len(asked))
        seen = {candidate for together in asked for one in together for candidate in one}
        shown = shown and (size < 2 or len(seen) == size)
        right += list(order[:top_k]) == truth[:top_k] or size < 2
    return StrategyCost(
        strategy=strategy,
        size=size,
        recall=recall,
        windows=sum(windows) / len(windows),
        rounds=sum(rounds) / len(rounds),
        most_windows=max(windows),
        shown=shown,
        right=right / len(windows),
    )


def _run(
    strategy: Strategy, truth: Sequence[int], window: int, step: int, top_k: int
) -> tuple[list[tuple[Window, ...]], Window]:
    worth = {candidate: -float(place) for place, candidate in enumerate(truth)}
    asked: list[tuple[Window, ...]] = []
    ranking = Ranking(len(truth), strategy=strategy, window=window, step=step, top_k=top_k)
    while windows := ranking.windows:
        asked.append(windows)
        ranking.take([tuple(worth[candidate] for candidate in shown) for shown in windows])
    return asked, ranking.order
