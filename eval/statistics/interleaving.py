"""Team-draft interleaving: two rankers in one list, judged by whose products are clicked.

Source: Radlinski, Kurup & Joachims (2008), "How does clickthrough data reflect retrieval quality?"
It needs far fewer visits than an A/B test to tell two rankers apart, and says only which is better.
"""

from collections.abc import Collection, Hashable, Sequence
from typing import Literal

import numpy as np

from eval.statistics.comparison import permutation_test
from eval.statistics.estimates import Estimate, codes, mean
from reranker.errors import DataError
from reranker.schema import Value

Team = Literal["a", "b"]


class InterleavedList(Value):
    """A list that two rankers filled in turn.

    Attributes:
        product_ids: from the first place down.
        teams: of each place, the ranker that gave the product.
    """

    product_ids: tuple[str, ...]
    teams: tuple[Team, ...]

    def credit(self, clicked: Collection[str]) -> float:
        """Return 1 if a's products got more clicks, -1 if b's did, 0 for a tie."""
        wins = [1 if team == "a" else -1 for p, team in self._pairs() if p in clicked]
        return float(np.sign(sum(wins)))

    def _pairs(self) -> list[tuple[str, Team]]:
        return list(zip(self.product_ids, self.teams, strict=True))


class Preference(Value):
    """Which of two rankers shoppers prefer.

    Attributes:
        preference: mean credit over lists, from -1 (always b) to 1 (always a), by shopper.
        wins: lists that a won.
        losses: lists that b won.
        ties: lists without clicks, or with as many for both.
        p_value: of a permutation test over shoppers that there is no preference.
    """

    preference: Estimate
    wins: int
    losses: int
    ties: int
    p_value: float


def team_draft(
    a: Sequence[str], b: Sequence[str], k: int, rng: np.random.Generator
) -> InterleavedList:
    """Fill k places: in each round both pick their best product left, in an order by lot.

    Raises:
        DataError: a ranker lists a product twice.
    """
    for name, order in (("a", a), ("b", b)):
        if len(set(order)) != len(order):
            raise DataError(f"ranker {name} lists a product twice")
    sides: dict[Team, Sequence[str]] = {"a": a, "b": b}
    left: dict[Team, int] = {"a": 0, "b": 0}
    chosen: dict[str, Team] = {}
    while len(chosen) < k:
        first: tuple[Team, Team] = ("a", "b") if rng.random() < 0.5 else ("b", "a")
        before = len(chosen)
        for team in first:
            order = sides[team]
            while left[team] < len(order) and order[left[team]] in chosen:
                left[team] += 1
            if left[team] < len(order) and len(chosen) < k:
                chosen[order[left[team]]] = team
        if len(chosen) == before:
            break
    return InterleavedList(product_ids=tuple(chosen), teams=tuple(chosen.values()))


def preference(outcomes: Sequence[float], shoppers: Sequence[Hashable]) -> Preference:
    """Judge the outcomes of many lists.

    Args:
        outcomes: of each list, see `InterleavedList.credit`.
        shoppers: of each list.

    Raises:
        RefusedEstimate: fewer than two shoppers.
    """
    values, units = np.asarray(outcomes, np.float64), codes(list(shoppers))
    return Preference(
        preference=mean("preference for a", values, units, bounds=(-1.0, 1.0)),
        wins=int((values > 0).sum()),
        losses=int((values < 0).sum()),
        ties=int((values == 0).sum()),
        p_value=permutation_test(values, units),
    )
