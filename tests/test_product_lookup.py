from collections.abc import Sequence

import pytest

from reranker.schema import Product
from retrieval.product_table import IntArray, ProductTable


def table(*ids: str) -> ProductTable:
    products = (Product(product_id=each, title=f"thing {each}") for each in ids)
    return ProductTable.empty().upsert(products)[0]


def test_rows_are_found_once_and_for_everybody_who_asks_the_catalogue() -> None:
    products = table("a", "b", "c")
    lookup = products.lookup
    assert lookup.rows(["c", None, "unknown", "a", "c"]).tolist() == [2, -1, -1, 0, 2]
    assert products.lookup is lookup
    assert [lookup.titles([1, 0])[row] for row in (1, 0)] == ["thing b", "thing a"]


def test_what_a_caller_knows_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    products = table("a", "b")
    lookup = products.lookup
    asked: list[list[str]] = []
    find = ProductTable.rows_of_ids

    def counted(self: ProductTable, ids: Sequence[str]) -> IntArray:
        asked.append(list(ids))
        return find(self, ids)

    monkeypatch.setattr(ProductTable, "rows_of_ids", counted)
    lookup.remember(["b"], [1])
    assert lookup.rows(["b", "a", "b"]).tolist() == [1, 0, 1]
    assert lookup.rows(["a"]).tolist() == [0]
    assert asked == [["a"]]
    assert table("b").lookup.rows(["b"]).tolist() == [0]  # each catalogue has its own
