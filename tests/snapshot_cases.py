"""Behaviour that is written as a snapshot, and whatever can be asked of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from profile_cases import NOW, TABLE, Words
from reranker.schema import BehaviourEvent, EventKind
from reranker.settings import ProfileSettings
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.snapshot import write_snapshot
from retrieval.labels import build_labels
from retrieval.profiles import DuckDBProfileStore
from shop import stored

LATER = datetime(2030, 1, 1, tzinfo=UTC)
USERS = ("anna", "ben", "cem")
SECRET = "a very particular wish"


def event(user: str, hours: float, kind: str, number: int) -> BehaviourEvent:
    searches = kind == "search"
    return BehaviourEvent(
        user_id=user,
        kind=EventKind(kind),
        at=NOW - timedelta(hours=hours),
        product_id=None if searches else f"p{number}",
        query=f"{SECRET} of {user}" if searches else None,
        request_id=f"r{number}",
        position=number if kind == "impression" else None,
        discount=0.5 if kind == "purchase" else None,
    )


def fill(store: BehaviourStore) -> None:
    kinds = ("impression", "click", "purchase", "search", "return")
    store.append(
        [
            event(user, 100 + 7 * place + number, kind, number)
            for place, user in enumerate(USERS)
            for number in range(1, 6)
            for kind in kinds[: number + 1]
        ]
    )
    store.set_consent("cem", "personalisation", granted=False)


def store_and_snapshot(folder: Path) -> Path:
    """Fill a store in a folder, and write its snapshot beside it."""
    with BehaviourStore(folder / "store") as store:
        fill(store)
        write_snapshot(store, folder / "snapshot")
    return folder


def log_of_two() -> str:
    """Return a file of events: anna and ben search and buy on five days each."""
    rows = "".join(
        f"{user},{kind},2025-05-0{day},{'' if kind == 'search' else 'p'},"
        f"{f'{SECRET} of {user}' if kind == 'search' else ''}\n"
        for user in ("anna", "ben")
        for day in range(1, 6)
        for kind in ("search", "purchase")
    )
    return f"user_id,kind,at,product_id,query\n{rows}"


def answers(store: BehaviourStore, labels: Path) -> dict[str, Any]:
    """Ask a store everything that can be asked of it."""
    maker = DuckDBProfileStore(store, TABLE, ProfileSettings(min_evidence=1), Words())
    return {
        "events": stored(store),
        "counts": (store.count(), store.users(), store.time_range(), store.busiest(2)),
        "histories": [store.history(user, NOW, limit=9) for user in USERS],
        "profiles": [maker.profile(user, NOW) for user in USERS],
        "all": list(maker.all_profiles(NOW)),
        "popular": maker.popular(NOW, k=9),
        "consent": [store.consent(user) for user in USERS],
        "report": build_labels(store, labels, NOW),
        "labels": pq.read_table(labels).to_pylist(),
    }
