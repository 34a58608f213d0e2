import gc
import weakref
from collections.abc import Sequence

import pytest

from reranker.schema import Product
from retrieval import product_lookup
from retrieval.product_columns import IdColumn, IntArray
from retrieval.product_table import ProductTable


def table(*ids: str) -> ProductTable:
    products = (Product(product_id=each, title=f"thing {each}") for each in ids)
    return ProductTable.empty().upsert(products)[0]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What the columns are asked for."""
    found: list[list[str]] = []
    rows = IdColumn.rows

    def noted(self: IdColumn, product_ids: Sequence[str]) -> IntArray:
        found.append(list(product_ids))
        return rows(self, product_ids)

    monkeypatch.setattr(IdColumn, "rows", noted)
    return found


def test_rows_are_found_once_for_all_who_ask_the_table(asked: list[list[str]]) -> None:
    products = table("a", "b", "c")
    assert products.lookup.rows(["c", None, "unknown", "a", "c"]).tolist() == [2, -1, -1, 0, 2]
    assert products.lookup.rows(["a", "unknown", "b"]).tolist() == [0, -1, 1]
    assert asked == [["c", "unknown", "a"], ["b"]]
    titles = products.lookup.titles([1, 0])
    assert [titles[row] for row in (1, 0)] == ["thing b", "thing a"]


def test_what_a_caller_knows_is_not_looked_up(asked: list[list[str]]) -> None:
    lookup = table("a", "b").lookup
    lookup.remember(["b"], [1])
    assert lookup.rows(["b", "a", "b"]).tolist() == [1, 0, 1]
    assert asked == [["a"]]
    assert table("b").lookup.rows(["b"]).tolist() == [0]  # each table has its own


def test_only_so_much_is_remembered(
    asked: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product_lookup, "_MOST_REMEMBERED", 2)
    lookup = table("a", "b", "c", "d").lookup
    assert lookup.rows(["a", "b"]).tolist() == [0, 1]
    lookup.remember(["d"], [3])  # there is no room
    assert lookup.rows(["c", "b"]).tolist() == [2, 1]
    assert lookup.rows(["c", "b"]).tolist() == [2, 1]
    assert lookup.rows(["a", "b", "c", "d"]).tolist() == [0, 1, 2, 3]
    assert asked == [["a", "b"], ["c", "b"], ["a", "b", "c", "d"]]


def test_an_outdated_table_is_let_go_of_without_a_collection() -> None:
    products = table("a", "b")
    products.lookup.rows(["a"])
    products.lookup.titles([1])
    gone = weakref.ref(products)
    gc.disable()
    try:
        del products
        assert gone() is None
    finally:
        gc.enable()
