import numpy as np
import pytest
from scipy.stats import ttest_ind

from eval.statistics.estimates import RefusedEstimate
from eval.statistics.experiment import anytime_factor, check_split, read_experiment
from reranker.errors import ConfigError, DataError


def visitors(
    rng: np.random.Generator, count: int, effect: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    treated = rng.random(count) < 0.5
    before = rng.normal(size=count)
    after = 0.8 * before + 0.6 * rng.normal(size=count) + effect * treated
    return treated, after, before


def test_without_a_covariate_it_is_welch_s_test() -> None:
    treated, after, _ = visitors(np.random.default_rng(1), 500, 0.2)
    effect = read_experiment("clicks", treated, after, planned_shoppers=500)
    welch = ttest_ind(after[treated], after[~treated], equal_var=False)
    bounds = welch.confidence_interval(0.95)
    assert effect.p_value == pytest.approx(welch.pvalue)
    assert (effect.difference.low, effect.difference.high) == pytest.approx(tuple(bounds))
    assert effect.treatment - effect.control == pytest.approx(effect.difference.value)
    assert effect.variance_left == 1.0
    assert effect.anytime.low < effect.difference.low < effect.difference.high
    assert effect.difference.high < effect.anytime.high


def test_a_covariate_narrows_the_interval_and_keeps_its_coverage() -> None:
    rng, covered, any_covered, runs = np.random.default_rng(2), 0, 0, 200
    for _ in range(runs):
        treated, after, before = visitors(rng, 400, 0.3)
        effect = read_experiment("clicks", treated, after, planned_shoppers=400, covariate=before)
        covered += effect.difference.covers(0.3)
        any_covered += effect.anytime.covers(0.3)
        assert effect.variance_left == pytest.approx(0.36, abs=0.12)
    assert 0.91 <= covered / runs <= 0.99
    assert any_covered >= covered


def test_looking_every_day_fools_the_fixed_interval_and_not_the_other() -> None:
    """No effect at all; 60 looks at growing data. How often is it ever declared?"""
    rng = np.random.default_rng(3)
    fixed = anytime = 0
    runs, looks = 1000, np.arange(100, 6100, 100)
    factors = np.array([anytime_factor(int(n), planned=2000) for n in looks])
    for _ in range(runs):
        treated = rng.random(looks[-1]) < 0.5
        signed = rng.normal(size=looks[-1])
        n_in, n_out = np.cumsum(treated)[looks - 1], np.cumsum(~treated)[looks - 1]
        gap = (
            np.cumsum(signed * treated)[looks - 1] / n_in
            - np.cumsum(signed * ~treated)[looks - 1] / n_out
        )
        errors = np.sqrt(1 / n_in + 1 / n_out)
        fixed += bool((np.abs(gap) > 1.96 * errors).any())
        anytime += bool((np.abs(gap) > factors * errors).any())
    assert fixed / runs > 0.2
    assert anytime / runs < 0.05


def test_a_mismatched_split_is_refused_before_anything_is_read() -> None:
    treated = np.arange(10_000) < 4700
    values = np.where(treated, 5.0, 1.0)
    with pytest.raises(RefusedEstimate, match="sample-ratio mismatch: 4700 of 10000"):
        read_experiment("clicks", treated, values, planned_shoppers=10_000)
    assert check_split(treated, planned_share=0.47) > 0.9
    assert check_split(np.arange(10_000) < 4950) > 0.2


def test_the_split_s_p_value_is_right() -> None:
    from scipy.stats import binomtest

    for inside in (480, 500, 530):
        found = check_split(np.arange(1000) < inside)
        assert found == pytest.approx(binomtest(inside, 1000).pvalue, abs=0.01)


def test_a_control_group_without_a_click() -> None:
    treated = np.arange(400) % 2 == 0
    clicks = (treated & (np.arange(400) % 8 == 0)).astype(float)
    effect = read_experiment("clicks", treated, clicks, planned_shoppers=400)
    assert (effect.control, effect.treatment) == pytest.approx((0, 0.25))
    assert effect.difference.low > 0
    assert effect.relative is None
    with pytest.raises(RefusedEstimate, match="same value"):
        read_experiment("clicks", treated, np.zeros(400), planned_shoppers=400)


def test_the_relative_effect() -> None:
    rng = np.random.default_rng(6)
    treated = rng.random(4000) < 0.5
    revenue = rng.exponential(size=4000) * (1 + 0.2 * treated)
    effect = read_experiment("revenue", treated, revenue, planned_shoppers=4000)
    assert effect.relative is not None
    assert effect.relative.covers(0.2)
    assert effect.relative.value == pytest.approx(effect.difference.value / effect.control)


def test_wrong_data_is_named() -> None:
    treated = [True, False] * 5
    with pytest.raises(DataError, match="shopper 3 is nan"):
        read_experiment("m", treated, [1, 2, float("nan"), *[1] * 7], planned_shoppers=10)
    with pytest.raises(DataError, match="for 10 shoppers"):
        read_experiment("m", treated, [1, 2], planned_shoppers=10)
    with pytest.raises(DataError, match="once"):
        read_experiment("m", treated, [1] * 10, planned_shoppers=10, shoppers=["u"] * 10)
    with pytest.raises(ConfigError, match="planned shoppers 0"):
        read_experiment("m", treated, range(10), planned_shoppers=0)
    with pytest.raises(TypeError, match="planned_shoppers"):
        read_experiment("m", treated, range(10))
    with pytest.raises(ConfigError, match="planned share"):
        check_split(treated, planned_share=1.0)
    with pytest.raises(RefusedEstimate, match="two shoppers"):
        check_split([True, False, False])
