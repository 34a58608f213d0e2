import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.cases import Case, CaseFile, RejectedCases, Target, read_cases, write_cases
from eval.cases.defects import DEFECTS
from reranker.errors import DataError

KNOWN = frozenset({"a", "b", "c", "d"})
GOOD: dict[str, Any] = {
    "case_id": "c1",
    "user_id": "u1",
    "query": "mug",
    "at": "2026-03-05T10:00:00Z",
    "history": ["a", "b"],
    "history_at": ["2026-03-01T10:00:00Z", "2026-03-02T10:00:00Z"],
    "candidates": ["c", "d"],
    "targets": [{"product_id": "c", "grade": 3}],
    "segments": ["repeat"],
}

# Each kind of defect: what the row says otherwise, and the field at fault. None removes a field.
BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "case-id-missing": ({"case_id": None}, "case_id"),
    "case-id-type": ({"case_id": 1.5}, "case_id"),
    "case-id-long": ({"case_id": "x" * 257}, "case_id"),
    "case-id-twice": ({"case_id": "first"}, "case_id"),
    "user-id-type": ({"user_id": ["u"]}, "user_id"),
    "user-id-long": ({"user_id": "u" * 257}, "user_id"),
    "query-type": ({"query": {"text": "mug"}}, "query"),
    "query-blank": ({"query": " \u200b"}, "query"),
    "query-long": ({"query": "mug " * 501}, "query"),
    "at-type": ({"at": ["2026"]}, "at"),
    "at-unreadable": ({"at": "last Tuesday"}, "at"),
    "at-out-of-range": ({"at": 9e12}, "at"),
    "at-no-zone": ({"at": "2026-03-05T10:00:00"}, "at"),
    "history-type": ({"history": "a,b"}, "history"),
    "history-entry": ({"history": ["a", None]}, "history[1]"),
    "history-unknown": ({"history": ["a", "gone"]}, "history"),
    "history-at-type": ({"history_at": "yesterday"}, "history_at"),
    "history-at-length": ({"history_at": ["2026-03-01T10:00:00Z"]}, "history_at"),
    "history-at-order": ({"history_at": GOOD["history_at"][::-1]}, "history_at"),
    "history-at-late": ({"at": "2026-03-02T10:00:00Z"}, "history_at"),
    "candidates-type": ({"candidates": {"c": 1}}, "candidates"),
    "candidates-empty": ({"candidates": []}, "candidates"),
    "candidates-entry": ({"candidates": ["c", "d", 2.5]}, "candidates[2]"),
    "candidates-twice": ({"candidates": ["c", "d", "c"]}, "candidates[2]"),
    "candidates-unknown": ({"candidates": ["c", "gone"]}, "candidates"),
    "candidates-one": ({"candidates": ["c"]}, "candidates"),
    "targets-type": ({"targets": "c"}, "targets"),
    "targets-entry": ({"targets": ["c", 2.5]}, "targets[1]"),
    "targets-both": ({"target": "c"}, "target"),
    "target-id-missing": ({"targets": [{"grade": 1}]}, "targets[0]"),
    "target-field-unknown": ({"targets": [{"product_id": "c", "gain": 1}]}, "targets[0]"),
    "target-twice": ({"targets": ["c", "c"]}, "targets"),
    "grade-type": ({"targets": [{"product_id": "c", "grade": "high"}]}, "targets[0]"),
    "grade-negative": ({"targets": [{"product_id": "c", "grade": -1}]}, "targets[0]"),
    "grade-high": ({"targets": [{"product_id": "c", "grade": 1001}]}, "targets[0]"),
    "targets-none": ({"targets": []}, "targets"),
    "target-unknown": ({"targets": ["gone"]}, "targets"),
    "target-not-candidate": ({"targets": ["a"]}, "targets"),
    "segments-type": ({"segments": "repeat"}, "segments"),
    "segments-entry": ({"segments": ["repeat", ""]}, "segments[1]"),
}


def write(path: Path, rows: list[dict[str, Any] | str]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def report_of(path: Path) -> CaseFile:
    try:
        return read_cases(path, KNOWN, max_rejected=1.0)
    except RejectedCases as rejected:
        return rejected.report


def test_every_kind_of_defect_is_reported_by_its_row_and_field(tmp_path: Path) -> None:
    rows: list[Any] = [GOOD | {"case_id": "first"}]
    for kind, (change, _) in BROKEN.items():
        row = GOOD | {"case_id": f"case of {kind}"} | change
        rows.append({name: value for name, value in row.items() if value is not None})
    rows += ['{"case_id": "cut', '["no", "object"]']
    report = report_of(write(tmp_path / "cases.jsonl", rows))
    found = {(defect.row, defect.kind): defect for defect in report.defects}
    assert set(BROKEN) | {"unreadable"} == set(DEFECTS)
    assert len(DEFECTS) >= 25
    for number, (kind, (_, field)) in enumerate(BROKEN.items(), 2):
        defect = found[number, kind]
        assert defect.field == field, kind
        assert defect.reason.endswith(DEFECTS[kind].remedy)
    for number in (len(rows) - 1, len(rows)):
        assert found[number, "unreadable"].field == "row"
    assert not [row for row, _ in found if row == 1]
    errors = sum(DEFECTS[kind].severity == "error" for kind in BROKEN) + 2
    assert (report.rejected, len(report.cases)) == (errors, len(rows) - errors)


def test_all_defects_of_one_row_are_found(tmp_path: Path) -> None:
    row = GOOD | {
        "query": " ",
        "candidates": ["c", "c"],
        "targets": [{"product_id": "c", "grade": -1}],
    }
    report = report_of(write(tmp_path / "cases.jsonl", [row]))
    assert {defect.kind for defect in report.defects} == {
        "query-blank",
        "candidates-twice",
        "grade-negative",
    }


def test_one_bad_row_refuses_the_file_unless_it_is_allowed(tmp_path: Path) -> None:
    file = write(tmp_path / "cases.jsonl", [GOOD, GOOD | {"case_id": "c2", "query": ""}])
    with pytest.raises(RejectedCases, match=r"1 of 2 rows.*\nrow 2, query: blank"):
        read_cases(file, KNOWN)
    report = read_cases(file, KNOWN, max_rejected=0.5)
    assert [case.case_id for case in report.cases] == ["c1"]
    assert report.counts == {"query-blank": 1}


def test_a_case_has_its_typed_parts(tmp_path: Path) -> None:
    (case,) = read_cases(write(tmp_path / "cases.jsonl", [GOOD]), KNOWN).cases
    assert case.at == datetime(2026, 3, 5, 10, tzinfo=UTC)
    assert case.history_at is not None
    assert case.at - case.history_at[1] == timedelta(days=3)
    assert case.grades == {"c": 3}
    assert case.relevant == {"c"}
    assert case.shopper == ("user", "u1")


@pytest.mark.parametrize(
    ("given", "targets"),
    [
        ({"target": "c"}, (Target(product_id="c"),)),
        ({"target": {"product_id": "c", "grade": 2}}, (Target(product_id="c", grade=2),)),
        ({"targets": ["c", {"product_id": "d", "grade": 0}]},
         (Target(product_id="c"), Target(product_id="d", grade=0))),
        ({"target": 7}, (Target(product_id="7"),)),
        ({}, ()),
    ],
)  # fmt: skip
def test_the_forms_of_targets(tmp_path: Path, given: dict[str, Any], targets: Any) -> None:
    report = read_cases(write(tmp_path / "cases.jsonl", [{"case_id": 1, **given}]))
    (case,) = report.cases
    assert case.targets == targets
    assert case.case_id == "1"
    assert case.candidates is None
    assert case.shopper == ("case", "1")
    assert report.counts == ({} if case.relevant else {"targets-none": 1})


@pytest.mark.parametrize("name", ["cases.jsonl", "cases.parquet"])
def test_what_is_written_is_read_again(tmp_path: Path, name: str) -> None:
    cases = (
        Case(case_id="full", **{k: v for k, v in GOOD.items() if k != "case_id"}),
        Case(case_id="bare"),
        Case(case_id="known", history=("a",), targets=(Target(product_id="b"),)),
    )
    assert write_cases(tmp_path / name, cases) == 3
    assert read_cases(tmp_path / name).cases == cases


def test_parquet_with_native_types(tmp_path: Path) -> None:
    moment = datetime(2026, 3, 5, tzinfo=UTC)
    table = pa.table(
        {
            "case_id": pa.array([1, 2]),
            "at": pa.array([moment.replace(tzinfo=None), None], pa.timestamp("us")),
            "history": pa.array([["a"], []], pa.list_(pa.string())),
            "target": pa.array(["b", None]),
            "colour": pa.array(["red", "blue"]),
        }
    )
    pq.write_table(table, tmp_path / "cases.parquet")
    report = read_cases(tmp_path / "cases.parquet")
    assert report.cases[0].at == moment
    assert report.counts == {"at-no-zone": 1, "targets-none": 1}
    assert report.ignored_columns == ("colour",)


@pytest.mark.parametrize(
    ("content", "message"),
    [("", "empty"), ("\n\n", "no rows"), ('{"target": "a"}\n', "case_id: missing")],
)
def test_a_file_without_cases(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_cases(file)


def test_a_table_without_case_ids_or_of_another_kind(tmp_path: Path) -> None:
    pq.write_table(pa.table({"target": ["a"]}), tmp_path / "cases.parquet")
    with pytest.raises(DataError, match="no column case_id; the columns are target"):
        read_cases(tmp_path / "cases.parquet")
    (tmp_path / "cases.csv").write_text("case_id\n1\n")
    with pytest.raises(DataError, match="unknown kind of file"):
        read_cases(tmp_path / "cases.csv")


def test_only_so_many_defects_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    rows: list[Any] = [GOOD | {"case_id": f"c{n}", "query": ""} for n in range(30)]
    with pytest.raises(RejectedCases) as rejected:
        read_cases(write(tmp_path / "cases.jsonl", rows), most_defects=10)
    assert len(rejected.value.report.defects) == 10
    assert rejected.value.report.counts == {"query-blank": 30}
