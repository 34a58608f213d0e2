import time
from itertools import permutations

import numpy as np
import pytest

from reranker.errors import ConfigError
from reranker.exploration import (
    all_propensities,
    explore,
    item_position_propensities,
    normalised,
    prefix_propensities,
    sample,
)


def by_enumeration(weights: np.ndarray, k: int) -> np.ndarray:
    places = np.zeros((len(weights), k))
    for order in permutations(range(len(weights)), k):
        chance, left = 1.0, list(range(len(weights)))
        for item in order:
            chance *= weights[item] / sum(sorted(weights[other] for other in left))
            left.remove(item)
        for place, item in enumerate(order):
            places[item, place] += chance
    return places


@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0, 30.0, 80.0])
def test_item_position_propensities_equal_enumeration(spread: float) -> None:
    logits = np.random.default_rng(3).normal(size=(4, 6)) * spread
    exact = np.stack([by_enumeration(np.exp(row), 4) for row in normalised(logits)])
    found = all_propensities(logits, 4)
    assert np.abs(found - exact).max() < 1e-14
    certain = exact > 1e-300
    assert np.abs(found[certain] / exact[certain] - 1).max() < 1e-13, "of small ones, too"
    order = sample(normalised(logits), 4, np.random.default_rng(2))
    asked = np.take_along_axis(exact, order[:, :, None], axis=1)[:, np.arange(4), np.arange(4)]
    assert np.abs(item_position_propensities(logits, order) - asked).max() < 1e-14


def test_every_place_is_filled_once() -> None:
    logits = np.random.default_rng(1).normal(size=(3, 40)) * 2
    places = all_propensities(logits, 10)
    assert np.allclose(places.sum(axis=1), 1, atol=1e-9)
    full = all_propensities(logits[:, :8], 8)
    assert np.allclose(full.sum(axis=2), 1, atol=1e-9)


def test_a_candidate_s_own_place_is_computed_like_all_of_them() -> None:
    rng = np.random.default_rng(5)
    logits = normalised(rng.normal(size=(3, 45)) * 4)
    order = np.stack([rng.permutation(45)[:31] for _ in range(3)])
    own = item_position_propensities(logits, order)
    places = np.take_along_axis(all_propensities(logits, 31), order[:, :, None], axis=1)
    assert own == pytest.approx(places[:, np.arange(31), np.arange(31)], rel=1e-12)


def test_long_lists_are_exact_too() -> None:
    """Among equals every place is equally likely; their rings lie close together in time."""
    even = item_position_propensities(np.zeros((1, 300)), np.arange(300)[None, :])
    assert np.abs(even * 300 - 1).max() < 1e-12


def test_a_long_list_is_drawn_though_hardly_any_list_is_likely() -> None:
    began = time.process_time()
    drawn = explore(np.linspace(3, 0, 300), 200, temperature=1, rng=np.random.default_rng(0))
    assert time.process_time() - began < 10
    assert len(drawn.propensity) == 200
    assert drawn.prefix_propensity[-1] == np.finfo(np.float64).tiny
    assert drawn.prefix_propensity[0] > drawn.prefix_propensity[9] > 1e-40


def test_the_smallest_temperatures_take_no_longer() -> None:
    began = time.process_time()
    scores = np.linspace(3, 0, 50)
    drawn = explore(scores, 10, temperature=1e-5, rng=np.random.default_rng(0))
    assert time.process_time() - began < 5
    assert drawn.order == tuple(range(10))
    assert drawn.propensity == pytest.approx((1.0,) * 10)


@pytest.mark.parametrize(
    ("scores", "temperature"), [((1.0, 0.0), 1e-7), ((1e308, -1e308), 1.0), ((1e308, 1.0), 1e-300)]
)
def test_a_temperature_at_which_nothing_is_drawn_is_refused(
    scores: tuple[float, ...], temperature: float
) -> None:
    with pytest.raises(ConfigError, match="millionth of the scores' range"):
        explore(scores, 2, temperature=temperature, rng=np.random.default_rng(0))


def test_drawn_lists_have_the_logged_propensities() -> None:
    rng = np.random.default_rng(7)
    logits = np.broadcast_to(np.array([1.0, 0.3, -0.4, 0.0]), (200_000, 4)).copy()
    order = sample(logits, 2, rng)
    first_two, counts = np.unique(order, axis=0, return_counts=True)
    chances = prefix_propensities(logits[: len(first_two)], first_two)[:, 1]
    assert len(first_two) == 12
    assert chances.sum() == pytest.approx(1)
    error = np.sqrt(chances * (1 - chances) / len(logits))
    assert np.abs(counts / len(logits) - chances).max() < 4.5 * error.max()


def test_an_explored_list_is_seeded_and_carries_both_propensities() -> None:
    scores = [3.0, 2.0, 1.0, 0.0, -1.0]
    first = explore(scores, 3, temperature=0.7, rng=np.random.default_rng(5))
    again = explore(scores, 3, temperature=0.7, rng=np.random.default_rng(5))
    assert first == again
    logits = normalised(np.array([scores]) / 0.7)
    order = np.array([first.order])
    assert first.propensity == pytest.approx(item_position_propensities(logits, order)[0])
    assert first.prefix_propensity[0] == pytest.approx(np.exp(logits[0, first.order[0]]))
    assert all(
        a >= b for a, b in zip(first.prefix_propensity, first.prefix_propensity[1:], strict=False)
    )


def test_a_small_temperature_keeps_the_order_and_a_large_one_is_uniform() -> None:
    rng = np.random.default_rng(0)
    assert explore([1.0, 3.0, 2.0], 3, temperature=0.01, rng=rng).order == (1, 2, 0)
    hot = all_propensities(normalised(np.array([[1.0, 3.0, 2.0]]) / 1e6), 3)
    assert np.allclose(hot, 1 / 3, atol=1e-5)


def test_more_places_than_candidates() -> None:
    drawn = explore([1.0, 2.0], 10, temperature=1, rng=np.random.default_rng(0))
    assert sorted(drawn.order) == [0, 1]


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_policy_that_does_not_explore_is_refused(temperature: float) -> None:
    with pytest.raises(ConfigError, match="temperature"):
        explore([1.0, 2.0], 2, temperature=temperature, rng=np.random.default_rng(0))


def test_scores_have_to_be_finite() -> None:
    with pytest.raises(ConfigError, match="finite"):
        explore([1.0, float("nan")], 2, temperature=1.0, rng=np.random.default_rng(0))
