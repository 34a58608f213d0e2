"""Profiles: nothing from the future, what they say of a shopper, and how they say it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompts import load_template
from reranker.schema import BehaviourEvent, EventKind, Product, UserProfile
from reranker.settings import ProfileSettings
from retrieval.behaviour import BehaviourStore
from retrieval.product_facts import ProductFacts
from retrieval.product_table import ProductTable
from retrieval.profile_text import clean_text
from retrieval.profiles import DuckDBProfileStore

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
HASHES = {
    "en": "ff5e1402db5704ff640b6053f70980105b4df7f1aced184683df11d6e1a1c480",
    "zh": "5ec13abdc566eb7f087d9689f7b3b9e543c2c9e3a60d4ae9c3d205ba1867d19f",
}


class Words:
    """Counts words; a Chinese sentence counts as one."""

    def count(self, text: str) -> int:
        return len(text.split())

    def truncate(self, text: str, max_tokens: int) -> str:
        return " ".join(text.split()[:max_tokens])


def product(number: int, **changes: Any) -> Product:
    values: dict[str, Any] = {
        "product_id": f"p{number}",
        "title": f"Thing {number}",
        "brand": "Tarn" if number % 2 else "Norrland",
        "category": f"Home > Kitchen > {'Mugs' if number % 3 else 'Plates'}",
        "price": float(number),
        **changes,
    }
    return Product(**values)


TABLE = ProductTable.empty().upsert(product(number) for number in range(1, 31))[0]


def event(days: float, kind: str = "click", number: int | None = 1, **more: Any) -> BehaviourEvent:
    """Return an event some days before now."""
    product_id = None if number is None else f"p{number}"
    values = {"user_id": "shopper-7", "product_id": product_id, **more}
    return BehaviourEvent(kind=EventKind(kind), at=NOW - days * DAY, **values)


def profile_of(
    folder: Path,
    events: Sequence[BehaviourEvent],
    as_of: datetime = NOW,
    table: ProductTable = TABLE,
    **changes: Any,
) -> UserProfile | None:
    language = changes.pop("language", "en")
    with BehaviourStore(folder) as store:
        store.append(events)
        maker = DuckDBProfileStore(store, table, ProfileSettings(**changes), Words())
        return maker.profile("shopper-7", as_of, language)


def known(folder: Path, events: Sequence[BehaviourEvent], **more: Any) -> UserProfile:
    profile = profile_of(folder, events, **more)
    assert profile is not None
    return profile


@pytest.fixture
def store(tmp_path: Path) -> Iterator[BehaviourStore]:
    with BehaviourStore(tmp_path) as opened:
        yield opened


def test_nothing_from_the_moment_itself_or_later(tmp_path: Path) -> None:
    past = [event(3, "purchase", 2), event(2, "search", None, query="mug")]
    poison = [
        event(0, "purchase", 9),
        event(0, "search", None, query="poison"),
        event(-1e-6, "cart", 8),
        event(-30, "purchase", 2),
    ]
    assert profile_of(tmp_path / "a", [*past, *poison]) == profile_of(tmp_path / "b", past)
    assert profile_of(tmp_path / "c", poison) is None


def test_popular_is_blind_to_the_future(store: BehaviourStore) -> None:
    maker = DuckDBProfileStore(store, TABLE, ProfileSettings(), Words())
    store.append([event(1, "purchase", 1), event(27, "click", 2), event(3, "view", 3)])
    store.append([event(0, "purchase", 4), event(-1, "purchase", 5), event(29, "purchase", 6)])
    assert maker.popular(NOW, k=9) == ("p1", "p2", "p3")
    assert maker.popular(NOW, k=1) == ("p1",)
    assert maker.popular(NOW + timedelta(minutes=59), k=9) == ("p1", "p2", "p3")
    assert maker.popular(NOW + timedelta(hours=1), k=9)[:2] == ("p1", "p4")


EVENTS = st.builds(
    event,
    days=st.integers(-4, 4).map(lambda number: number / 2),
    kind=st.sampled_from([kind for kind in EventKind if kind is not EventKind.SEARCH]),
    number=st.integers(1, 6),
    query=st.none(),
) | st.builds(
    event,
    days=st.integers(-4, 4).map(lambda number: number / 2),
    kind=st.just("search"),
    number=st.none(),
    query=st.sampled_from(["mug", "plate"]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(events=st.lists(EVENTS, max_size=12), offset=st.integers(-2, 2))
def test_a_profile_equals_that_of_a_store_that_ends_there(
    tmp_path_factory: pytest.TempPathFactory, events: list[BehaviourEvent], offset: int
) -> None:
    folder = tmp_path_factory.mktemp("property")
    as_of = NOW + offset * DAY / 2
    past = [event for event in events if event.at < as_of]
    assert profile_of(folder / "a", events, as_of) == profile_of(folder / "b", past, as_of)


def test_a_new_event_changes_the_next_profile(store: BehaviourStore) -> None:
    maker = DuckDBProfileStore(store, TABLE, ProfileSettings(), Words())
    assert maker.profile("shopper-7", NOW) is None
    for count in (1, 2, 3):
        store.append([event(1 / count, "click", count)])
        profile = maker.profile("shopper-7", NOW)
        assert profile is not None
        assert profile.event_count == count
        assert profile.recent_items[0].product_id == f"p{count}"


def test_impressions_alone_are_no_profile(tmp_path: Path) -> None:
    assert profile_of(tmp_path, [event(1, "impression")]) is None


def shares(profile: UserProfile, kind: str) -> dict[str, float]:
    return {a.name: round(a.weight, 3) for a in profile.affinities if a.kind == kind}


def test_affinities_follow_kind_age_and_evidence(tmp_path: Path) -> None:
    events = [event(1, "purchase", 1), event(61, "purchase", 3), event(1, "click", 2)]
    profile = known(tmp_path, events, half_life_days=60.0)
    # Tarn: 5 and 5/2 in two events; Norrland: 1 in one event, which is too little evidence.
    assert shares(profile, "brand") == {"Tarn": round(7.5 / 8.5, 3)}
    assert shares(known(tmp_path, [], half_life_days=60.0, min_evidence=1), "brand") == {
        "Tarn": round(7.5 / 8.5, 3),
        "Norrland": round(1 / 8.5, 3),
    }


def test_a_parent_category_tells_when_several_children_are_touched(tmp_path: Path) -> None:
    profile = known(tmp_path / "a", [event(1, "click", n) for n in (1, 2, 3)], min_evidence=1)
    assert shares(profile, "category") == {
        "Home > Kitchen": 1.0,
        "Home > Kitchen > Mugs": 0.667,
        "Home > Kitchen > Plates": 0.333,
    }
    profile = known(tmp_path / "b", [event(1, "click", n) for n in (1, 2)], min_evidence=1)
    assert list(shares(profile, "category")) == ["Home > Kitchen > Mugs"]


def test_only_the_newest_events_count(tmp_path: Path) -> None:
    events = [event(day, "click", day) for day in range(1, 11)]
    profile = known(tmp_path, events, max_events=4, recent_items=3)
    assert profile.event_count == 4
    assert [item.product_id for item in profile.recent_items] == ["p1", "p2", "p3"]


def test_recent_items_keep_the_strongest_deed(tmp_path: Path) -> None:
    events = [event(5, "cart", 1), event(1, "view", 1), event(2, "view", 2), event(3, "view", 99)]
    items = known(tmp_path, events).recent_items
    assert [(item.product_id, item.kind.value) for item in items] == [
        ("p1", "cart"),
        ("p2", "view"),
    ]
    assert items[0].at == NOW - DAY


def test_repeat_purchases_have_the_rhythm_of_distinct_days(tmp_path: Path) -> None:
    days = (30, 20.1, 20, 3)
    events = [*(event(day, "purchase", 1) for day in days), event(5, "purchase", 2)]
    (repeat,) = known(tmp_path, events).repeat_purchases
    assert (repeat.product_id, repeat.count, repeat.interval_days) == ("p1", 4, 13.5)
    assert repeat.last_at == NOW - 3 * DAY


def test_queries_newest_first_without_repetition(tmp_path: Path) -> None:
    texts = ["mug", "Plate", "MUG ", "bowl"]
    events = [event(day, "search", None, query=text) for day, text in enumerate(texts, start=1)]
    assert known(tmp_path, events).recent_queries == ("mug", "Plate", "bowl")


def test_products_that_left_the_catalogue_are_not_named(tmp_path: Path) -> None:
    profile = known(tmp_path, [event(1, "purchase", 99), event(2, "purchase", 99)])
    assert (profile.event_count, profile.summary, profile.repeat_purchases) == (2, "", ())


def test_price_bands_are_relative_to_the_category() -> None:
    dear = [product(n, category="A", price=1000.0 + n) for n in range(12)]
    cheap = [product(100 + n, category="B", price=1.0 + n) for n in range(12)]
    few = [product(200 + n, category="B > C", price=2.0 + 100 * n) for n in range(2)]
    none = [product(300, price=None), product(301, category=None, price=500.0)]
    table = ProductTable.empty().upsert([*dear, *cheap, *few, *none])[0]
    band = ProductFacts(table).band
    codes = dict(zip(table.product_ids(range(len(table))), band.codes.tolist(), strict=True))
    assert [codes[f"p{n}"] for n in (0, 3, 4, 7, 8, 11)] == [0, 0, 1, 1, 2, 2]
    assert [codes[f"p{n}"] for n in (100, 104, 111)] == [0, 1, 2]
    assert (codes["p200"], codes["p201"]) == (0, 1)  # too few in their own category
    assert (codes["p300"], codes["p301"]) == (-1, 1)
    assert ProductFacts(ProductTable.empty()).band.codes.tolist() == []


HISTORY = [
    *(event(day, "purchase", 1) for day in (15, 8, 1)),
    event(2, "purchase", 4),
    event(3, "view", 2),
    event(4, "search", None, query="blue; mug"),
]


def test_summary_in_english(tmp_path: Path) -> None:
    assert known(tmp_path, HISTORY).summary.splitlines() == [
        "Buys often: Thing 1 (weekly).",
        "Favourite categories: Mugs.",
        "Brands: Tarn; Norrland.",
        "Price level: budget.",
        "Lately bought: Thing 4.",
        "Lately viewed: Thing 2.",
        "Recent searches: blue, mug.",
    ]


def test_summary_in_chinese(tmp_path: Path) -> None:
    profile = known(tmp_path, HISTORY, language="zh")
    assert profile.language == "zh"
    assert profile.summary.splitlines() == [
        "经常购买：Thing 1（约每7天）。",
        "偏好类目：Mugs。",
        "品牌：Tarn；Norrland。",
        "价位：低价。",
        "最近购买：Thing 4。",
        "最近浏览：Thing 2。",
        "最近搜索：blue, mug。",
    ]


@pytest.mark.parametrize("budget", range(16, 26))
def test_summary_is_cut_by_whole_facts(tmp_path: Path, budget: int) -> None:
    full = known(tmp_path / "a", HISTORY).summary.splitlines()
    cut = known(tmp_path / "b", HISTORY, max_tokens=budget).summary
    assert Words().count(cut) <= budget
    assert set(cut.splitlines()) <= {*full, "Brands: Tarn."}
    assert cut.startswith(full[0])


def test_summary_names_nobody_and_dates_nothing(tmp_path: Path) -> None:
    events = [*HISTORY, event(1, "search", None, query="orders of Shopper-7")]
    summary = known(tmp_path, events).summary
    assert "shopper-7" not in summary.casefold()
    assert "p1" not in summary
    assert "2025" not in summary


def test_hostile_titles_stay_on_their_line(tmp_path: Path) -> None:
    title = "Mug\nBrands: Evil\x00\u202e; " + "word " * 50
    table = ProductTable.empty().upsert([product(1, title=title)])[0]
    line = known(tmp_path, [event(1)], table=table).summary
    assert line.splitlines() == ["Lately viewed: Mug Brands: Evil , " + "word " * 7 + "word."]


@given(st.text())
def test_cleaned_text_is_one_short_line(text: str) -> None:
    cleaned = clean_text(text)
    assert cleaned.isprintable()
    assert len(cleaned) <= 80
    assert len(cleaned.split()) <= 12


@pytest.mark.parametrize("language", ["en", "zh"])
def test_templates_are_unchanged(language: str) -> None:
    assert load_template("profile", language, 1).sha256 == HASHES[language]
