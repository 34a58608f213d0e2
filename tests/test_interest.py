from datetime import UTC, datetime, timedelta

import pytest

from reranker.fusion import Blend
from reranker.interest import Interest
from reranker.schema import (
    Affinity,
    Candidate,
    EventKind,
    Product,
    RecentItem,
    RepeatPurchase,
    UserProfile,
)
from reranker.settings import FusionSettings

AT = datetime(2026, 3, 5, tzinfo=UTC)
DAY = timedelta(days=1)
PROFILE = UserProfile(
    user_id="shopper-1",
    as_of=AT,
    affinities=(
        Affinity(kind="category", name="Food", weight=0.8, evidence=9),
        Affinity(kind="category", name="Food > Tea", weight=0.4, evidence=5),
        Affinity(kind="brand", name="Tarn", weight=0.2, evidence=3),
    ),
    recent_items=(RecentItem(product_id="2", title="Mug", kind=EventKind.CLICK, at=AT),),
    repeat_purchases=(
        RepeatPurchase(product_id="1", title="Tea", count=3, last_at=AT - 8 * DAY, interval_days=7),
    ),
    event_count=9,
    summary="",
)


def of(**fields: object) -> tuple[float, tuple[str, ...]]:
    return Interest(PROFILE).of(Product.model_validate({"title": "x", **fields}))


def test_nothing_known_is_no_interest() -> None:
    assert of(product_id="9") == (0, ())


@pytest.mark.parametrize(
    ("fields", "value", "fact"),
    [
        ({"product_id": "1"}, 0.9 * 3 / 4, "bought 3 times, due again"),
        ({"product_id": "2"}, 0.5, "lately: click"),
        ({"product_id": "9", "brand": "TARN"}, 0.1, "brand Tarn"),
        ({"product_id": "9", "category": "food > tea > green"}, 0.2, "category Food > Tea"),
        ({"product_id": "9", "category": "Food > Milk"}, 0.4, "category Food"),
    ],
)
def test_each_signal(fields: dict[str, object], value: float, fact: str) -> None:
    assert of(**fields) == (pytest.approx(value), (fact,))


def test_what_was_bought_counts_even_if_the_profile_does_not_name_it() -> None:
    """Once: as far as the shopper buys things again; here 3 of 8 purchases were repeats."""
    purchases = {"1": 3, "5": 2, "6": 1, "7": 1, "8": 1}
    interest = Interest(PROFILE.model_copy(update={"purchases": purchases}))

    def of_product(product_id: str) -> tuple[float, tuple[str, ...]]:
        return interest.of(Product(product_id=product_id, title="x"))

    assert of_product("1") == of(product_id="1")  # named: with its rhythm
    assert of_product("5") == (pytest.approx(0.9 * 2 / 3), ("bought 2 times",))
    share = 1 - 5 / 8
    assert of_product("6") == (pytest.approx(0.45 * share), ("bought once",))
    only_once = Interest(PROFILE.model_copy(update={"purchases": {"6": 1, "7": 1}}))
    # Of who never buys again it is said, and speaks for nothing.
    assert only_once.of(Product(product_id="6", title="x")) == (0, ("bought once",))


def test_what_was_just_bought_is_not_wanted_for_having_been_touched() -> None:
    bought = RecentItem(product_id="9", title="Laptop", kind=EventKind.PURCHASE, at=AT)
    update = {"recent_items": (bought,), "repeat_purchases": (), "purchases": {"9": 1}}
    profile = PROFILE.model_copy(update=update)
    assert Interest(profile).of(Product(product_id="9", title="x")) == (0, ("bought once",))


def test_signals_join_by_a_noisy_or() -> None:
    value, facts = of(product_id="1", brand="Tarn")
    assert value == pytest.approx(1 - (1 - 0.675) * (1 - 0.1))
    assert facts == ("bought 3 times, due again", "brand Tarn")


@pytest.mark.parametrize(
    ("days", "changes", "share"),
    [
        (2, {}, 0.8),
        (8, {}, 1.0),
        (22, {}, 0.4),
        (22, {"count": 2}, 1.0),
        (22, {"interval_days": None}, 1.0),
    ],
)
def test_a_rhythm_tells_when(days: int, changes: dict[str, object], share: float) -> None:
    repeat = PROFILE.repeat_purchases[0].model_copy(update={"last_at": AT - days * DAY, **changes})
    profile = PROFILE.model_copy(update={"repeat_purchases": (repeat,)})
    value, _ = Interest(profile).of(Product(product_id="1", title="x"))
    assert value == pytest.approx(share * 0.9 * repeat.count / (repeat.count + 1))
    untimed = profile.model_copy(update={"timed": False})
    value, _ = Interest(untimed).of(Product(product_id="1", title="x"))
    assert value == pytest.approx(0.9 * repeat.count / (repeat.count + 1))


def test_what_was_sent_back_is_of_no_interest() -> None:
    returned = RecentItem(product_id="9", title="Mug", kind=EventKind.RETURN, at=AT)
    profile = PROFILE.model_copy(update={"returned_items": (returned,)})
    product = Product(product_id="9", title="x", brand="Tarn")
    assert Interest(profile).of(product) == (0.0, ("sent back",))
    assert Interest(PROFILE).of(product)[0] > 0


def test_the_window_takes_what_is_bought_again_before_what_is_merely_recalled() -> None:
    candidates = tuple(
        Candidate(product=Product(product_id=name, title="x"), recall_rank=rank, recall_score=1)
        for rank, name in enumerate(["7", "8", "9", "1"], start=1)
    )
    order = Blend(candidates, PROFILE, None, FusionSettings()).shown()
    assert [c.product.product_id for c in order] == ["7", "1", "8", "9"]
    assert Blend(candidates, None, None, FusionSettings()).shown() == candidates
    assert [c.recall_rank for c in order] == [1, 4, 2, 3]
