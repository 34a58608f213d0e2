"""Event files: what comes in from each format, and which rows and files are refused."""

import gzip
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from event_files import NOON, WRITERS, event, write_csv, write_jsonl
from reranker.errors import ConfigError, DataError
from reranker.schema import BehaviourEvent, EventKind
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.importing import ImportReport
from retrieval.imports import RejectedRow
from shop import stored

NAMES = set(RejectedRow.model_fields)


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_arrives_in_full(tmp_path: Path, store: BehaviourStore, name: str) -> None:
    rows = [
        event(
            query=None, session_id="s", request_id="r", position=3, dwell_ms=250,
            quantity=1.5, value=9.99, discount=0.5,
        ),
        event(user_id="用户", kind="search", product_id=None, query="oat, \"milk\"\n; 牛奶"),
    ]  # fmt: skip
    report = store.import_events([WRITERS[name](tmp_path / name, rows)])
    at = NOON.replace(tzinfo=None)
    assert stored(store) == [
        ("u1", "click", at, "p1", None, "s", "r", 3, 250, 1.5, 9.99, 0.5),
        ("用户", "search", at, None, 'oat, "milk"\n; 牛奶', *[None] * 7),
    ]
    told = report.model_copy(update={"findings": ()})
    assert told == ImportReport(
        files=1, formats={"native": 1}, rows=2, events=2, imported=2, duplicates=0
    )
    assert store.count() == store.users() == 2
    assert store.time_range() == (NOON, NOON)


@pytest.mark.parametrize(
    ("given", "expected", "naive"),
    [
        ("2025-05-01T12:00:00+02:00", NOON - timedelta(hours=2), 0),
        ("2025-05-01T12:00:00-0530", NOON + timedelta(hours=5, minutes=30), 0),
        ("2025-05-01 12:00:00", NOON, 1),
        ("2025-05-01", NOON - timedelta(hours=12), 1),
        ("20250501T120000Z", NOON, 0),
        ("20250501T1200-0200", NOON + timedelta(hours=2), 0),
        ("20250501T120000.25", NOON + timedelta(milliseconds=250), 1),
        ("2025-05-01T12:00:00.000001999Z", NOON + timedelta(microseconds=1), 0),
        ("1746100800000001999", NOON + timedelta(microseconds=2), 0),
        ("1746100800", NOON, 0),
        ("1746100800.5", NOON + timedelta(milliseconds=500), 0),
        ("1746100800250", NOON + timedelta(milliseconds=250), 0),
    ],
)
def test_times_are_read_as_utc(
    tmp_path: Path, store: BehaviourStore, given: str, expected: datetime, naive: int
) -> None:
    report = store.import_events([write_csv(tmp_path / "a.csv", [event(at=given)])])
    assert store.time_range() == (expected, expected)
    assert report.naive_times == naive


@pytest.mark.parametrize(
    ("times", "naive"),
    [
        (pa.array([NOON], pa.timestamp("us", "UTC")), 0),
        (pa.array([NOON], pa.timestamp("ms", "+08:00")), 0),
        (pa.array([NOON], pa.timestamp("ns", "UTC")), 0),
        (pa.array([NOON.replace(tzinfo=None)], pa.timestamp("ns")), 1),
        (pa.array([1746100800], pa.int64()), 0),
        (pa.array([1746100800000.0], pa.float64()), 0),
        (pa.array([1746100800000000300], pa.int64()), 0),
        (pa.array([1746100800000000300], pa.timestamp("ns", "UTC")), 0),
        (pa.array([1746100800000000300], pa.timestamp("ns")), 1),
    ],
)  # fmt: skip
def test_parquet_times_of_all_types(
    tmp_path: Path, store: BehaviourStore, times: Any, naive: int
) -> None:
    file = tmp_path / "a.parquet"
    columns = {"user_id": [7.0], "kind": ["view"], "at": times, "product_id": [9]}
    pq.write_table(pa.table(columns), file)
    report = store.import_events([file])
    assert stored(store)[0][:4] == ("7", "view", NOON.replace(tzinfo=None), "9")
    assert report.naive_times == naive


@pytest.mark.parametrize("type_", [pa.int64(), pa.timestamp("ns", "UTC"), pa.timestamp("ns")])
def test_nanoseconds_are_rounded_as_those_in_older_stores_are(
    tmp_path: Path, store: BehaviourStore, type_: pa.DataType
) -> None:
    at = NOON + timedelta(microseconds=1)
    store.append([BehaviourEvent(user_id="u1", kind=EventKind.VIEW, at=at, product_id="p")])
    columns = {"user_id": ["u1"], "kind": ["view"], "product_id": ["p"]}
    times = pa.array([1746100800000000999], type_)
    pq.write_table(pa.table({**columns, "at": times}), tmp_path / "a.parquet")
    report = store.import_events([tmp_path / "a.parquet"])
    assert (report.imported, report.duplicates) == (0, 1)


BAD = [
    ({"user_id": "  "}, "user_id", "missing"),
    ({"user_id": "\u00a0\u3000"}, "user_id", "missing"),
    ({"user_id": "x" * 257}, "user_id", "longer"),
    ({"kind": "clik"}, "kind", "unknown kind clik"),
    ({"kind": ""}, "kind", "missing"),
    ({"at": ""}, "at", "missing"),
    ({"at": "yesterday"}, "at", "not a time: yesterday"),
    ({"at": "infinity"}, "at", "not a time"),
    ({"product_id": ""}, "product_id", "click needs one"),
    ({"kind": "search", "query": " "}, "query", "missing"),
    ({"position": "0"}, "position", "below 1"),
    ({"position": "1.5"}, "position", "not a whole number"),
    ({"dwell_ms": "-1"}, "dwell_ms", "negative"),
    ({"quantity": "0"}, "quantity", "not above 0"),
    ({"value": "free"}, "value", "not a number"),
    ({"value": "nan"}, "value", "not a number"),
    ({"discount": "half"}, "discount", "not a number"),
    ({"discount": "-1"}, "discount", "negative"),
]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_each_bad_row_is_reported_and_kept(
    tmp_path: Path, store: BehaviourStore, name: str
) -> None:
    blank = dict.fromkeys(("query", "position", "dwell_ms", "quantity", "value", "discount"), "")
    rows = [event(**blank), *(event(**{**blank, **bad}) for bad, _, _ in BAD)]
    file = WRITERS[name](tmp_path / name, rows)
    report = store.import_events([file])
    assert (report.rows, report.imported, report.rejected_count) == (len(rows), 1, len(BAD))
    for place, ((_, field, reason), row) in enumerate(zip(BAD, report.rejected, strict=True)):
        assert (row.file, row.row, row.field) == (str(file), place + 2, field)
        assert reason in row.reason
    kept = store.rejected()
    assert [RejectedRow(**row.model_dump(include=NAMES)) for row in kept] == list(report.rejected)
    for (bad, _, _), row in zip(BAD, kept, strict=True):
        data = json.loads(row.data or "")
        for name, value in bad.items():
            assert data.get(name, "") == ("" if name == "user_id" else value.strip())


def test_records_that_do_not_parse_keep_the_row_numbers_right(
    tmp_path: Path, store: BehaviourStore
) -> None:
    file = tmp_path / "a.csv"
    lines = ["user_id,kind,at,product_id", "u,view,2025-05-01,p", "u,view", "u,clik,2025-05-01,p",
             "u,view,2025-05-01,p,x,y", "u,view,never,p"]  # fmt: skip
    file.write_text("\n".join(lines), encoding="utf-8")
    report = store.import_events([file])
    assert [(row.row, row.field) for row in report.rejected] == [
        (2, "row"), (3, "kind"), (4, "row"), (5, "at"),
    ]  # fmt: skip
    assert (report.rows, report.imported) == (5, 1)


def test_blank_lines_are_no_rows(tmp_path: Path, store: BehaviourStore) -> None:
    good, bad = 'u,view,2025-05-01,"p\n\nq"', "u,clik,2025-05-01,p"
    rows = [good, "", "u,view", "", bad, good, "", "", bad, bad, "", "u"]
    (tmp_path / "a.csv").write_text("\n".join(["user_id,kind,at,product_id", *rows]))
    objects = [json.dumps(event()), "", "{", " ", json.dumps(event(kind="x"))]
    (tmp_path / "b.jsonl").write_text("\n".join(objects))
    report = store.import_events([tmp_path / "a.csv", tmp_path / "b.jsonl"])
    assert [(row.row, row.field) for row in report.rejected] == [
        (2, "row"), (3, "kind"), (5, "kind"), (6, "kind"), (7, "row"), (2, "row"), (3, "kind"),
    ]  # fmt: skip
    assert (report.rows, report.imported, report.duplicates) == (10, 2, 1)


def test_blank_lines_are_found_beside_a_field_too_long_for_python(
    tmp_path: Path, store: BehaviourStore
) -> None:
    rows = ["user_id,kind,at,product_id", f"u,view,2025-05-01,{'p' * 140_000}", "", "u,view"]
    (tmp_path / "a.csv").write_text("\n".join(rows))
    report = store.import_events([tmp_path / "a.csv"])
    assert [(row.row, row.field) for row in report.rejected] == [(1, "product_id"), (2, "row")]


@pytest.mark.parametrize("name", ["e[1].csv", "e[1].jsonl", "e[1].parquet", "e[1]*?.CSV.GZ"])
def test_a_path_is_no_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = tmp_path / "[a]"
    folder.mkdir()
    monkeypatch.chdir(folder)
    plain = name.lower().replace("[1]", "").replace("*?", "")
    write = WRITERS[plain.replace("e", "a", 1)]
    write(Path(plain.replace("e", "e1", 1)), [event(user_id="wrong")])
    if name.endswith("GZ"):
        write(Path("x.csv.gz"), [event(), event(kind="x")]).rename(name)
    else:
        write(Path(name), [event(), event(kind="x")])
    with BehaviourStore(Path("store[1]")) as store:
        report = store.import_events([name])
        assert [(row.file, row.row) for row in report.rejected] == [(name, 2)]
        assert [row[0] for row in stored(store)] == ["u1"]


@pytest.mark.parametrize(
    ("name", "cut"), [("a.tsv", "\t"), ("a.TSV", "\t"), ("a.tsv.gz", "\t"), ("a.CSV", "|")]
)
def test_text_files_are_known_by_suffix_and_header(
    tmp_path: Path, store: BehaviourStore, name: str, cut: str
) -> None:
    rows = [event(), event(user_id="a,b,c,d,e")]
    assert store.import_events([write_csv(tmp_path / name, rows, cut)]).imported == 2
    assert store.import_events([tmp_path]).duplicates == 2


def test_half_a_character_costs_one_row(tmp_path: Path, store: BehaviourStore) -> None:
    (tmp_path / "a.jsonl").write_text(
        f"{json.dumps(event(user_id=chr(0xD800)))}\n{json.dumps(event())}\n"
    )
    report = store.import_events([tmp_path / "a.jsonl"])
    assert [(row.row, row.field) for row in report.rejected] == [(1, "row")]
    assert report.imported == 1


def test_json_lines_that_are_no_objects(tmp_path: Path, store: BehaviourStore) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(f"{json.dumps(event())}\n\n[1]\n{{broken\n", encoding="utf-8")
    report = store.import_events([file])
    assert [(row.row, row.reason) for row in report.rejected] == [
        (2, "not a JSON object"), (3, "not JSON"),
    ]  # fmt: skip
    assert (report.rows, report.imported) == (3, 1)


def test_folders_globs_mapping_and_delimiters(tmp_path: Path, store: BehaviourStore) -> None:
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    write_csv(folder / "a.csv", [{"who": "u1", **event()} | {"ts": "1746100800"}], ";")
    write_jsonl(folder / "b.jsonl", [{**event(), "who": "u2", "ts": 1746100800}])
    (folder / "notes.txt").write_text("not events", encoding="utf-8")
    mapping = {"user_id": "who", "at": "ts"}
    seen: list[str] = []
    report = store.import_events(
        [tmp_path / "in"], mapping=mapping, progress=lambda what, _d, _t: seen.append(what)
    )
    assert (report.files, report.imported, store.users()) == (2, 2, 2)
    assert seen[0] == "reading a.csv"
    assert store.import_events([str(folder / "*.jsonl")], mapping=mapping).duplicates == 1


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a'b", '\\"'])
@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_columns_may_have_any_name(
    tmp_path: Path, store: BehaviourStore, suffix: str, name: str
) -> None:
    rows = [{name: "u1", **event()}]
    del rows[0]["user_id"]
    file = WRITERS[f"a.{suffix}"](tmp_path / f"a.{suffix}", rows)
    assert store.import_events([file], mapping={"user_id": name}).imported == 1


def test_unknown_mapping_field(tmp_path: Path, store: BehaviourStore) -> None:
    file = write_csv(tmp_path / "a.csv", [event()])
    with pytest.raises(ConfigError, match="unknown field when; the fields are user_id"):
        store.import_events([file], mapping={"when": "at"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.csv", None, "there is no such file"),
        ("a.csv", b"", "the file is empty"),
        ("a.csv.gz", gzip.compress(b"", mtime=0), "no header"),
        ("a.xlsx", b"x", r"unknown kind of file.*\.parquet"),
        ("a.csv", b"user_id,kind,when\nu,view,1\n", r"missing column at; .*when.*--map at=COLUMN"),
        ("a.jsonl", b'{"user_id": "u", "kind": "view"}\n', r"missing column at;.*kind, user_id"),
        ("a.parquet", b"PAR1 this is no Parquet PAR1", "corrupt"),
        ("a.csv", b"user_id,kind,at,product_id\nu,view,2025-05-01,caf\xe9\n", "not UTF-8"),
        ("a.csv", b"user_id,kind,at,caf\xe9\nu,view,2025-05-01,p\n", "not UTF-8"),
        ("a.jsonl", b'{"user_id": "\xff", "kind": "view", "at": 1}\n', "not UTF-8"),
        ("a.csv.gz", gzip.compress(b"user_id,kind,at\n" * 99, mtime=0)[:-12], "corrupt"),
        ("a.csv.gz", b"no gzip at all", "corrupt"),
        ("a.json", b'[{"user_id": "u"', "corrupt"),
        ("a.json", b"[]", "missing column user_id, kind, at; the file has none"),
        ("a.json.gz", b"no gzip at all", "corrupt"),
        ("a.ndjson", b'{"user_id": "u", "kind": "view"}\n', r"missing column at"),
    ],
)
def test_unusable_files_are_named(
    tmp_path: Path, store: BehaviourStore, name: str, content: bytes | None, message: str
) -> None:
    good = write_csv(tmp_path / "0.csv", [event()])
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        store.import_events([good, tmp_path / name])
    assert str(tmp_path / name) in str(caught.value)
    assert store.count() == 0
    assert store.import_events([good]).imported == 1
