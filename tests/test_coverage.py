"""How often the 95 % intervals of figures hold the truth, and whether p-values agree with them."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from eval.measures.rankings import MeasuredCases
from eval.statistics.comparison import compare, permutation_test
from eval.statistics.estimates import mean
from eval.statistics.interleaving import preference

_RUNS = 400
Drawn = Callable[[np.random.Generator, int], np.ndarray]


def hits(rate: float) -> Drawn:
    """Whether a list has a right product."""
    return lambda rng, count: (rng.random(count) < rate).astype(float)


def gains(rate: float) -> Drawn:
    """The nDCG@10 of one right product, which is among the first ten at this rate."""

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        return np.where(rng.random(count) < rate, 1 / np.log2(rng.integers(2, 12, size=count)), 0)

    return draw


def wins(better: float, worse: float) -> Drawn:
    """Differences of two rankers that mostly agree."""

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        chance = rng.random(count)
        return np.where(chance < better, 1.0, np.where(chance < better + worse, -1.0, 0.0))

    return draw


def gained(differ: float, better: float) -> Drawn:
    """Differences in nDCG@10 of two rankers that place the right product differently at times."""

    def draw(rng: np.random.Generator, count: int) -> np.ndarray:
        size = np.abs(gains(1.0)(rng, count) - gains(0.5)(rng, count))
        signed = np.where(rng.random(count) < better, size, -size)
        return np.where(rng.random(count) < differ, signed, 0.0)

    return draw


def dense(rng: np.random.Generator, count: int) -> np.ndarray:
    """The nDCG of one right product among 20, towards the top."""
    return np.asarray(1 / np.log2(np.minimum(rng.geometric(0.28, size=count), 20) + 1))


def truth_of(draw: Drawn) -> float:
    return float(draw(np.random.default_rng(99), 2_000_000).mean())


@pytest.mark.parametrize("count", [50, 100, 400, 3000])
@pytest.mark.parametrize(
    ("draw", "lowest"),
    [
        (hits(0.01), 0.93), (hits(0.02), 0.93), (hits(0.1), 0.93), (hits(0.97), 0.93),
        (gains(0.01), 0.94), (gains(0.05), 0.93), (gains(0.3), 0.93),
        (wins(0.04, 0.0), 0.93), (wins(0.05, 0.01), 0.92), (wins(0.02, 0.02), 0.93),
        (gained(0.05, 0.7), 0.92), (gained(0.3, 0.6), 0.92), (dense, 0.92),
    ],
)  # fmt: skip
def test_intervals_of_rare_and_of_common_values_hold_the_truth(
    draw: Drawn, lowest: float, count: int
) -> None:
    rng, truth = np.random.default_rng(17), truth_of(draw)
    bounds = (-1, 1) if draw(rng, 5000).min() < 0 else (0, 1)
    found = [mean("m", draw(rng, count), np.arange(count), bounds=bounds) for _ in range(_RUNS)]
    assert np.mean([each.covers(truth) for each in found]) >= lowest


@pytest.mark.parametrize("count", [10, 20, 40, 100])
@pytest.mark.parametrize("rate", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
def test_intervals_of_preferences_hold_the_truth_and_agree_with_the_sign_test(
    rate: float, count: int
) -> None:
    missed = 0.0
    for better in range(count + 1):
        outcomes = np.repeat([1.0, -1.0], [better, count - better])
        found = mean("m", outcomes, np.arange(count), bounds=(-1, 1))
        assert -1 <= found.low <= found.value <= found.high <= 1
        sure = binomtest(better, count).pvalue < 0.05
        assert found.covers(0.0) is not sure
        if not found.covers(2 * rate - 1):
            missed += float(binom.pmf(better, count, rate))
    assert missed < 0.06


@pytest.mark.parametrize("count", [10, 20, 40])
@pytest.mark.parametrize(
    "draw", [wins(0.6, 0.2), wins(0.8, 0.05), wins(0.7, 0.0), gains(0.05), gains(0.2), hits(0.9)]
)
def test_intervals_of_few_shoppers_hold_the_truth(draw: Drawn, count: int) -> None:
    rng, truth = np.random.default_rng(23), truth_of(draw)
    bounds = (-1, 1) if draw(rng, 5000).min() < 0 else (0, 1)
    found = [mean("m", draw(rng, count), np.arange(count), bounds=bounds) for _ in range(_RUNS)]
    assert np.mean([each.covers(truth) for each in found]) >= 0.92
    assert all(bounds[0] <= each.low <= each.high <= bounds[1] for each in found)


@pytest.mark.parametrize("shoppers", [3, 5, 10, 20])
@pytest.mark.parametrize("alike", [1.0, 4.0])
def test_intervals_of_shoppers_of_several_lists_hold_the_truth(alike: float, shoppers: int) -> None:
    rng, units = np.random.default_rng(29), np.repeat(np.arange(shoppers), 6)
    missed = 0
    for _ in range(_RUNS):
        rates = rng.beta(0.8 * alike, 0.2 * alike, size=shoppers)[units]
        outcomes = np.where(rng.random(len(units)) < rates, 1.0, -1.0)
        missed += not mean("m", outcomes, units, bounds=(-1, 1)).covers(0.6)
    assert missed / _RUNS <= 0.08


def test_a_sample_without_a_hit_has_an_interval() -> None:
    exact = 1 - 0.025 ** (1 / 100)
    nobody, everybody = (
        mean("m", np.full(100, each), np.arange(100), bounds=(0, 1)) for each in (0.0, 1.0)
    )
    assert (nobody.low, nobody.value, nobody.high) == pytest.approx((0.0, 0.0, exact))
    assert (everybody.low, everybody.value, everybody.high) == pytest.approx((1 - exact, 1.0, 1.0))
    alike = mean("m", np.zeros(100), np.arange(100), bounds=(-1, 1))
    assert (alike.low, alike.high) == pytest.approx((-exact, exact), rel=0.03)
    unknown = mean("m", np.zeros(100), np.arange(100))
    assert (unknown.low, unknown.high) == (0.0, 0.0)


@pytest.mark.parametrize("shoppers", [2, 3, 10])
def test_no_interval_lies_beyond_what_is_possible(shoppers: int) -> None:
    exact = 1 - 0.025 ** (1 / shoppers)
    won = preference([1.0] * shoppers, range(shoppers)).preference
    assert (won.low, won.high) == pytest.approx((1 - 2 * exact, 1.0))
    columns = {"a": [0.0] * shoppers, "b": [1.0] * shoppers}
    (found,) = compare("m", "a", columns, range(shoppers), bounds=(0, 1))
    assert (found.difference.low, found.difference.high) == pytest.approx((1 - 2 * exact, 1.0))
    case_ids = tuple("abcdefghij"[:shoppers])
    missed = MeasuredCases(
        measure="HitRate@10", case_ids=case_ids, values=(0.0,) * shoppers, unanswered=0
    ).mean(case_ids)
    assert (missed.low, missed.high) == pytest.approx((0.0, exact))
    wide = mean("m", np.linspace(0, 1, shoppers), np.arange(shoppers), bounds=(0, 1))
    assert 0 <= wide.low < wide.high <= 1


def test_one_hit_does_not_end_the_interval_at_its_own_value() -> None:
    values = np.zeros(100)
    values[0] = 0.63
    for bounds in ((0, 1), (-1, 1)):
        found = mean("nDCG@10", values, np.arange(100), bounds=bounds)
        assert found.high > 0.03
        assert found.low < found.value


@pytest.mark.parametrize(("better", "sure"), [(4, False), (5, False), (6, True), (7, True)])
def test_the_interval_of_few_differences_agrees_with_the_sign_test(better: int, sure: bool) -> None:
    values = np.zeros(300)
    values[:better] = 1.0
    columns = {"a": [0.0] * 300, "b": values.tolist()}
    (found,) = compare("m", "a", columns, range(300), bounds=(0, 1))
    assert (found.difference.low > 0) is sure
    assert (found.p_value < 0.05) is sure


def test_intervals_leave_out_0_where_p_values_are_below_5_percent() -> None:
    rng, apart, runs = np.random.default_rng(8), 0, 300
    for number in range(runs):
        count = int(rng.choice([50, 100, 400]))
        values = gained(*rng.uniform((0.02, 0.5), (0.3, 1.0)))(rng, count)
        found = mean("m", values, np.arange(count), bounds=(-1, 1))
        p_value = permutation_test(values, np.arange(count), samples=2000, seed=number)
        apart += found.covers(0.0) != (p_value >= 0.05)
    assert apart / runs < 0.06


def test_where_two_rankers_agree_everywhere_it_is_said_what_that_leaves_open() -> None:
    same = np.random.default_rng(1).random(200).tolist()
    (found,) = compare("m", "a", {"a": same, "b": same}, range(200), bounds=(0, 1))
    assert found.difference.low == -found.difference.high
    assert 0.01 < found.difference.high < 0.02
    assert found.detectable == found.difference.high
    assert found.p_value == 1.0


def test_a_shopper_of_several_cases_is_one_who_differs() -> None:
    units = np.repeat(np.arange(50), 4)
    values = np.zeros(200)
    values[:4] = 1.0
    one = mean("m", values, units, bounds=(-1, 1))
    spread = np.zeros(200)
    spread[::50] = 1.0
    four = mean("m", spread, units, bounds=(-1, 1))
    assert one.value == four.value
    assert one.high > four.high
