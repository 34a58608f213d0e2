"""Catalogue files: how products are read from each format."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from catalogue_files import HEADER, Import, faults, ids
from reranker.schema import Product
from retrieval.catalogue import import_catalogue
from retrieval.product_table import ProductTable


def test_all_fields_are_read_from_csv(import_file: Import, catalogue_path: Path) -> None:
    report = import_file(
        "shop.csv",
        "\ufeffproduct_id,title,description,brand,category,price,currency,in_stock,attributes,ean\r\n"
        'p1,"希腊酸奶, 无糖","line 1\nline 2",Tarn,食品 > 乳品,12.50,CNY,no,"{""size"": ""500 g"", '
        '""n"": 3, ""none"": null, ""bio"": true}",1\r\n'
        " 2 ,Mug,,,,,,,,\r\n",
    )
    yogurt, mug = ProductTable.open(catalogue_path).products([0, 1])
    assert yogurt.title == "希腊酸奶, 无糖"
    assert yogurt.description == "line 1\nline 2"
    assert (yogurt.brand, yogurt.category) == ("Tarn", "食品 > 乳品")
    assert (yogurt.price, yogurt.currency, yogurt.in_stock) == (12.5, "CNY", False)
    assert yogurt.attributes == {"size": "500 g", "n": "3", "bio": "yes"}
    assert (mug.product_id, mug.brand, mug.price, mug.in_stock) == ("2", None, None, True)
    assert (report.rows, report.added, report.rejected) == (2, 2, ())
    assert report.ignored_columns == ("ean",)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.tsv", "a.tsv.gz"])
def test_text_files_may_be_zipped_or_cut_by_tabs(
    import_file: Import, catalogue_path: Path, name: str
) -> None:
    text = HEADER + "p1,酸奶,1\n"
    import_file(name, text.replace(",", "\t") if "tsv" in name else text)
    assert ProductTable.open(catalogue_path).products([0])[0].title == "酸奶"


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_jsonl_is_read_with_its_types(import_file: Import, catalogue_path: Path, name: str) -> None:
    rows = [
        {"product_id": 7, "title": "酸奶", "price": 3, "attributes": {"tags": ["x", 2]}, "z": 1},
        {"product_id": "8", "title": 1984, "in_stock": 0, "y": {}},
    ]
    report = import_file(name, "\n".join(json.dumps(row) for row in rows) + "\n\n")
    first, second = ProductTable.open(catalogue_path).products([0, 1])
    assert (first.product_id, first.price, first.attributes) == ("7", 3.0, {"tags": "x, 2"})
    assert (second.title, second.in_stock) == ("1984", False)
    assert report.ignored_columns == ("z", "y")


def test_parquet_is_read_with_its_types(tmp_path: Path, catalogue_path: Path) -> None:
    told = []
    table = pa.table(
        {
            "product_id": [1, 2],
            "title": ["酸奶", "Mug"],
            "price": pa.array([1, None], pa.decimal128(9, 2)),
            "attributes": pa.array([[("size", "S")], []], pa.map_(pa.string(), pa.string())),
            "vector": [[0.1], [0.2]],
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    report = import_catalogue(
        [tmp_path / "a.parquet"], catalogue_path, progress=lambda *numbers: told.append(numbers)
    )
    first, second = ProductTable.open(catalogue_path).products([0, 1])
    assert (first.product_id, first.price, first.attributes) == ("1", 1.0, {"size": "S"})
    assert second.price is None
    assert report.ignored_columns == ("vector",)
    assert told == [(2, 2)]


def test_columns_are_mapped_and_become_attributes(
    import_file: Import, catalogue_path: Path
) -> None:
    import_file(
        "a.csv",
        "sku,name,brand,colour\np1,Mug,Tarn,red\np2,Cup,Tarn,\n",
        mapping={"product_id": "sku", "title": "name"},
        attribute_columns=["colour", "brand"],
    )
    mug, cup = ProductTable.open(catalogue_path).products([0, 1])
    assert mug.attributes == {"colour": "red", "brand": "Tarn"}
    assert cup.attributes == {"brand": "Tarn"}


@pytest.mark.parametrize("value", ["true", "1", "YES", "True", " yes "])
def test_in_stock_is_read_in_its_usual_forms(
    import_file: Import, catalogue_path: Path, value: str
) -> None:
    import_file("a.csv", f"product_id,title,in_stock\na,A,{value}\nb,B,no\nc,C,False\nd,D,0\n")
    products = ProductTable.open(catalogue_path).products(range(4))
    assert [product.in_stock for product in products] == [True, False, False, False]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_rows_are_numbered_by_record(import_file: Import, name: str) -> None:
    csv = HEADER + '\np1,"A\n\nB",1\n\np2,,1\n'
    jsonl = '\n{"product_id": "p1", "title": "A"}\n \n{"product_id": "p2"}\n'
    report = import_file(name, csv if name == "a.csv" else jsonl)
    assert faults(report) == [(2, "title", "p2")]


def test_the_first_of_two_rows_with_one_id_wins(tmp_path: Path, catalogue_path: Path) -> None:
    (tmp_path / "a.csv").write_text(HEADER + "p1,A,bad\np1,B,1\n")
    (tmp_path / "b.csv").write_text(HEADER + "p1,C,1\np2,D,1\n")
    report = import_catalogue([tmp_path / "*.csv"], catalogue_path)
    assert faults(report) == [(1, "price", "p1"), (1, "product_id", "p1")]
    assert report.rejected[1].reason.endswith("a.csv row 2")
    assert ProductTable.open(catalogue_path).products([0])[0].title == "B"


def test_folders_and_globs_are_read_in_order_and_once(tmp_path: Path, catalogue_path: Path) -> None:
    folder = tmp_path / "in" / "deep"
    folder.mkdir(parents=True)
    (folder / "b.csv").write_text(HEADER + "p2,B,1\n")
    (folder / "README.md").write_text("not a catalogue")
    (tmp_path / "in" / "a.csv").write_text(HEADER + "p1,A,1\n")
    report = import_catalogue(
        [tmp_path / "in", str(tmp_path / "in" / "**" / "*.csv")], catalogue_path
    )
    assert [Path(name).name for name in report.files] == ["a.csv", "b.csv"]
    assert report.added == 2


def test_a_second_import_counts_what_it_does(import_file: Import, catalogue_path: Path) -> None:
    import_file("a.csv", HEADER + "p1,A,1\np2,B,1\np3,C,1\n")
    report = import_file("a.csv", HEADER + "p1,A,1\np2,B,2\np4,D,1\n")
    assert (report.added, report.changed, report.unchanged, report.deleted) == (1, 1, 1, 0)
    report = import_file("a.csv", HEADER + "p4,D,1\np1,A,1\n", replace=True)
    assert (report.added, report.changed, report.unchanged, report.deleted) == (0, 0, 2, 2)
    assert ids(catalogue_path) == ["p1", "p4"]
    assert ProductTable.open(catalogue_path).keys.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("name", "cut"),
    [("a.csv", ";"), ("a.CSV", "|"), ("A.CSV.GZ", "\t"), ("a.TSV", "\t"), ("a.tsv", "\t")],
)
def test_the_header_shows_what_parts_the_columns(
    import_file: Import, catalogue_path: Path, name: str, cut: str
) -> None:
    text = f'product_id{cut}title{cut}"a, b, c, d"\np1{cut}A,B{cut}\n'
    raw = gzip.compress(text.encode()) if name.endswith("GZ") else text
    assert import_file(name, raw).ignored_columns == ("a, b, c, d",)
    assert ProductTable.open(catalogue_path).products([0])[0].title == "A,B"


def test_the_number_nan_is_no_value(import_file: Import, catalogue_path: Path) -> None:
    nan = float("nan")
    fields = dict.fromkeys(("description", "brand", "price", "in_stock", "attributes", "size"), nan)
    row = {"product_id": "p", "title": "Mug", **fields}
    other = {"product_id": "q", "title": "Cup", "attributes": {"colour": nan, "sizes": [nan, 3]}}
    rows = f"{json.dumps(row)}\n{json.dumps(other)}\n"
    assert not import_file("a.jsonl", rows, attribute_columns=["size"]).rejected
    expected = (
        Product(product_id="p", title="Mug"),
        Product(product_id="q", title="Cup", attributes={"sizes": "3"}),
    )
    assert ProductTable.open(catalogue_path).products([0, 1]) == expected


def test_a_column_of_nan_in_parquet_is_no_value(tmp_path: Path, catalogue_path: Path) -> None:
    columns = {"product_id": ["p"], "title": ["Mug"], "brand": pa.array([float("nan")])}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    assert not import_catalogue([tmp_path / "a.parquet"], catalogue_path).rejected
    assert ProductTable.open(catalogue_path).products([0])[0].brand is None
