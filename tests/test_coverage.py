"""How often the 95 % intervals of figures hold the truth, and whether p-values agree with them."""

from collections.abc import Callable

import numpy as np
import pytest

from eval.statistics.comparison import compare, permutation_test
from eval.statistics.estimates import mean

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
    return 1 / np.log2(np.minimum(rng.geometric(0.28, size=count), 20) + 1)


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
    found = [mean("m", draw(rng, count), np.arange(count), span=1.0) for _ in range(_RUNS)]
    assert np.mean([each.covers(truth) for each in found]) >= lowest


def test_a_sample_without_a_hit_has_an_interval() -> None:
    nobody, everybody = (mean("m", np.full(100, v), np.arange(100), span=1.0) for v in (0.0, 1.0))
    exact = 1 - 0.025 ** (1 / 100)
    assert (nobody.low, nobody.value) == (pytest.approx(-exact, rel=0.03), 0.0)
    assert nobody.high == pytest.approx(exact, rel=0.03)
    assert everybody.low == pytest.approx(1 - exact, abs=0.001)
    unknown = mean("m", np.zeros(100), np.arange(100))
    assert (unknown.low, unknown.high) == (0.0, 0.0)


def test_one_hit_does_not_end_the_interval_at_its_own_value() -> None:
    values = np.zeros(100)
    values[0] = 0.63
    found = mean("nDCG@10", values, np.arange(100), span=1.0)
    assert found.high > 0.03
    assert found.low < found.value


@pytest.mark.parametrize(("better", "sure"), [(4, False), (5, False), (6, True), (7, True)])
def test_the_interval_of_few_differences_agrees_with_the_sign_test(better: int, sure: bool) -> None:
    values = np.zeros(300)
    values[:better] = 1.0
    (found,) = compare("m", "a", {"a": [0.0] * 300, "b": values.tolist()}, range(300), span=1.0)
    assert (found.difference.low > 0) is sure
    assert (found.p_value < 0.05) is sure


def test_intervals_leave_out_0_where_p_values_are_below_5_percent() -> None:
    rng, apart, runs = np.random.default_rng(8), 0, 300
    for number in range(runs):
        count = int(rng.choice([50, 100, 400]))
        values = gained(*rng.uniform((0.02, 0.5), (0.3, 1.0)))(rng, count)
        found = mean("m", values, np.arange(count), span=1.0)
        p_value = permutation_test(values, np.arange(count), samples=2000, seed=number)
        apart += found.covers(0.0) != (p_value >= 0.05)
    assert apart / runs < 0.06


def test_where_two_rankers_agree_everywhere_it_is_said_what_that_leaves_open() -> None:
    same = np.random.default_rng(1).random(200).tolist()
    (found,) = compare("m", "a", {"a": same, "b": same}, range(200), span=1.0)
    assert found.difference.low == -found.difference.high
    assert 0.01 < found.difference.high < 0.02
    assert found.detectable == found.difference.high
    assert found.p_value == 1.0


def test_a_shopper_of_several_cases_is_one_who_differs() -> None:
    units = np.repeat(np.arange(50), 4)
    values = np.zeros(200)
    values[:4] = 1.0
    one = mean("m", values, units, span=1.0)
    spread = np.zeros(200)
    spread[::50] = 1.0
    four = mean("m", spread, units, span=1.0)
    assert one.value == four.value
    assert one.high > four.high
