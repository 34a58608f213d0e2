"""Nothing from the moment asked for, or later, has any influence: on profile, label or feature.

Each check is also run against a store whose door to the past stands open. It must then find the
leak: a check that cannot fail would prove nothing.
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from profile_cases import TABLE, Words
from reranker.interest import Interest
from reranker.schema import BehaviourEvent, EventKind, Product
from reranker.settings import LabelSettings, ProfileSettings
from retrieval.behaviour import BehaviourStore
from retrieval.labels import build_labels
from retrieval.profiles import DuckDBProfileStore

CUT = datetime(2025, 6, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
SHOPPERS = ("shopper-1", "shopper-2")


class OpenDoor(BehaviourStore):
    """A store that has lost its guard: its past has no end."""

    def past(self, purpose: Any) -> str:
        return super().past(purpose).replace('"at" < $as_of', '("at" < $as_of OR true)')


def profiles(store: BehaviourStore, folder: Path) -> object:
    """Return every profile as it is at the cut, with the interest that follows from it."""
    maker = DuckDBProfileStore(store, TABLE, ProfileSettings(min_evidence=1), Words())
    found = [maker.profile(user, CUT) for user in SHOPPERS]
    features = [
        Interest(profile).of(Product(product_id=f"p{n}", title="x", brand="Tarn"))
        for profile in found
        if profile is not None
        for n in range(1, 5)
    ]
    return found, features, maker.popular(CUT, k=9)


def all_profiles(store: BehaviourStore, folder: Path) -> object:
    maker = DuckDBProfileStore(store, TABLE, ProfileSettings(min_evidence=1), Words())
    return list(maker.all_profiles(CUT))


def labels(store: BehaviourStore, folder: Path) -> object:
    file = folder / "labels.parquet"
    report = build_labels(store, file, CUT, settings=LabelSettings(settle_hours=0))
    return report, pq.read_table(file).to_pylist()


CHECKS = pytest.mark.parametrize("known", [profiles, all_profiles, labels])
"""What is known at the cut: each takes a store and a folder of its own."""


@st.composite
def events(draw: st.DrawFn, hours: st.SearchStrategy[int]) -> BehaviourEvent:
    kind = draw(st.sampled_from(list(EventKind)))
    searches = kind is EventKind.SEARCH
    return BehaviourEvent(
        user_id=draw(st.sampled_from(SHOPPERS)),
        kind=kind,
        at=CUT + draw(hours) * HOUR,
        product_id=None if searches else f"p{draw(st.integers(1, 4))}",
        query=draw(st.sampled_from(["mug", "plate"])) if searches else None,
        request_id=draw(st.sampled_from([None, "r1", "r2"])),
        position=draw(st.integers(1, 3)) if kind is EventKind.IMPRESSION else None,
        dwell_ms=draw(st.sampled_from([None, 50_000])) if kind is EventKind.VIEW else None,
    )


PAST = st.lists(events(st.integers(-60, -1)), max_size=12)
POISON = st.lists(events(st.integers(0, 60)), min_size=1, max_size=8)


def known_at_the_cut(
    known: Callable[[BehaviourStore, Path], object],
    folder: Path,
    past: Sequence[BehaviourEvent],
    kind_of_store: type[BehaviourStore] = BehaviourStore,
) -> object:
    with kind_of_store(folder) as store:
        store.append(past)
        return known(store, folder)


@CHECKS
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(past=PAST, poison=POISON)
def test_the_future_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    known: Callable[[BehaviourStore, Path], object],
    past: list[BehaviourEvent],
    poison: list[BehaviourEvent],
) -> None:
    folder = tmp_path_factory.mktemp("leak")
    clean = known_at_the_cut(known, folder / "clean", past)
    assert known_at_the_cut(known, folder / "poisoned", [*past, *poison]) == clean


SHOWN = [
    BehaviourEvent(
        user_id="shopper-1",
        kind=EventKind.IMPRESSION,
        at=CUT - 3 * HOUR,
        product_id=f"p{n}",
        request_id="r1",
        position=n,
    )
    for n in (1, 2)
]
CLICKED = BehaviourEvent(
    user_id="shopper-1", kind=EventKind.CLICK, at=CUT - 2 * HOUR, product_id="p1", request_id="r1"
)
BOUGHT_LATER = BehaviourEvent(
    user_id="shopper-1", kind=EventKind.PURCHASE, at=CUT, product_id="p2", request_id="r1"
)


@CHECKS
def test_the_check_finds_a_leak_where_the_guard_is_gone(
    tmp_path: Path, known: Callable[[BehaviourStore, Path], object]
) -> None:
    past = [*SHOWN, CLICKED]
    clean = known_at_the_cut(known, tmp_path / "clean", past, OpenDoor)
    try:
        leaked = known_at_the_cut(known, tmp_path / "leaky", [*past, BOUGHT_LATER], OpenDoor)
    except ValueError as refused:  # the builder's own look at the times
        assert "not before it" in str(refused)  # noqa: PT017
    else:
        assert leaked != clean
