"""Converters, each on a small file in the form that its data set documents."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from eval.cases import Case, read_cases
from eval.convert import Converted, convert_data, converter_names
from eval.logs import write_impressions
from eval.past import Purchases, read_purchases
from eval.run.inputs import read_inputs
from eval.run.request import EvaluationRequest
from reranker.errors import ConfigError, DataError
from reranker.ports import no_progress
from reranker.schema import Impression, ShownItem
from reranker.settings import Settings

SHARED = Path(__file__).parents[2] / "shared" / "data"


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    text = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)
    if path.name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")


def convert(
    kind: str, source: Path | None, folder: Path, **options: str
) -> tuple[Converted, tuple[Case, ...]]:
    """Convert, and make sure that the evaluator takes every file that is named."""
    done = convert_data(kind, source, folder / "out", options)
    files = {option.removeprefix("--"): path for option, path in done.files.items()}
    files.pop("impressions", None)
    request = EvaluationRequest(rankers=("random",), work=folder / "work", **files)
    inputs = read_inputs(request, Settings.load(), no_progress)
    assert inputs.case_file.rejected == 0
    for option, path in done.files.items():
        assert f"{option} {path}" in done.command
    return done, read_cases(done.files["--cases"]).cases


def past_of(path: Path) -> dict[str | None, tuple[str, ...]]:
    purchases: Purchases = read_purchases(path)
    return {each.user: each.products for each in purchases.sequences()}


def test_esci(tmp_path: Path) -> None:
    examples = {
        "example_id": [0, 1, 2, 3, 4],
        "query": ["red mug", "red mug", "red mug", "tasse", "train me"],
        "query_id": [7, 7, 7, 8, 9],
        "product_id": ["B1", "B2", "B3", "B4", "B1"],
        "product_locale": ["us", "us", "us", "es", "us"],
        "esci_label": ["E", "I", "S", "E", "E"],
        "small_version": [1, 1, 1, 1, 1],
        "large_version": [1, 1, 1, 1, 1],
        "split": ["test", "test", "test", "test", "train"],
    }
    products = {
        "product_id": ["B1", "B2", "B3", "B4"],
        "product_title": ["Red mug", "Blue lamp", "Red cup", "Taza"],
        "product_description": [None, "A lamp", None, None],
        "product_bullet_point": ["Holds tea", None, None, None],
        "product_brand": ["Tarn", None, None, None],
        "product_color": ["red", None, None, None],
        "product_locale": ["us", "us", "us", "es"],
    }
    pq.write_table(pa.table(examples), tmp_path / "shopping_queries_dataset_examples.parquet")
    pq.write_table(pa.table(products), tmp_path / "shopping_queries_dataset_products.parquet")
    _, (case,) = convert("esci", tmp_path, tmp_path)
    assert (case.case_id, case.query) == ("7", "red mug")
    assert case.candidates == ("B1", "B2", "B3")
    assert case.grades == {"B1": 3, "B3": 2}
    with pytest.raises(ConfigError, match="locale=fr"):
        convert("esci", tmp_path, tmp_path, locale="fr")


def test_wands(tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "product.csv").write_text(
        "product_id\tproduct_name\tproduct_class\tcategory hierarchy\tproduct_description\t"
        "product_features\trating_count\taverage_rating\treview_count\n"
        "0\tsolid wood bed\tBeds\tFurniture / Bedroom / Beds\ta nice , quality bed\t"
        "color : caramel|woodspecies : acacia\t15.0\t4.5\t15.0\n"
        "1\tmesh chair\tOffice Chairs\t\t\t\t\t\t\n"
    )
    (folder / "query.csv").write_text("query_id\tquery\tquery_class\n5\twood bed\tBeds\n")
    (folder / "label.csv").write_text(
        "id\tquery_id\tproduct_id\tlabel\n1\t5\t0\tExact\n2\t5\t1\tIrrelevant\n"
    )
    done, (case,) = convert("wands", tmp_path, tmp_path)
    assert case.grades == {"0": 2}
    assert case.candidates == ("0", "1")
    assert case.segments == ("Beds",)
    product = pq.read_table(done.files["--products"]).to_pylist()[0]
    assert product["category"] == "Furniture > Bedroom > Beds"
    assert dict(product["attributes"]) == {"color": "caramel", "woodspecies": "acacia"}


def test_ranklens(tmp_path: Path) -> None:
    films = [
        {"id": n, "title": f"Film {n}", "overview": "Long ago", "tags": ["family"],
         "genres": [{"id": 1, "name": "Comedy"}], "director": {"name": "D"},
         "topActors": [{"name": "A"}]}
        for n in range(6)
    ]  # fmt: skip
    groups = [
        {"id": 2, "user": "u", "ts": 1636993934, "shown": [3, 4, 5], "liked": [4]},
        {"id": 1, "user": "u", "ts": 1636993834, "shown": [0, 1, 2], "liked": [1, 5]},
        {"id": 3, "user": "v", "ts": 1636993834, "shown": [0, 3], "liked": [0]},
    ]
    lines(tmp_path / "metadata.jsonl.gz", films)
    lines(tmp_path / "ranking.jsonl.gz", groups)
    done, cases = convert("ranklens", tmp_path, tmp_path)
    by_id = {case.case_id: case for case in cases}
    assert by_id["1"].history == ()
    assert by_id["1"].grades == {"1": 1}  # 5 was not shown
    assert by_id["2"].history == ("1",)
    assert by_id["2"].at == datetime(2021, 11, 15, 16, 32, 14, tzinfo=UTC)
    assert any("1 groups like films" in note for note in done.notes)


def test_amazon_reviews(tmp_path: Path) -> None:
    header = "user_id,parent_asin,rating,timestamp,history\n"
    train = "U1,A,5.0,1600000000000,\nU1,B,4.0,1600000001000,A\nU2,B,5.0,1600000002000,\n"
    (tmp_path / "Toys.train.csv").write_text(header + train)
    (tmp_path / "Toys.test.csv").write_text(header + "U1,C,5.0,1700000000000,A B\n")
    meta = [
        {"parent_asin": each, "title": f"Toy {each}", "features": ["Soft"], "description": [],
         "price": price, "store": "Toyer", "categories": ["Toys", "Bears"], "main_category": "Toys"}
        for each, price in (("A", "12.50"), ("B", None), ("C", "from 3"), ("Z", 1.0))
    ]  # fmt: skip
    lines(tmp_path / "meta_Toys.jsonl", meta)
    done, (case,) = convert("amazon-reviews", tmp_path, tmp_path, category="Toys")
    assert case.history == ("A", "B")
    assert case.grades == {"C": 1}
    assert case.candidates is None
    assert case.at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert past_of(done.files["--train"]) == {"U1": ("A", "B"), "U2": ("B",)}
    assert pq.read_table(done.files["--products"]).column("product_id").to_pylist() == [
        "A",
        "B",
        "C",
    ]
    with pytest.raises(ConfigError, match="category=Video_Games"):
        convert("amazon-reviews", tmp_path, tmp_path)


def test_kuaisearch(tmp_path: Path) -> None:
    items = [
        {"item_id": n, "item_title": f"商品{n}", "brand_name": "无品牌", "seller_name": "店",
         "category_level1_name": "服装", "category_level2_name": "女装", "category_level3_name": ""}
        for n in range(1, 6)
    ]  # fmt: skip
    common = {"user_id": 1, "query": "广场舞服装", "purchased_item_ids": []}
    searches = [
        {**common, "session_id": 2, "time_index": 20, "split": "test", "clicked_item_ids": [4, 5],
         "purchased_item_ids": [5], "impressed_item_ids": [3, 4, 5, 99]},
        {**common, "session_id": 1, "time_index": 10, "split": "train", "clicked_item_ids": [2],
         "impressed_item_ids": [1, 2]},
        {**common, "session_id": 3, "time_index": 20, "split": "test", "clicked_item_ids": [],
         "impressed_item_ids": [3]},
    ]  # fmt: skip
    lines(tmp_path / "corpus.jsonl", items)
    lines(tmp_path / "recall.jsonl", searches)
    done, cases = convert("kuaisearch", tmp_path, tmp_path)
    assert [case.history for case in cases] == [("2",), ("2",)]  # same time: not yet known
    assert cases[0].candidates == ("3", "4", "5")
    assert cases[0].grades == {"4": 1, "5": 3}
    assert past_of(done.files["--train"]) == {"1": ("2",)}
    assert pq.read_table(done.files["--products"]).to_pylist()[0]["brand"] is None


def test_impressions_of_the_shop(tmp_path: Path) -> None:
    lines(tmp_path / "p.jsonl", [{"product_id": each, "title": each} for each in "abcd"])
    at = datetime(2026, 3, 1, tzinfo=UTC)

    def shown(
        request: str, hour: int, ids: str, clicked: str, *, chance: float = 0.5, pool: str = ""
    ) -> Impression:
        items = tuple(
            ShownItem(product_id=each, position=n, propensity=chance, grade=int(each in clicked))
            for n, each in enumerate(ids, 1)
        )
        moment = at.replace(hour=hour)
        return Impression(
            request_id=request, user_id="u", query="x", at=moment, items=items, pool=tuple(pool)
        )

    log = tmp_path / "log.jsonl"
    write_impressions(log, [shown("late", 5, "cd", "d"), shown("early", 3, "ab", "b")])
    done, cases = convert("impressions", log, tmp_path, products=str(tmp_path / "p.jsonl"))
    by_id = {case.case_id: case for case in cases}
    assert by_id["early"].history == ()
    assert by_id["late"].history == ("b",)
    assert by_id["late"].candidates == ("c", "d")
    assert by_id["late"].grades == {"d": 1}
    assert done.files["--impressions"] == log

    whole = {"products": str(tmp_path / "p.jsonl"), "candidates": "pool"}
    with pytest.raises(DataError, match="2 of 2 lists do not tell what they were drawn from"):
        convert("impressions", log, tmp_path / "refused", **whole)
    # One that was shown as ranked was drawn from nothing.
    ranked, drawn = (
        shown("ranked", 5, "cd", "d", chance=1.0),
        shown("drawn", 3, "ab", "b", pool="abc"),
    )
    write_impressions(log, [ranked, drawn])
    _, cases = convert("impressions", log, tmp_path / "pool", **whole)
    assert {case.case_id: case.candidates for case in cases} == {
        "ranked": ("c", "d"),
        "drawn": ("a", "b", "c"),
    }


def test_complete_journey(tmp_path: Path) -> None:
    def day(month: int, number: int) -> datetime:
        return datetime(2017, month, number, 12)  # noqa: DTZ001 - as the data has it

    kinds = {"y1": "Yogurt", "y2": "Yogurt", "y3": "Yogurt", "b1": "Bread"}
    products = [
        {"product_id": each, "title": each, "category": f"Grocery > Food > {kind}"}
        for each, kind in kinds.items()
    ]
    bought = [
        ("h1", "y1", day(3, 1)), ("h1", "y2", day(4, 1)), ("h1", "b1", day(12, 3)),
        ("h1", "y2", day(12, 5)), ("h1", "y3", day(12, 6)), ("h2", "b1", day(12, 4)),
        ("h2", "y1", day(12, 20)),
    ]  # fmt: skip
    events = [
        {"user_id": user, "kind": "purchase", "product_id": product, "at": at}
        for user, product, at in bought
    ]
    pq.write_table(pa.Table.from_pylist(products), tmp_path / "products.parquet")
    pq.write_table(pa.Table.from_pylist(events), tmp_path / "events.parquet")
    done, cases = convert("complete-journey", tmp_path, tmp_path)
    found = {(case.user_id, case.query): case for case in cases}
    assert set(found) == {("h1", "Yogurt"), ("h2", "Bread"), ("h2", "Yogurt")}
    yogurt = found["h1", "Yogurt"]
    assert yogurt.history == ("y1", "y2", "b1")
    assert yogurt.candidates == ("y1", "y2", "y3")
    assert yogurt.grades == {"y2": 1}  # the first one, not y3
    assert yogurt.segments == ("repeat",)
    assert found["h2", "Yogurt"].segments == ("non-repeat",)
    assert "--cut 2017-12-04" in done.command
    _, few = convert("complete-journey", tmp_path, tmp_path, most="2", history="1", limit="2")
    assert len(few) == 2
    assert all(len(case.candidates or ()) <= 2 and len(case.history) <= 1 for case in few)
    assert all(case.relevant <= set(case.candidates or ()) for case in few)


def test_candidates_are_drawn_beside_the_target(tmp_path: Path) -> None:
    table = pa.table({"product_id": [f"p{n}" for n in range(30)], "title": ["T"] * 30})
    pq.write_table(table, tmp_path / "products.parquet")
    rows = [
        {"case_id": f"c{n}", "user_id": "u", "history": ["p1", "p2"], "target": f"p{n}"}
        for n in range(3, 23)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "purchases_test.parquet")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "purchases_valid.parquet")
    _, cases = convert("industrial", tmp_path, tmp_path / "to", most="20")
    shown = [set(case.candidates or ()) for case in cases]
    wanted = [case.relevant for case in cases]
    assert all(len(ids) == 20 and one <= ids for one, ids in zip(wanted, shown, strict=True))
    bought = sum(len({"p1", "p2"} & ids) for ids in shown)
    assert bought, "only the target would be known to who counts the own history"
    assert {case.segments for case in cases} == {("non-repeat",)}
    others = {tuple(sorted(ids - one)) for one, ids in zip(wanted, shown, strict=True)}
    assert len(others) == 20, "the same ones are drawn for all"
    places = {(case.candidates or ()).index(*case.relevant) for case in cases}
    assert len(places) > 5, "its place tells which one it is"
    _, again = convert("industrial", tmp_path, tmp_path / "again", most="20")
    assert [case.candidates for case in again] == [case.candidates for case in cases]
    _, whole = convert("industrial", tmp_path, tmp_path / "whole")
    assert all(case.candidates is None for case in whole)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data is not here")
@pytest.mark.parametrize(
    ("kind", "number", "candidates"), [("games", 3000, 20), ("industrial", 4533, None)]
)
def test_the_purchase_histories(
    tmp_path: Path, kind: str, number: int, candidates: int | None
) -> None:
    done, cases = convert(kind, SHARED / kind, tmp_path)
    assert len(cases) == number
    given = cases[0].candidates
    assert (None if given is None else len(given)) == candidates
    assert all(case.relevant for case in cases)
    assert done.command.startswith("shelfwise evaluate --products")


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    assert len(converter_names()) == 9
    with pytest.raises(ConfigError, match="'movielens' cannot be converted; there are: games"):
        convert_data("movielens", tmp_path, tmp_path, {})
    with pytest.raises(ConfigError, match="convert wands SOURCE"):
        convert_data("wands", None, tmp_path, {})
    with pytest.raises(DataError, match=r"holds none of product\.csv"):
        convert_data("wands", tmp_path, tmp_path, {})
    lines(tmp_path / "metadata.jsonl", [{"id": 1, "title": "F"}])
    lines(tmp_path / "ranking.jsonl", [{"id": 1, "user": "u", "ts": 1, "shown": [1], "liked": [1]}])
    with pytest.raises(ConfigError, match="--option split"):
        convert_data("ranklens", tmp_path, tmp_path, {"split": "test"})
