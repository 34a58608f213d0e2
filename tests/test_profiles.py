"""Profiles over the behaviour store: nothing from the future, and all of the past at once."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_cases import DAY, NOW, SHOPPER, TABLE, Words
from reranker.schema import BehaviourEvent, EventKind, UserProfile
from reranker.settings import ProfileSettings
from retrieval.behaviour import BehaviourStore
from retrieval.profiles import DuckDBProfileStore


def event(days: float, kind: str = "click", number: int | None = 1, **more: Any) -> BehaviourEvent:
    """Return an event some days before now."""
    product_id = None if number is None else f"p{number}"
    values = {"user_id": SHOPPER, "product_id": product_id, **more}
    return BehaviourEvent(kind=EventKind(kind), at=NOW - days * DAY, **values)


def profile_of(
    folder: Path,
    events: Sequence[BehaviourEvent],
    as_of: datetime = NOW,
    **changes: Any,
) -> UserProfile | None:
    with BehaviourStore(folder) as store:
        store.append(events)
        maker = DuckDBProfileStore(store, TABLE, ProfileSettings(**changes), Words())
        return maker.profile(SHOPPER, as_of)


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
    assert maker.profile(SHOPPER, NOW) is None
    for count in (1, 2, 3):
        store.append([event(1 / count, "click", count)])
        profile = maker.profile(SHOPPER, NOW)
        assert profile is not None
        assert profile.event_count == count
        assert profile.recent_items[0].product_id == f"p{count}"


def test_impressions_alone_are_no_profile(tmp_path: Path) -> None:
    assert profile_of(tmp_path, [event(1, "impression")]) is None


def test_only_the_newest_events_count(tmp_path: Path) -> None:
    events = [event(day, "click", day) for day in range(1, 11)]
    profile = known(tmp_path, events, max_events=4, recent_items=3)
    assert profile.event_count == 4
    assert [item.product_id for item in profile.recent_items] == ["p1", "p2", "p3"]


def test_all_profiles_are_those_of_shoppers_who_consent(store: BehaviourStore) -> None:
    maker = DuckDBProfileStore(store, TABLE, ProfileSettings(), Words())
    store.append([event(1), event(2, "purchase", 2), event(3, user_id="another")])
    pseudonym = str(store.pseudonym(SHOPPER))
    assert pseudonym in {profile.user_id for profile in maker.all_profiles(NOW)}
    store.set_consent(SHOPPER, "personalisation", granted=False)
    (other,) = maker.all_profiles(NOW)
    assert other.user_id == str(store.pseudonym("another"))
    assert maker.profile(SHOPPER, NOW) is None


def test_no_profile_says_the_shopper_s_id(tmp_path: Path) -> None:
    user = "anna_meier84"
    with BehaviourStore(tmp_path) as store:
        maker = DuckDBProfileStore(store, TABLE, ProfileSettings(), Words())
        asks = event(1, "search", None, query=f"orders of {user}", user_id=user)
        store.append([asks, event(2, "purchase", user_id=user)])
        (told,) = maker.all_profiles(NOW)
        assert user not in told.model_dump_json()
        one = maker.profile(user, NOW)
        assert one is not None
        assert told.summary == one.summary


class Interrupted(BehaviourStore):
    """Somebody asks something of it just before a change is kept."""

    ask: Callable[[], object] | None = None

    @contextmanager
    def changing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with super().changing() as connection:
            yield connection
            if self.ask is not None:
                self.ask()


@pytest.mark.parametrize("change", ["set_consent", "import_consent", "import_events"])
def test_what_is_counted_before_a_change_is_kept_is_counted_again(
    tmp_path: Path, change: str
) -> None:
    (tmp_path / "c.csv").write_text(f"user_id,purpose,granted\n{SHOPPER},analytics,no\n")
    (tmp_path / "e.csv").write_text(
        "user_id,kind,at,product_id\n"
        + "".join(f"{user},purchase,{NOW - DAY},p2\n" for user in ("a", "b"))
    )
    with Interrupted(tmp_path / "store") as store:
        maker = DuckDBProfileStore(store, TABLE, ProfileSettings(), Words())
        store.append([event(1, "purchase", 1)])
        store.ask = lambda: maker.popular(NOW, k=1)
        assert store.ask() == ("p1",)
        if change == "set_consent":
            store.set_consent(SHOPPER, "analytics", granted=False)
        elif change == "import_consent":
            store.import_consent([tmp_path / "c.csv"])
        else:
            store.import_events([tmp_path / "e.csv"])
        expected = ("p2",) if change == "import_events" else ()
        assert maker.popular(NOW, k=1) == expected
