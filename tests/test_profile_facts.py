"""The typed facts of a profile: what events add up to."""

from datetime import timedelta

import numpy as np
import pytest

from profile_cases import DAY, NOW, build, past, product, searched, table_of
from reranker.schema import RepeatPurchase, UserProfile
from retrieval.product_facts import ProductFacts
from retrieval.product_table import ProductTable
from retrieval.profiles import untimed_purchases

MINUTE = 1 / 1440


def shares(profile: UserProfile, kind: str) -> dict[str, float]:
    return {a.name: round(a.weight, 3) for a in profile.affinities if a.kind == kind}


def test_affinities_follow_kind_age_and_evidence() -> None:
    events = [past(1, "purchase", 1), past(61, "purchase", 3), past(1, "click", 2)]
    profile = build(events, half_life_days=60.0)
    # Tarn: 5 and 5/2 in two events; Norrland: 1 in one event, which is too little evidence.
    assert shares(profile, "brand") == {"Tarn": round(7.5 / 8.5, 3)}
    assert shares(build(events, half_life_days=60.0, min_evidence=1), "brand") == {
        "Tarn": round(7.5 / 8.5, 3),
        "Norrland": round(1 / 8.5, 3),
    }


def test_a_parent_category_tells_when_several_children_are_touched() -> None:
    profile = build([past(1, "click", n) for n in (1, 2, 3)], min_evidence=1)
    assert shares(profile, "category") == {
        "Home > Kitchen": 1.0,
        "Home > Kitchen > Mugs": 0.667,
        "Home > Kitchen > Plates": 0.333,
    }
    profile = build([past(1, "click", n) for n in (1, 2)], min_evidence=1)
    assert list(shares(profile, "category")) == ["Home > Kitchen > Mugs"]


def test_recent_items_keep_the_strongest_deed() -> None:
    events = [past(5, "cart", 1), past(1, "view", 1), past(2, "view", 2), past(3, "view", 99)]
    items = build(events).recent_items
    assert [(item.product_id, item.kind.value) for item in items] == [
        ("p1", "cart"),
        ("p2", "view"),
    ]
    assert items[0].at == NOW - DAY


def test_looking_around_does_not_hide_what_was_bought() -> None:
    views = [past(n * MINUTE * 60, "view", n) for n in range(1, 21)]
    bought = [past(30 + n, "purchase", 20 + n) for n in range(1, 6)]
    items = build([*views, *bought], recent_items=3).recent_items
    assert [item.product_id for item in items] == ["p1", "p2", "p3", "p21", "p22", "p23"]


def test_repeat_purchases_have_the_rhythm_of_distinct_days() -> None:
    days = (30, 20.1, 20, 3)
    events = [*(past(day, "purchase", 1) for day in days), past(5, "purchase", 2)]
    profile = build(events)
    (repeat,) = profile.repeat_purchases
    assert profile.purchases == {"p1": 4, "p2": 1}
    assert (repeat.product_id, repeat.count, repeat.interval_days) == ("p1", 4, 13.5)
    assert repeat.last_at == NOW - 3 * DAY
    assert repeat.due_at == NOW + 10.5 * DAY


def test_the_most_often_bought_come_first_then_the_latest() -> None:
    events = [past(day, "purchase", n) for n, days in {1: (9, 8), 2: (5, 4), 3: (7, 6, 5)}.items()
              for day in days]  # fmt: skip
    assert [repeat.product_id for repeat in build(events).repeat_purchases] == ["p3", "p2", "p1"]


@pytest.mark.parametrize(
    ("days", "due", "ended"),
    [(4, False, False), (5, True, False), (30, True, False), (31, False, True)],
)
def test_what_is_due_again(days: int, due: bool, ended: bool) -> None:
    repeat = RepeatPurchase(
        product_id="p", title="t", count=3, last_at=NOW - days * DAY, interval_days=10
    )
    assert (repeat.is_due(NOW), repeat.has_ended(NOW)) == (due, ended)
    for changes in ({"count": 2}, {"interval_days": None}):
        unsure = repeat.model_copy(update=changes)
        assert (unsure.is_due(NOW), unsure.has_ended(NOW)) == (False, False)


def test_a_return_undoes_the_purchase_before_it() -> None:
    bought = [past(9, "purchase", 1), past(6, "purchase", 1), past(5, "purchase", 2)]
    profile = build([*bought, past(3, "return", 1), past(2, "return", 2)])
    assert profile.event_count == 5
    assert [item.product_id for item in profile.recent_items] == ["p1"]
    assert profile.repeat_purchases == ()
    # The p1 of nine days ago was kept, the later one sent back.
    assert [item.product_id for item in profile.returned_items] == ["p2", "p1"]
    again = build([*bought, past(3, "return", 1), past(1, "purchase", 1)])
    assert again.returned_items == ()


def test_queries_newest_first_without_repetition() -> None:
    texts = ["mug", "Plate", "MUG ", "bowl"]
    events = [searched(day, text) for day, text in enumerate(texts, start=1)]
    assert build(events).recent_queries == ("mug", "Plate", "bowl")


def test_the_language_of_most_queries() -> None:
    chinese = [searched(day, f"杯子{day}") for day in (1, 2)]
    assert build(chinese).query_language is None
    assert build([*chinese, searched(3, "mug")]).query_language == "zh"
    assert build([*chinese, searched(3, "mug"), searched(4, "pot")]).query_language == "en"


def test_products_that_left_the_catalogue_are_not_named() -> None:
    profile = build([past(1, "purchase", 99), past(2, "purchase", 99)])
    assert (profile.event_count, profile.summary, profile.repeat_purchases) == (2, "", ())


def test_price_sense_is_relative_to_the_category() -> None:
    cheap = [product(n, category="A", price=n) for n in range(1, 10)]
    dear = [product(10 + n, category="B", price=100.0 * n) for n in range(1, 10)]
    table = table_of(*cheap, *dear)
    # Half the median of A, and of B: the prices themselves differ a hundredfold.
    events = [past(1, "purchase", n) for n in (2, 3, 12, 13)]
    price = build(events, table=table).price
    assert price is not None
    assert price.evidence == 4
    assert price.relative == pytest.approx((2 * 3 * 2 * 3) ** 0.25 / 5)
    assert build(events[:2], table=table).price is None
    assert build([past(1, "view", n) for n in (2, 3, 12, 13)], table=table).price is None


@pytest.mark.parametrize("days", [1060, 1200])
def test_purchases_that_count_nothing_any_more_tell_nothing(days: int) -> None:
    events = [searched(0.1, "tea"), *(past(days + n, "purchase", n) for n in (2, 3, 4, 5, 6))]
    assert build(events).price is not None
    profile = build(events, half_life_days=1.0)
    assert profile.price is None
    assert not profile.affinities


def test_a_category_is_one_in_any_case_and_on_any_level() -> None:
    names = ["Grocery > Dairy", "grocery > dairy > Milk", "GROCERY > DAIRY > Cheese"]
    table = table_of(*(product(n, category=name) for n, name in enumerate(names, start=1)))
    events = [past(n + day, "purchase", n) for n in (1, 2, 3) for day in (10, 20)]
    found = {
        each.name: (round(each.weight, 1), each.evidence)
        for each in build(events, table=table, min_evidence=2).affinities
        if each.kind == "category"
    }
    assert found == {
        "Grocery > Dairy": (1.0, 6),
        "Grocery > Dairy > Milk": (0.3, 2),
        "Grocery > Dairy > Cheese": (0.3, 2),
    }


def test_relative_prices_fall_back_where_a_category_has_few() -> None:
    many = [product(n, category="A > B", price=n) for n in range(1, 10)]
    few = [
        product(20, category="A > C", price=10.0),
        product(21, price=0.0),
        product(22, price=None),
    ]
    table = table_of(*many, *few)
    relative = ProductFacts(table).relative_price
    by_id = dict(zip(table.product_ids(range(len(table))), relative.tolist(), strict=True))
    assert by_id["p5"] == 1.0
    # The siblings and itself: the middle of ten prices.
    assert by_id["p20"] == pytest.approx(10 / 6)
    assert np.isnan([by_id["p21"], by_id["p22"]]).all()


def test_promotions_count_only_where_discounts_are_known() -> None:
    discounts = [0.0, 1.5, None, 2.0]
    events = [past(n, "purchase", n, discount=d) for n, d in enumerate(discounts, start=1)]
    use = build(events).promotions
    assert use is not None
    assert (use.discounted, use.purchases) == (2, 3)
    assert build([past(1, "purchase", 1)]).promotions is None


def test_a_session_goes_back_to_the_first_long_gap() -> None:
    events = [
        past(5 * MINUTE, "view", 1),
        searched(30 * MINUTE, "mug"),
        past(59 * MINUTE, "cart", 2),
        past(90 * MINUTE, "view", 3),
    ]
    session = build(events, session_minutes=30).session
    assert session is not None
    assert session.started_at == NOW - timedelta(minutes=59)
    assert session.queries == ("mug",)
    assert [item.product_id for item in session.items] == ["p1", "p2"]
    assert build(events, session_minutes=31).session != session
    assert build(events, as_of=NOW + timedelta(minutes=26)).session is None


def test_without_times_nothing_is_said_of_time() -> None:
    profile = build(untimed_purchases(["p1", "p2", "p1", "p1"], NOW), timed=False)
    assert profile.timed is False
    assert profile.session is None
    assert [item.product_id for item in profile.recent_items] == ["p1", "p2"]
    (repeat,) = profile.repeat_purchases
    assert (repeat.count, repeat.interval_days, repeat.due_at) == (3, None, None)


def test_price_bands_are_relative_to_the_category() -> None:
    dear = [product(n, category="A", price=1000.0 + n) for n in range(12)]
    cheap = [product(100 + n, category="B", price=1.0 + n) for n in range(12)]
    few = [product(200 + n, category="B > C", price=2.0 + 100 * n) for n in range(2)]
    none = [product(300, price=None), product(301, category=None, price=500.0)]
    table = table_of(*dear, *cheap, *few, *none)
    band = ProductFacts(table).band
    codes = dict(zip(table.product_ids(range(len(table))), band.codes.tolist(), strict=True))
    assert [codes[f"p{n}"] for n in (0, 3, 4, 7, 8, 11)] == [0, 0, 1, 1, 2, 2]
    assert [codes[f"p{n}"] for n in (100, 104, 111)] == [0, 1, 2]
    assert (codes["p200"], codes["p201"]) == (0, 1)  # too few in their own category
    assert (codes["p300"], codes["p301"]) == (-1, 1)
    assert ProductFacts(ProductTable.empty()).band.codes.tolist() == []
