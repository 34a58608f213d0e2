"""An index holds the keys of one catalogue; to another, in which they restart, it is no index."""

import json
import shutil
from pathlib import Path

import pytest

from recall_shop import PRODUCTS, SETTINGS, CountingEmbedder, ids
from reranker.errors import IndexMismatchError
from reranker.schema import Filters, Product
from retrieval.hybrid import HybridIndex, build_index
from retrieval.product_table import ProductTable


@pytest.fixture
def store(recall_store: Path, tmp_path: Path) -> Path:
    """A store of its own, for tests that change it."""
    return Path(shutil.copytree(recall_store, tmp_path / "store"))


def saved(table: ProductTable, path: Path) -> ProductTable:
    table.save(path)
    found = ProductTable.open(path)
    found.verify()
    return found


def test_a_catalogue_keeps_its_identity_and_a_new_one_has_another(tmp_path: Path) -> None:
    table = ProductTable.empty()
    later, *_ = table.upsert(PRODUCTS[:5])
    fewer, _ = later.delete([PRODUCTS[0].product_id])
    reopened = saved(fewer, tmp_path / "t.arrow")
    assert {each.identity for each in (table, later, fewer, reopened)} == {table.identity}
    assert ProductTable.empty().identity != table.identity


def test_the_index_of_a_catalogue_that_was_deleted_is_refused(
    store: Path, recall_embedder: CountingEmbedder
) -> None:
    anew, *_ = ProductTable.empty().upsert(reversed(PRODUCTS))
    with pytest.raises(IndexMismatchError, match=r"another catalogue.*shelfwise index build"):
        HybridIndex.open(store, anew, recall_embedder, SETTINGS)
    assert build_index(store, anew, recall_embedder, SETTINGS).embedded == 0
    index = HybridIndex.open(store, anew, recall_embedder, SETTINGS)
    assert index.behind is None
    (part,) = index.search("XQ7731", k=1, filters=Filters())
    assert part.product.product_id == "part"
    assert (part.dense_rank, part.lexical_rank) == (1, 1)


def test_the_same_products_imported_anew_are_indexed_by_a_build(
    store: Path, recall_embedder: CountingEmbedder
) -> None:
    anew, *_ = ProductTable.empty().upsert(PRODUCTS)
    report = build_index(store, anew, recall_embedder, SETTINGS)
    assert (report.embedded, report.changed, report.up_to_date) == (0, 0, False)
    assert build_index(store, anew, recall_embedder, SETTINGS).up_to_date
    assert HybridIndex.open(store, anew, recall_embedder, SETTINGS).search(
        "tea", k=1, filters=Filters()
    )


def test_what_an_earlier_version_wrote_opens_and_gets_an_identity(
    store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder, tmp_path: Path
) -> None:
    (manifest,) = (store / "index").glob("gen-*/manifest.json")
    fields = json.loads(manifest.read_text("utf-8"))
    assert fields.pop("catalogue_identity") == recall_table.identity
    manifest.write_text(json.dumps(fields), "utf-8")
    # Only the identity tells a file of now from one of then.
    old = ProductTable(recall_table._batch, recall_table._next_key, None)
    opened = saved(old, tmp_path / "old.arrow")
    assert opened.identity is None
    assert build_index(store, opened, recall_embedder, SETTINGS).up_to_date
    for table in (opened, recall_table):
        index = HybridIndex.open(store, table, recall_embedder, SETTINGS)
        assert ids(index.search("XQ7731", k=1, filters=Filters())) == ["part"]
    later, *_ = opened.upsert([Product(product_id="new", title="Folding bicycle")])
    assert later.identity is not None
    build_index(store, later, recall_embedder, SETTINGS)
    with pytest.raises(IndexMismatchError):
        HybridIndex.open(store, ProductTable.empty(), recall_embedder, SETTINGS)
