"""The behaviour store: what is added is there once, and nothing is half done."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import ValidationError

from event_files import NOON, WRITERS, event, write_csv, write_jsonl, write_parquet
from reranker.errors import DataError
from reranker.schema import BehaviourEvent, EventKind
from retrieval.behaviour import FILE_NAME, BehaviourStore

LATER = datetime(2030, 1, 1, tzinfo=UTC)


def test_duplicates_are_removed_within_and_against_the_store(
    tmp_path: Path, store: BehaviourStore
) -> None:
    rows = [event(), event(), event(position=1), event(user_id="u2")]
    first = write_csv(tmp_path / "a.csv", rows)
    report = store.import_events([first])
    assert (report.imported, report.duplicates) == (3, 1)
    again = store.import_events([first])
    assert (again.imported, again.duplicates) == (0, 4)
    mixed = write_parquet(
        tmp_path / "b.parquet", [event(), event(user_id="u3"), event(user_id="u3")]
    )
    report = store.import_events([mixed])
    assert (report.imported, report.duplicates, store.count()) == (1, 2, 4)


def test_the_same_events_in_another_format_add_nothing(
    tmp_path: Path, store: BehaviourStore
) -> None:
    rows = [event(), event(kind="purchase", value=1.1, quantity=2.5), event(kind="jump")]
    for name, writer in WRITERS.items():
        report = store.import_events([writer(tmp_path / name, rows)])
        assert (report.imported, report.rejected_count) == ((2 if name == "a.csv" else 0), 1)
    assert store.count() == 2


def test_parquet_that_breaks_half_way(tmp_path: Path, store: BehaviourStore) -> None:
    good = write_csv(tmp_path / "0.csv", [event()])
    file = write_parquet(tmp_path / "a.parquet", [event(user_id=f"u{n}") for n in range(5000)])
    content = bytearray(file.read_bytes())
    content[8:4000] = b"\xff" * 3992
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.parquet: corrupt"):
        store.import_events([good, file])
    assert store.count() == 0
    assert store.import_events([good]).imported == 1


def test_live_events_are_trimmed_as_imported_ones(tmp_path: Path, store: BehaviourStore) -> None:
    blank = {"query": " ", "request_id": "\t"}
    ragged = [
        event(user_id=" u1", session_id=" u1 ", value=0.5, **blank),
        event(kind="search", product_id=None, query=" tea\n", session_id="s ", request_id=" r"),
    ]
    store.import_events([write_jsonl(tmp_path / "a.jsonl", ragged)])
    assert store.append([BehaviourEvent.model_validate(each) for each in ragged]) == 0


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "search", "query": " \n"}, {"value": -3.0}, {"position": 2**31},
        {"dwell_ms": 2**63},
    ],
)  # fmt: skip
def test_what_no_import_takes_is_no_live_event(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BehaviourEvent.model_validate(event(**bad))


def test_append_is_seen_at_once_and_only_once(store: BehaviourStore) -> None:
    click = BehaviourEvent(user_id="u", kind=EventKind.CLICK, at=NOON, product_id="p")
    assert store.append([click, click]) == 1
    assert store.append([click]) == 0
    assert [past.product_id for past in store.history("u", LATER, limit=9)] == ["p"]


def test_the_newest_are_the_first_of_all_also_within_one_moment(store: BehaviourStore) -> None:
    """Few events are put in order here, of many the database picks the newest: both agree."""
    moments = [datetime(2025, 5, day, tzinfo=UTC) for day in (1, 1, 1, 2)]
    deeds = [
        {"kind": kind, "product_id": product, "query": query}
        for kind in (EventKind.CLICK, EventKind.PURCHASE, EventKind.SEARCH)
        for product in ("b", "a", "é", None)
        for query in ("z", "Z", "茶", None)
        if (query if kind is EventKind.SEARCH else product) is not None
    ]
    store.append(
        [
            BehaviourEvent(user_id="u", at=at, request_id=str(number), **deed)
            for number, at in enumerate(moments)
            for deed in deeds
        ]
    )
    everything = store.history("u", LATER, limit=len(moments) * len(deeds))
    assert len(everything) == len(moments) * len(deeds)
    assert [each.at_us for each in everything] == sorted(
        (each.at_us for each in everything), reverse=True
    )
    assert [each.kind for each in everything[: len(deeds)]] == sorted(
        (each.kind for each in everything[: len(deeds)]),
        key=["purchase", "click", "search"].index,
    )
    for limit in range(len(everything) + 1):
        assert store.history("u", LATER, limit=limit) == everything[:limit]


def test_many_imports_are_merged_without_loss(tmp_path: Path, store: BehaviourStore) -> None:
    for day in range(1, 16):
        rows = [event(user_id=f"u{n}", at=f"2025-05-{day:02d}") for n in range(3)]
        store.import_events([write_csv(tmp_path / "a.csv", rows)])
    assert store.count() == 45
    assert len(store.history("u1", LATER, limit=99)) == 15
    assert store._rows("SELECT runs < 12 FROM meta") == [(True,)]


IMPORT = """
import sys
from pathlib import Path
from retrieval.behaviour import BehaviourStore
def tell(what, done, total):
    print(what, done, flush=True)
BehaviourStore(Path(sys.argv[1])).import_events(sys.argv[2:], progress=tell)
"""


def test_a_killed_import_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    bad = write_csv(tmp_path / "bad.csv", [event(kind="jump")])
    with BehaviourStore(folder) as store:
        store.import_events([write_csv(tmp_path / "a.csv", [event()]), bad])
        quarantined = store.rejected()
    write_csv(bad, [event(kind="leap")])
    big = tmp_path / "big.parquet"
    duckdb.execute(
        f"""COPY (SELECT 'u' || i % 5000 AS user_id, 'view' AS kind, 1700000000 + i AS "at",
        'p' || i AS product_id FROM range(1500000) t(i)) TO '{big}' (FORMAT parquet)"""
    )
    command = [sys.executable, "-c", IMPORT, str(folder), str(big), str(bad)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "inserting" not in process.stdout.readline():
            pass
        time.sleep(0.3)
        os.kill(process.pid, signal.SIGKILL)
        assert "inserting events 2" not in process.stdout.read()
    with BehaviourStore(folder) as store:
        assert (store.count(), store.users()) == (1, 1)
        assert store.rejected() == quarantined != ()
        assert store.import_events([tmp_path / "a.csv"]).duplicates == 1
    assert not list(folder.glob("behaviour-import-*"))


HOLD = """
import sys
from pathlib import Path
from retrieval.behaviour import BehaviourStore
store = BehaviourStore(Path(sys.argv[1]))
print("open", flush=True)
sys.stdin.read()
"""


def test_a_store_in_use_elsewhere_says_so(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        with pytest.raises(DataError, match="in use by another process"):
            BehaviourStore(tmp_path, read_only=True)
        process.communicate()
    with BehaviourStore(tmp_path, read_only=True) as store:
        assert store.count() == 0


def test_read_only_refuses_writes_and_a_missing_store_is_empty(tmp_path: Path) -> None:
    with BehaviourStore(tmp_path / "none", read_only=True) as store:
        assert (store.count(), store.time_range()) == (0, None)
        assert store.history("u", LATER, limit=1) == []
        with pytest.raises(DataError, match="read-only"):
            store.import_events([write_csv(tmp_path / "a.csv", [event()])])
    assert not (tmp_path / "none").exists()


def test_a_corrupt_store_is_not_taken_for_one_in_use(tmp_path: Path) -> None:
    folder = tmp_path / "clock"
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(b"this is not a database" * 1000)
    with pytest.raises(DataError, match="not a readable behaviour store"):
        BehaviourStore(folder)


def test_a_store_that_was_cut_off_is_told_as_such(tmp_path: Path) -> None:
    with BehaviourStore(tmp_path) as store:
        store.import_events([write_parquet(tmp_path / "a.parquet", [event()] * 50_000)])
    path = tmp_path / FILE_NAME
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match="not a readable behaviour store"), BehaviourStore(tmp_path):
        pass


def test_corrupt_foreign_and_outdated_stores(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(b"this is not a database" * 1000)
    with pytest.raises(DataError, match="not a readable behaviour store"):
        BehaviourStore(tmp_path)
    path.unlink()
    with duckdb.connect(path) as connection:
        connection.execute("CREATE TABLE other (a INT)")
    with pytest.raises(DataError, match="not a behaviour store"):
        BehaviourStore(tmp_path)
    path.unlink()
    BehaviourStore(tmp_path).close()
    with duckdb.connect(path) as connection:
        connection.execute("UPDATE meta SET schema_version = '0'")
    with pytest.raises(DataError, match="schema version 0"):
        BehaviourStore(tmp_path, read_only=True)
