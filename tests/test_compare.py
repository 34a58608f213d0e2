import numpy as np
import pytest

from eval.statistics.comparison import compare, holm, minimum_detectable, permutation_test
from eval.statistics.estimates import Estimate, RefusedEstimate, interval, mean, ratio
from reranker.errors import ConfigError, DataError


def shoppers_and_values(
    rng: np.random.Generator, shoppers: int, effect: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Unequal shoppers: each has a level of their own, and 1 to 9 cases around it."""
    cases = rng.integers(1, 10, size=shoppers)
    units = np.repeat(np.arange(shoppers), cases)
    level = rng.exponential(size=shoppers) - 1
    return units, effect + level[units] + rng.normal(size=len(units)) * 0.5


def test_intervals_hold_the_truth_in_95_of_100_samples() -> None:
    rng, counts = np.random.default_rng(2), {"clustered": 0, "unclustered": 0}
    runs = 600
    for _ in range(runs):
        units, values = shoppers_and_values(rng, 80)
        # The mean over cases weighs shoppers by their cases, which are drawn apart from the level.
        found = {
            "clustered": mean("m", values, units),
            "unclustered": mean("m", values, np.arange(len(values))),
        }
        for name, estimate in found.items():
            counts[name] += estimate.covers(0.0)
    assert 0.92 <= counts["clustered"] / runs <= 0.98, counts
    assert counts["unclustered"] / runs < 0.75, "the test would not notice missing clusters"


def test_permutation_p_values_are_uniform_without_and_small_with_an_effect() -> None:
    rng = np.random.default_rng(5)
    null = []
    for seed in range(400):
        units, values = shoppers_and_values(rng, 40)
        # Signs are exchangeable under the null only for symmetric differences.
        flipped = values * rng.choice([-1, 1], size=40)[units]
        null.append(permutation_test(flipped, units, samples=400, seed=seed))
    assert 0.02 < np.mean(np.array(null) <= 0.05) < 0.08
    units, values = shoppers_and_values(rng, 80, effect=1.0)
    assert permutation_test(values, units, samples=999) == pytest.approx(1 / 1000)


def test_permutation_p_value_equals_enumeration() -> None:
    values = np.array([1.0, 2.0, 3.0, -0.5])
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1)
    exact = np.mean(np.abs(values @ signs) >= abs(values.sum()) - 1e-12)
    assert permutation_test(values, np.arange(4), samples=20_000) == pytest.approx(exact, abs=0.01)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))
    assert holm([0.9, 0.8]) == (1.0, 1.0)
    assert holm([]) == ()


def test_the_detectable_effect_is_detected_in_80_of_100_samples() -> None:
    rng, found, runs = np.random.default_rng(9), 0, 400

    def symmetric(rng: np.random.Generator, shoppers: int) -> tuple[np.ndarray, np.ndarray]:
        units = np.repeat(np.arange(shoppers), 4)
        return units, rng.normal(size=shoppers)[units] + rng.normal(size=len(units))

    pilot_units, pilot = symmetric(np.random.default_rng(1), 4000)
    effect = minimum_detectable(pilot, pilot_units, shoppers=200)
    for _ in range(runs):
        units, values = symmetric(rng, 200)
        estimate = mean("m", values + effect, units)
        found += not estimate.covers(0.0)
    assert 0.75 < found / runs < 0.85


def test_comparison_reports_everything_and_excludes_openly() -> None:
    rng = np.random.default_rng(3)
    base = rng.random(300)
    better = base + 0.1 + rng.normal(size=300) * 0.05
    base[:5] = np.nan
    rows = compare(
        "nDCG@10",
        "recall",
        {"recall": base.tolist(), "better": better.tolist(), "same": base.tolist()},
        [f"u{i // 3}" for i in range(300)],
        permutations=999,
    )
    first, second = rows
    assert first.variant == "better"
    assert first.difference.excluded == 5
    assert first.difference.clusters == 99  # all three cases of u0 and two of u1 have no value
    assert first.difference.low < 0.1 < first.difference.high
    assert (first.p_value, first.p_holm) == (0.001, 0.002)
    assert 0 < first.detectable < 0.05
    assert (second.difference.value, second.difference.low, second.difference.high) == (0, 0, 0)
    assert second.p_value == 1.0


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, np.nan], [1.0, np.nan]])
def test_one_shopper_carries_no_interval(values: list[float]) -> None:
    units = np.arange(len(values))
    with pytest.raises(RefusedEstimate, match="shopper"):
        mean("m", values, units)
    with pytest.raises(RefusedEstimate):
        permutation_test(values, units)


def test_wrong_calls_are_named() -> None:
    with pytest.raises(ConfigError, match="baseline 'x'"):
        compare("m", "x", {"a": [1.0]}, ["u"])
    with pytest.raises(DataError, match="b: 1 values for 2"):
        compare("m", "a", {"a": [1.0, 2.0], "b": [1.0]}, ["u", "v"])
    with pytest.raises(ConfigError, match="power"):
        minimum_detectable([1.0, 2.0], [0, 1], power=1.0)
    with pytest.raises(RefusedEstimate, match="weight"):
        ratio("m", [0.0, 0.0], [0.0, 0.0], [0, 1])


def test_the_interval_of_symmetric_units_is_student_s() -> None:
    from scipy.stats import t as student

    units = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
    low, high = interval(10.0, units)
    reach = student.ppf(0.975, 4) * units.std(ddof=1) / np.sqrt(5)
    assert (low, high) == pytest.approx((10 - reach, 10 + reach))
    skewed = interval(0.0, np.array([-1.0] * 9 + [9.0]))
    assert skewed[1] > -skewed[0]


def test_effective_n_is_kish_s() -> None:
    estimate: Estimate = ratio("m", [1.0, 0.0, 3.0], [1.0, 1.0, 2.0], [0, 1, 2])
    assert estimate.effective_n == pytest.approx(16 / 6)
    assert estimate.value == 1.0
