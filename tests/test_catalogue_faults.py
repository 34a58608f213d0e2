"""Catalogue files with bad rows, bytes or columns, and imports that fail or are killed."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogue_files import HEADER, Import, faults, ids
from reranker.errors import ConfigError, DataError
from retrieval.catalogue import import_catalogue
from retrieval.product_table import ProductTable


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (",Mug,1", "product_id", "missing or blank"),
        ("p,  ,1", "title", "missing or blank"),
        ('p,Mug,"1,299.00"', "price", "plain number such as 1299.00, not '1,299.00'"),
        ("p,Mug,nan", "price", "plain number"),
        ("p,Mug,1_000", "price", "plain number"),
        ("p,Mug,-1", "price", "greater than or equal to 0, not -1.0"),
        ("p,Mug,1e999", "price", "finite"),
        ("p,Mug", "row", "2 fields where the header has 3"),
        ("p,Mug,1,2", "row", "4 fields where the header has 3"),
        ('p,"Mug" x,1', "row", "quotation mark"),
        (f"{'p' * 300},Mug,1", "product_id", "at most 256"),
    ],
)
def test_a_bad_row_is_reported_and_the_others_come_in(
    import_file: Import, catalogue_path: Path, row: str, field: str, reason: str
) -> None:
    report = import_file("a.csv", f"{HEADER}ok1,A,1\n\n{row}\nok2,B,2\n")
    (rejected,) = report.rejected
    assert (rejected.row, rejected.field) == (2, field)
    assert rejected.file.endswith("a.csv")
    assert reason in rejected.reason
    assert ids(catalogue_path) == ["ok1", "ok2"]
    lines = (catalogue_path.parent / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [rejected.model_dump()]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("price", True, "plain number"),
        ("price", float("inf"), "plain number"),
        ("title", float("nan"), "missing or blank"),
        ("product_id", float("nan"), "missing or blank"),
        ("price", 10**400, "plain number"),
        ("in_stock", "perhaps", "one of true, 1, yes, false, 0, no"),
        ("attributes", "{", "not JSON"),
        ("attributes", [1, 2], "JSON object"),
        ("attributes", {"a": {"b": 1}}, "text or a number"),
        ("title", ["x"], "must be text"),
        ("title", "\ud800", "unicode"),
        ("product_id", 1.5, "text or a whole number"),
    ],
)
def test_a_value_of_the_wrong_kind_is_reported(
    import_file: Import, field: str, value: object, reason: str
) -> None:
    bad = {"product_id": "p", "title": "Mug", field: value}
    good = {"product_id": "q", "title": "Mug"}
    (rejected,) = import_file("a.jsonl", f"{json.dumps(bad)}\n{json.dumps(good)}\n").rejected
    assert (rejected.row, rejected.field) == (1, field)
    assert reason in rejected.reason


def test_a_bad_json_line_does_not_spoil_the_others(
    import_file: Import, catalogue_path: Path
) -> None:
    good = '{"product_id": "%s", "title": "A"}\n'
    report = import_file(
        "a.jsonl", good % "a" + '{"product_id": \n[1]\n{"title": "B"}\n' + good % "b"
    )
    assert [(row.row, row.field) for row in report.rejected] == [
        (2, "row"),
        (3, "row"),
        (4, "product_id"),
    ]
    assert "--map product_id=COLUMN" in report.rejected[2].reason
    assert ids(catalogue_path) == ["a", "b"]


def test_an_open_quotation_mark_costs_one_row(import_file: Import, catalogue_path: Path) -> None:
    report = import_file("a.csv", HEADER + 'p1,"5 inch,1\np2,"B",1\np3,C,1\np4,"D,1\np5,E,1\n')
    assert faults(report) == [(1, "row", None), (4, "row", None)]
    assert ids(catalogue_path) == ["p2", "p3", "p5"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_broken_bytes_are_located_and_never_replaced(
    import_file: Import, catalogue_path: Path, name: str
) -> None:
    if name == "a.csv":
        before, bad = HEADER.encode() + "p1,酸奶,1\n".encode(), b"p2,\xff,1\n"
        after = b"p3,C,1\n"
    else:
        before = '{"product_id": "p1", "title": "酸奶"}\n'.encode()
        bad = b'{"product_id": "p2", "title": "\xff"}\n'
        after = b'{"product_id": "p3", "title": "C"}\n'
    (rejected,) = import_file(name, before + bad + after).rejected
    assert rejected.row == 2
    assert f"byte 0xff at position {len(before) + bad.index(0xFF)} of the file" in rejected.reason
    assert rejected.product_id == "p2"
    assert ids(catalogue_path) == ["p1", "p3"]


def test_broken_bytes_in_parquet_cost_one_row(tmp_path: Path, catalogue_path: Path) -> None:
    data = pa.array([b"A", b"\xff", b"C"]).cast(pa.binary())
    titles = pa.Array.from_buffers(pa.string(), 3, data.buffers())
    pq.write_table(
        pa.table({"product_id": ["a", "b", "c"], "title": titles}), tmp_path / "a.parquet"
    )
    report = import_catalogue([tmp_path / "a.parquet"], catalogue_path)
    assert faults(report) == [(2, "row", "b")]
    assert "0xff" in report.rejected[0].reason
    assert ids(catalogue_path) == ["a", "c"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "", "a.csv: the file is empty"),
        ("a.csv", HEADER, "a.csv: no rows"),
        ("a.csv", "\n", "first line must name the columns"),
        ("a.csv", "id,name\n1,A\n", r"the columns are id, name; .*--map product_id=COLUMN"),
        ("a.csv", "product_id,title,title\n1,A,B\n", "column title comes twice"),
        ("a.csv", b"product_id,t\xeftle\n1,A\n", "the header: byte 0xef at position 12"),
        ("a.csv", "product_id,title\n1,A\n".encode("utf-16"), "UTF-16; save it as UTF-8"),
        ("a.xlsx", "x", r"a.xlsx: unknown kind of file; use one of .csv"),
        ("a.parquet", b"PAR1 no, it is not PAR1", "a.parquet: the file is damaged"),
        ("a.jsonl", '{"id": 1}\n', "1 of 1 rows were rejected.*a.jsonl row 1, product_id"),
    ],
)
def test_an_unusable_file_is_named_and_nothing_changes(
    import_file: Import, catalogue_path: Path, name: str, content: str | bytes, message: str
) -> None:
    import_file("before.csv", HEADER + "p1,A,1\n")
    before = catalogue_path.read_bytes()
    with pytest.raises(DataError, match=message):
        import_file(name, content, replace=True)
    assert catalogue_path.read_bytes() == before


def test_a_cut_off_zip_changes_nothing(tmp_path: Path, catalogue_path: Path) -> None:
    rows = "".join(f"p{number},A{number * 7919},1\n" for number in range(20_000))
    zipped = gzip.compress((HEADER + rows).encode())
    (tmp_path / "a.csv.gz").write_bytes(zipped[: len(zipped) // 2])
    with pytest.raises(DataError, match=r"a\.csv\.gz: the file is damaged"):
        import_catalogue([tmp_path / "a.csv.gz"], catalogue_path)
    assert not catalogue_path.exists()


def test_missing_files_columns_and_fields_are_named(tmp_path: Path, catalogue_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + "p1,A,1\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"b\.csv: there is no such file"):
        import_catalogue([tmp_path / "b.csv"], catalogue_path)
    with pytest.raises(DataError, match="holds no file with"):
        import_catalogue([tmp_path / "empty"], catalogue_path)
    with pytest.raises(DataError, match="no files were given"):
        import_catalogue([], catalogue_path)
    with pytest.raises(DataError, match="no column colour; the columns are product_id"):
        import_catalogue([tmp_path / "a.csv"], catalogue_path, attribute_columns=["colour"])
    with pytest.raises(ConfigError, match="unknown field name; the fields are product_id"):
        import_catalogue([tmp_path / "a.csv"], catalogue_path, mapping={"name": "title"})


def test_too_many_rejected_rows_stop_the_import(import_file: Import, catalogue_path: Path) -> None:
    rows = HEADER + "p1,A,1\np2,,1\np3,C,1\np4,D,1\n"
    with pytest.raises(DataError, match="1 of 4 rows were rejected, so nothing was imported"):
        import_file("a.csv", rows, max_rejected=0.2)
    assert not catalogue_path.exists()
    assert len((catalogue_path.parent / "rejected.jsonl").read_text().splitlines()) == 1
    assert import_file("a.csv", rows, max_rejected=0.25).added == 3


def test_replace_keeps_products_whose_row_was_rejected(
    import_file: Import, catalogue_path: Path
) -> None:
    import_file("a.csv", HEADER + "p1,A,1\np2,B,1\np3,C,1\np4,D,1\n")
    report = import_file("a.csv", HEADER + 'p1,A,1\np2,B,"2,50"\np3,C,2,50\n', replace=True)
    assert (report.deleted, report.rejected_count) == (1, 2)
    assert ids(catalogue_path) == ["p1", "p2", "p3"]
    assert ProductTable.open(catalogue_path).products([1])[0].price == 1


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("product_id,title,price", " ,B,1"),
        ("product_id,title,price", b"p\xff,B,1"),
        ("product_id,title,price", f"{'p' * 300},B,1"),
        ("product_id,title,price", 'p2,"B,1'),
        ("price,product_id,title", "2,50,p2,B"),
    ],
)
def test_replace_is_refused_when_a_rejected_row_hides_its_product(
    import_file: Import, catalogue_path: Path, header: str, row: str | bytes
) -> None:
    import_file("before.csv", HEADER + "p1,A,1\np2,B,1\n")
    before = catalogue_path.read_bytes()
    raw = row.encode() if isinstance(row, str) else row
    good = b"1,p1,A\n" if header.startswith("price") else b"p1,A,2\n"
    content = f"{header}\n".encode() + good + raw + b"\n"
    with pytest.raises(DataError, match=r"a\.csv row 2, .*import without --replace"):
        import_file("a.csv", content, replace=True)
    assert catalogue_path.read_bytes() == before
    assert import_file("a.csv", content).rejected_count == 1


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"product_id": "\ud800", "title": "A"}, "product_id"),
        ({"product_id": "p", "title": "A", "brand": "\ud800"}, "brand"),
        ({"product_id": "p", "title": "A", "attributes": {"\ud800": "x"}}, "attributes"),
        ({"product_id": "p", "title": "A", "attributes": '{"x": "\\ud800"}'}, "attributes"),
        ({"product_id": "p", "\ud800": "A"}, "title"),
    ],
)
def test_half_a_character_costs_one_row(
    import_file: Import, catalogue_path: Path, bad: dict[str, object], field: str
) -> None:
    good = {"product_id": "q", "title": "Mug", "\udfff": 1}
    report = import_file("a.jsonl", f"{json.dumps(bad)}\n{json.dumps(good)}\n")
    assert [row.field for row in report.rejected] == [field]
    assert json.loads(report.model_dump_json())["ignored_columns"][-1] == "\\udfff"
    assert len((catalogue_path.parent / "rejected.jsonl").read_text().splitlines()) == 1
    assert ids(catalogue_path) == ["q"]


def test_a_report_holds_the_first_rejected_rows(import_file: Import, catalogue_path: Path) -> None:
    rows = "".join(f"p{number},,1\n" for number in range(1200))
    report = import_file("a.csv", f"{HEADER}{rows}ok,A,1\n")
    assert (report.rejected_count, len(report.rejected), report.added) == (1200, 1000, 1)
    assert len((catalogue_path.parent / "rejected.jsonl").read_text().splitlines()) == 1200


KILLED = """
import sys, time
from pathlib import Path
{before}
from retrieval.catalogue import import_catalogue
def wait(*_):
    print("now", flush=True)
    time.sleep(60)
{hook}
import_catalogue([sys.argv[1]], Path(sys.argv[2]), replace=True, progress={progress})
"""


MOMENTS = {
    "while reading": {"before": "", "hook": "", "progress": "wait"},
    "before the file changes its name": {
        "before": "import os, retrieval.product_table as table",
        "hook": "table.Path.replace = wait",
        "progress": "None",
    },
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_killed_import_leaves_the_catalogue_as_it_was(
    import_file: Import, tmp_path: Path, catalogue_path: Path, moment: str
) -> None:
    import_file("old.csv", HEADER + "p1,A,1\n")
    before = catalogue_path.read_bytes()
    new = tmp_path / "new.csv"
    new.write_text(HEADER + "".join(f"n{number},B,1\n" for number in range(12_000)))
    script = KILLED.format(**MOMENTS[moment])
    with subprocess.Popen(
        [sys.executable, "-c", script, new, catalogue_path], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "now\n"
        with pytest.raises(DataError, match="another import is running"):
            import_catalogue([new], catalogue_path)
        process.kill()
    assert catalogue_path.read_bytes() == before
    assert import_catalogue([new], catalogue_path).added == 12_000
    assert len(ProductTable.open(catalogue_path)) == 12_001
    assert not list(catalogue_path.parent.glob("*.tmp"))
