import tracemalloc

import numpy as np
import pytest

from eval.logs import LoggedLists
from eval.logs.open_bandit import fetch_open_bandit, read_open_bandit
from eval.position_bias.all_pairs import _compared
from eval.position_bias.click_cells import ClickCells, Sessions
from eval.position_bias.curves import (
    PositionBias,
    cascade_em,
    intervention_harvesting,
    position_based_em,
)
from eval.simulation import ShopDesign, SimulatedShop
from eval.statistics.estimates import RefusedEstimate
from reranker.errors import DataError
from reranker.models.weights import cache_folder
from reranker.schema import Impression, ShownItem

EXAMINATION = tuple(1 / (1 + 0.35 * place) for place in range(10))
DESIGN = ShopDesign(candidates=12, queries=20, tastes=4, examination=EXAMINATION)
SESSIONS = 100_000


def visited(design: ShopDesign, policy: str = "common", seed: int = 0) -> LoggedLists:
    shop, rng = SimulatedShop(design, seed=seed), np.random.default_rng(seed)
    return shop.visit(shop.policy(policy), SESSIONS // 5, 5, rng).logs


def errors(bias: PositionBias, truth: tuple[float, ...] = EXAMINATION) -> list[float]:
    return [abs(e.value - t / truth[0]) for e, t in zip(bias.examination, truth, strict=True)]


@pytest.fixture(scope="module")
def logs() -> LoggedLists:
    return visited(DESIGN)


@pytest.mark.parametrize("method", [position_based_em, intervention_harvesting])
def test_known_position_bias_is_recovered_from_100_000_sessions(method, logs) -> None:
    bias = method(logs)
    assert max(errors(bias)) < 0.02
    assert sum(e.covers(t) for e, t in zip(bias.examination, EXAMINATION, strict=True)) >= 8
    assert bias.pairs == 240


def test_a_later_place_may_be_looked_at_more_than_the_first() -> None:
    examination = (0.5, 1.0, 0.7)
    design = ShopDesign(candidates=6, queries=10, examination=examination)
    logs = visited(design)
    for method in (position_based_em, intervention_harvesting):
        assert max(errors(method(logs), examination)) < 0.06  # relative to a first place of 0.5


def test_rare_clicks_do_not_stop_expectation_maximisation_on_the_way() -> None:
    examination = (1.0, 0.4)
    logs = visited(
        ShopDesign(candidates=4, queries=2, examination=examination, attraction=(0.002, 0.02))
    )
    assert errors(position_based_em(logs), examination)[1] < 0.06


def test_a_personalised_log_needs_propensities() -> None:
    logs = visited(DESIGN, "taste")
    assert max(errors(intervention_harvesting(logs, by_propensity=True))) < 0.02
    assert max(errors(intervention_harvesting(logs))) > 0.02


def test_a_known_cascade_is_recovered_from_100_000_sessions() -> None:
    design = DESIGN.model_copy(
        update={
            "click_model": "cascade",
            "after_click": 0.4,
            "after_skip": 0.85,
            "tastes": 1,
            "generosity": (1.0,),
        }
    )
    bias = cascade_em(visited(design))
    assert bias.after_click is not None
    assert bias.after_skip is not None
    assert abs(bias.after_click.value - 0.4) < 0.02
    assert abs(bias.after_skip.value - 0.85) < 0.02
    values = [e.value for e in bias.examination]
    assert values[0] == 1
    assert values == sorted(values, reverse=True)


def test_expectation_of_reading_equals_enumeration() -> None:
    """P(read place k | clicks), by summing over all ways to stop."""
    logs = lists(("a", "b", "c", "d"), ("b", "a", "d", "c"), clicked="b")
    sessions = Sessions.of(logs)
    chance = np.full(sessions.clicks.shape, 0.3)
    read = sessions._read(chance, np.array([0.4, 0.8]))
    for row, clicks in enumerate(sessions.clicks):
        last = int(np.flatnonzero(clicks)[-1])
        weights = []
        for stop in range(last, 4):  # the last place that is read
            weight = 1.0
            for place in range(stop + 1):
                weight *= 0.3 if clicks[place] else 0.7
                goes_on = 0.4 if clicks[place] else 0.8
                weight *= goes_on if place < stop else (1 - goes_on if stop < 3 else 1.0)
            weights.append(weight)
        shares = np.array(weights) / sum(weights)
        for place in range(last + 1, 4):
            assert read[row, place] == pytest.approx(shares[place - last :].sum())


def test_leaving_shoppers_out_holds_no_second_log_for_each() -> None:
    """60,000 products of queries in 20 places, in 25 groups of shoppers."""
    rng, pairs, places, count = np.random.default_rng(0), 60_000, 20, 300_000
    requests = np.repeat(np.arange(count // places), places)
    propensity = rng.uniform(0.05, 1, size=count)
    logs = LoggedLists(
        request_ids=tuple(map(str, range(count // places))),
        shoppers=np.arange(count // places),
        queries=np.zeros(count // places, np.int64),
        query_names=("q",),
        products=tuple(map(str, range(pairs))),
        request=requests,
        product=rng.permutation(np.arange(count) % pairs),
        position=np.tile(np.arange(1, places + 1), count // places),
        propensity=propensity,
        prefix_propensity=propensity.copy(),
        grade=rng.integers(2, size=count),
    )
    groups = np.arange(count // places) % 25
    tracemalloc.start()
    cells = ClickCells.of(logs, by_propensity=True, groups=groups)
    shown, mass, clicks = cells.without(3)
    _compared(shown, clicks / np.where(mass > 0, mass, 1.0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200 * 2**20
    kept = groups[requests] != 3
    cell = (cells.pair * places + logs.position - 1)[kept]
    for found, column in (
        (shown, np.ones(count)), (mass, 1 / propensity), (clicks, logs.grade / propensity)
    ):  # fmt: skip
        counted = np.bincount(cell, column[kept], pairs * places).reshape(pairs, places)
        assert np.abs(found - counted).max() < 1e-9
    assert (mass[shown == 0] == 0).all()


def test_comparing_places_one_by_one_gives_the_sums_of_all_at_once() -> None:
    rng = np.random.default_rng(2)
    shown = rng.integers(4, size=(300, 6)).astype(float)
    rate = rng.random((300, 6))
    first, second = np.triu_indices(6, 1)
    total = shown[:, first] + shown[:, second]
    weight = shown[:, first] * shown[:, second] / np.where(total > 0, total, 1.0)
    volume, hits = _compared(shown, rate)
    assert volume == pytest.approx(weight.sum(axis=0), rel=1e-12)
    assert hits[0] == pytest.approx((weight * rate[:, first]).sum(axis=0), rel=1e-12)
    assert hits[1] == pytest.approx((weight * rate[:, second]).sum(axis=0), rel=1e-12)


def lists(*shown: tuple[str, ...], clicked: str = "", repeat: int = 1) -> LoggedLists:
    return LoggedLists.from_impressions(
        Impression(
            request_id=f"{turn}/{number}",
            query="q",
            items=tuple(
                ShownItem(product_id=product, position=place, grade=int(product == clicked))
                for place, product in enumerate(products, 1)
            ),
        )
        for turn in range(repeat)
        for number, products in enumerate(shown)
    )


def test_what_cannot_be_told_apart_is_refused() -> None:
    fixed = lists(("a", "b"), clicked="a", repeat=60)
    for method in (position_based_em, intervention_harvesting):
        with pytest.raises(RefusedEstimate, match="two places"):
            method(fixed)
    no_click = lists(("a", "b", "c"), ("b", "a", "c"), clicked="b", repeat=60)
    with pytest.raises(RefusedEstimate, match="place 3"):
        position_based_em(no_click)
    with pytest.raises(RefusedEstimate, match="propensity"):
        intervention_harvesting(no_click, by_propensity=True)
    with pytest.raises(RefusedEstimate, match="shoppers"):
        intervention_harvesting(lists(("a", "b"), ("b", "a"), clicked="a"))
    with pytest.raises(RefusedEstimate, match="one length"):
        cascade_em(lists(("a", "b"), ("b",), clicked="a", repeat=30))
    apart = lists(("a", "b", "c", "d"), ("b", "a", "d", "c"), clicked="", repeat=30)
    with pytest.raises(RefusedEstimate, match="no click"):
        cascade_em(apart)


def test_places_that_share_no_product_are_refused() -> None:
    lower = [("a", "b", "c", "d"), ("b", "a", "d", "c")]
    grades = [
        Impression(
            request_id=f"{turn}/{number}",
            query="q",
            items=tuple(
                ShownItem(product_id=p, position=k, grade=1) for k, p in enumerate(products, 1)
            ),
        )
        for turn in range(30)
        for number, products in enumerate(lower)
    ]
    with pytest.raises(RefusedEstimate, match="place 3 shares no"):
        intervention_harvesting(LoggedLists.from_impressions(grades))


def test_position_bias_of_real_logged_clicks() -> None:
    folder = fetch_open_bandit(cache_folder() / "datasets" / "open-bandit")
    logs = read_open_bandit(folder, "random")
    assert (len(logs), int(logs.grade.sum()), len(logs.products)) == (30_000, 130, 160)
    assert logs.propensity[0] == 0.0125
    places = np.bincount(logs.position)[1:]
    clicks = np.bincount(logs.position, logs.grade)[1:]
    ratio = clicks / places / (clicks[0] / places[0])
    for method in (position_based_em, intervention_harvesting):
        bias = method(logs)
        # The log is random, so that the plain click rates are an estimate of their own.
        assert [e.value for e in bias.examination] == pytest.approx(ratio, abs=0.05)
        assert all(e.low < e.value < e.high for e in bias.examination[1:])
    thompson = read_open_bandit(folder, "bts")
    assert (len(thompson), int(thompson.grade.sum())) == (30_000, 157)
    with pytest.raises(DataError, match=r"bts/none/none\.csv"):
        read_open_bandit(folder, "bts", ("none",))
