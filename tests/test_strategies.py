"""A function compares windows here: the subject is which are asked for, and the order made."""

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.strategies import Ranking, Strategy, Window

Answer = tuple[float, ...] | None


class Shop:
    """Compares by a known order of the candidates; loses the windows whose numbers are given."""

    def __init__(self, best_first: Sequence[int], lost: frozenset[int] = frozenset()) -> None:
        self.worth = {candidate: -float(place) for place, candidate in enumerate(best_first)}
        self.lost = lost
        self.windows: list[Window] = []
        self.rounds = 0

    def compare(self, windows: Sequence[Window]) -> list[Answer]:
        self.rounds += 1
        answers: list[Answer] = []
        for window in windows:
            lost = len(self.windows) in self.lost
            self.windows.append(window)
            # An offset of the window's own: its scores mean nothing beside another's.
            offset = random.Random(str(window)).uniform(-50, 50)
            answers.append(None if lost else tuple(self.worth[c] + offset for c in window))
        return answers


def ranked(
    shop: Shop, strategy: Strategy, *, window: int = 20, step: int = 10, top_k: int = 10
) -> list[Window]:
    size = len(shop.worth)
    return orders(size, shop.compare, strategy, window=window, step=step, top_k=top_k)


def orders(
    size: int,
    compare: Callable[[Sequence[Window]], Sequence[Answer]],
    strategy: Strategy = "pivot",
    *,
    window: int = 20,
    step: int = 10,
    top_k: int = 10,
) -> list[Window]:
    """Return the orders that there were to show, from round to round."""
    ranking = Ranking(size, strategy=strategy, window=window, step=step, top_k=top_k)
    assert ranking.order == ()
    found = []
    while windows := ranking.windows:
        ranking.take(compare(windows))
        found.append(ranking.order)
    return [order for order in found if order]


@given(
    size=st.integers(0, 120),
    window=st.integers(2, 30),
    top_k=st.integers(1, 130),
    seed=st.integers(0, 9),
)
def test_pivot_puts_the_first_k_in_their_true_order(
    size: int, window: int, top_k: int, seed: int
) -> None:
    truth = random.Random(seed).sample(range(size), size)
    shop = Shop(truth)
    found = ranked(shop, "pivot", window=window, top_k=top_k)
    if size < 2:
        assert shop.windows == []
        return
    assert list(found[-1][:top_k]) == truth[:top_k]
    assert sorted(found[-1]) == list(range(size))
    assert {candidate for shown in shop.windows for candidate in shown} == set(range(size))
    assert all(2 <= len(shown) == len(set(shown)) <= window for shown in shop.windows)


@given(size=st.integers(0, 120), window=st.integers(2, 30), data=st.data())
def test_sliding_shows_every_candidate_and_brings_the_best_to_the_front(
    size: int, window: int, data: st.DataObject
) -> None:
    step = data.draw(st.integers(1, window - 1))
    truth = random.Random(size).sample(range(size), size)
    shop = Shop(truth)
    found = ranked(shop, "sliding", window=window, step=step)
    if size < 2:
        assert shop.windows == []
        return
    assert sorted(found[-1]) == list(range(size))
    assert {candidate for shown in shop.windows for candidate in shown} == set(range(size))
    carried = window - step if size > window else size
    assert list(found[-1][:carried]) == truth[:carried]


@pytest.mark.parametrize(
    ("strategy", "size", "windows", "rounds"),
    [
        ("pivot", 20, 1, 1),
        ("pivot", 100, 6, 2),
        ("pivot", 500, 27, 2),
        ("sliding", 20, 1, 1),
        ("sliding", 100, 9, 9),
        ("sliding", 500, 49, 49),
    ],
)
def test_calls_and_depth_where_recall_is_right(
    strategy: Strategy, size: int, windows: int, rounds: int
) -> None:
    shop = Shop(range(size))
    ranked(shop, strategy)
    assert (len(shop.windows), shop.rounds) == (windows, rounds)


@given(st.integers(21, 150), st.sets(st.integers(0, 12)), st.sampled_from(["pivot", "sliding"]))
def test_a_lost_window_never_repeats_nor_invents_a_candidate(
    size: int, lost: set[int], strategy: Strategy
) -> None:
    shop = Shop(random.Random(size).sample(range(size), size), frozenset(lost))
    found = ranked(shop, strategy)
    heard = {c for number, w in enumerate(shop.windows) if number not in lost for c in w}
    for order in found:
        assert len(order) == len(set(order))
    if found:
        assert set(found[-1]) <= heard
    if not lost.intersection(range(len(shop.windows))):
        assert set(found[-1]) == set(range(size))


@pytest.mark.parametrize("lost", range(9))
@pytest.mark.parametrize("strategy", ["pivot", "sliding"])
def test_one_lost_window_costs_little(strategy: Strategy, lost: int) -> None:
    shop = Shop(range(100), frozenset({lost}))
    order = ranked(shop, strategy)[-1]
    assert len(order) >= 80
    assert list(order) == sorted(order)


def test_a_judge_by_place_is_not_asked_for_ever() -> None:
    """It always puts what stands first last, whatever stands there."""
    asked = []

    def by_place(windows: Sequence[Window]) -> list[Answer]:
        asked.append(len(windows))
        return [tuple(float(place) for place in range(len(window))) for window in windows]

    assert sorted(orders(500, by_place)[-1]) == list(range(500))
    assert len(asked) <= 24
    assert sum(asked) < 200


def test_the_whole_order_takes_rounds_by_the_logarithm() -> None:
    for truth in (range(500), random.Random(1).sample(range(500), 500)):
        shop = Shop(truth)
        assert ranked(shop, "pivot", top_k=500)[-1] == tuple(truth)
        assert shop.rounds <= 16


def test_of_equal_scores_the_more_promising_comes_first() -> None:
    def all_the_same(windows: Sequence[Window]) -> list[Answer]:
        return [(0.0,) * len(window) for window in windows]

    assert orders(45, all_the_same)[-1] == tuple(range(45))
