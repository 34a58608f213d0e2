import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.statistics.interleaving import InterleavedList, preference, team_draft
from reranker.errors import DataError

rankings = st.lists(st.sampled_from("abcdefgh"), unique=True, max_size=8)


@given(a=rankings, b=rankings, k=st.integers(1, 10), seed=st.integers(0, 999))
def test_every_list_is_a_fair_draft(a: list[str], b: list[str], k: int, seed: int) -> None:
    drawn = team_draft(a, b, k, np.random.default_rng(seed))
    assert len(drawn.product_ids) == min(k, len(set(a) | set(b)))
    assert len(set(drawn.product_ids)) == len(drawn.product_ids)
    sides = {"a": a, "b": b}
    seen: set[str] = set()
    for place, (product, team) in enumerate(zip(drawn.product_ids, drawn.teams, strict=True)):
        assert product == next(p for p in sides[team] if p not in seen)
        seen.add(product)
        rest = [
            name for name, order in sides.items() if set(order) - set(drawn.product_ids[:place])
        ]
        if place % 2 and len(rest) == 2 and all(set(x) - seen for x in sides.values()):
            assert drawn.teams[place] != drawn.teams[place - 1]  # both pick once in each round


def test_who_picks_first_is_drawn_by_lot() -> None:
    rng = np.random.default_rng(0)
    firsts = [team_draft("ab", "ba", 2, rng).product_ids[0] for _ in range(4000)]
    assert 0.47 < firsts.count("a") / 4000 < 0.53


def test_credit() -> None:
    shown = InterleavedList(product_ids=("p", "q", "r"), teams=("a", "b", "a"))
    assert [shown.credit(c) for c in ({"p"}, {"q"}, {"p", "q"}, {"p", "q", "r"}, set(), {"z"})] == [
        1, -1, 0, 1, 0, 0,
    ]  # fmt: skip


@pytest.mark.parametrize(("good", "sign"), [(("a", "b"), 1), (("b", "a"), -1)])
def test_the_better_ranker_wins(good: tuple[str, str], sign: int) -> None:
    rng = np.random.default_rng(4)
    wanted = [f"p{i}" for i in range(10)]
    orders = {good[0]: wanted, good[1]: wanted[::-1]}
    outcomes, shoppers = [], []
    for visit in range(400):
        drawn = team_draft(orders["a"], orders["b"], 6, rng)
        likes = {p for p in drawn.product_ids if rng.random() < 0.4 - 0.035 * int(p[1:])}
        outcomes.append(drawn.credit(likes))
        shoppers.append(visit // 4)
    found = preference(outcomes, shoppers)
    assert found.preference.value * sign > 0.1
    assert found.p_value < 0.01
    assert found.wins + found.losses + found.ties == 400
    assert found.preference.clusters == 100


def test_equal_rankers_are_not_told_apart() -> None:
    rng = np.random.default_rng(8)
    p_values = []
    for _ in range(200):
        drawn = [team_draft("abcd", "abcd", 4, rng) for _ in range(60)]
        clicks = [{p for p in d.product_ids if rng.random() < 0.3} for d in drawn]
        outcomes = [d.credit(c) for d, c in zip(drawn, clicks, strict=True)]
        p_values.append(preference(outcomes, [i // 2 for i in range(60)]).p_value)
    assert np.mean(np.array(p_values) <= 0.05) < 0.1


def test_a_product_twice_is_refused() -> None:
    with pytest.raises(DataError, match="ranker b"):
        team_draft(["a"], ["b", "b"], 2, np.random.default_rng(0))
