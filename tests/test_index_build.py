"""Building the index of hybrid recall: updates, damage and kills, with real models and indexes."""

import copy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from recall_shop import KINDS, PRODUCTS, QUERIES, SETTINGS, CountingEmbedder, ids
from reranker.errors import DataError, IndexMismatchError
from reranker.models.weights import resolve
from reranker.schema import Filters, Product
from retrieval.embedding_cache import EmbeddingCache
from retrieval.hybrid import HybridIndex, build_index
from retrieval.index_build import embed_products
from retrieval.index_store import IndexStore
from retrieval.lexical import LexicalIndex
from retrieval.product_table import ProductTable


@pytest.fixture
def store(recall_store: Path, tmp_path: Path) -> Path:
    """A store of its own, for tests that change it."""
    return Path(shutil.copytree(recall_store, tmp_path / "store"))


def test_nothing_new_costs_nothing(
    recall_store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder
) -> None:
    before = sorted(path.name for path in (recall_store / "index").iterdir())
    recall_embedder.seen = []
    report = build_index(recall_store, recall_table, recall_embedder, SETTINGS)
    assert report.up_to_date
    assert recall_embedder.seen == []
    assert sorted(path.name for path in (recall_store / "index").iterdir()) == before


def test_a_changed_text_is_one_embedding(
    store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder
) -> None:
    mug = PRODUCTS[-5].model_copy(update={"title": "Submarine periscope"})
    changed, *_ = recall_table.upsert([mug])
    recall_embedder.seen = []
    report = build_index(store, changed, recall_embedder, SETTINGS)
    assert (report.embedded, report.changed, report.added, report.removed) == (1, 1, 0, 0)
    assert [text.splitlines()[0] for text in recall_embedder.seen] == ["Submarine periscope"]
    index = HybridIndex.open(store, changed, recall_embedder, SETTINGS)
    assert ids(index.search("periscope", k=1, filters=Filters())) == [mug.product_id]


def test_a_changed_price_is_no_embedding(
    store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder
) -> None:
    dear = PRODUCTS[3].model_copy(update={"price": 9999.0})
    changed, *_ = recall_table.upsert([dear])
    report = build_index(store, changed, recall_embedder, SETTINGS)
    assert (report.embedded, report.changed) == (0, 1)
    index = HybridIndex.open(store, changed, recall_embedder, SETTINGS)
    found = index.search(dear.title, k=5, filters=Filters(min_price=9000))
    assert ids(found) == [dear.product_id]
    assert (found[0].dense_rank, found[0].lexical_rank) == (1, 1)


def test_removed_products_stay_a_fifth_of_the_words_at_most(
    store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder
) -> None:
    removed = []
    for start in range(0, 110, 10):
        few = PRODUCTS[start : start + 10]
        dear = [each.model_copy(update={"price": 999.0}) for each in few]
        recall_table, *_ = recall_table.upsert(dear)
        assert build_index(store, recall_table, recall_embedder, SETTINGS).changed == 10
        (folder,) = (store / "index").glob("gen-*/lexical")
        with LexicalIndex.open(folder) as words:
            assert len(words) == len(recall_table)
            removed.append(words.deleted())
    assert removed[:4] == [10, 20, 30, 0]
    assert max(removed) <= len(recall_table) / 4


@pytest.mark.parametrize("gone", [5, 30])
def test_updates_equal_an_index_built_anew(
    store: Path,
    recall_table: ProductTable,
    recall_embedder: CountingEmbedder,
    tmp_path: Path,
    gone: int,
) -> None:
    removed, _ = recall_table.delete([product.product_id for product in PRODUCTS[10 : 10 + gone]])
    new = [Product(product_id=f"n{n}", title=f"folding bicycle {n}") for n in range(5)]
    changed, *_ = removed.upsert([*new, PRODUCTS[0].model_copy(update={"title": "Trail shoes"})])
    report = build_index(store, changed, recall_embedder, SETTINGS)
    assert (report.added, report.changed, report.removed) == (5, 1, gone)
    fresh = tmp_path / "fresh"
    shutil.copytree(store / "embeddings", fresh / "embeddings")
    assert build_index(fresh, changed, recall_embedder, SETTINGS).embedded == 0
    both = [HybridIndex.open(path, changed, recall_embedder, SETTINGS) for path in (store, fresh)]
    for query in (*QUERIES, "folding bicycle", "trail"):
        one, other = (each.search(query, k=300, filters=Filters()) for each in both)
        dense = [{c.product.product_id: c.dense_rank for c in found} for found in (one, other)]
        assert dense[0] == dense[1]
        words = [{c.product.product_id: c.lexical_rank for c in found} for found in (one, other)]
        # What was removed counts in the scores up to a fifth of the index; then it is built anew.
        assert words[0] == words[1] if gone == 30 else words[0].keys() == words[1].keys()
    assert len(list((store / "index").glob("gen-*"))) == 1


def test_another_model_is_refused_and_can_be_built(
    store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder
) -> None:
    other = copy.copy(recall_embedder)
    other.name, other.fingerprint = "other-model", "f" * 64
    with pytest.raises(IndexMismatchError, match=r"minilm.*other-model.*shelfwise index build"):
        HybridIndex.open(store, recall_table, other, SETTINGS)
    report = build_index(store, recall_table, other, SETTINGS)
    assert (report.embedded, report.added) == (len(recall_table) - 1, 0)
    assert HybridIndex.open(store, recall_table, other, SETTINGS).search(
        "tea", k=1, filters=Filters()
    )
    assert build_index(store, recall_table, recall_embedder, SETTINGS).embedded == 0


def test_two_builds_do_not_meet(
    store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder
) -> None:
    with (
        IndexStore(store).building(),
        pytest.raises(DataError, match="another `shelfwise index build` is running"),
    ):
        build_index(store, recall_table, recall_embedder, SETTINGS)


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "rows.npz", "vectors/manifest.json", "vectors/*.faiss", "lexical/meta.json"],
)
def test_damage_is_noticed_and_the_next_build_repairs_it(
    store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder, name: str
) -> None:
    (path,) = (store / "index").glob(f"gen-*/{name}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if name != "rows.npz":  # which searching does not need
        with pytest.raises(DataError, match="shelfwise index build"):
            HybridIndex.open(store, recall_table, recall_embedder, SETTINGS)
    report = build_index(store, recall_table, recall_embedder, SETTINGS)
    assert not report.up_to_date
    assert report.embedded == 0
    index = HybridIndex.open(store, recall_table, recall_embedder, SETTINGS)
    assert len(index.search("tea", k=10, filters=Filters())) == 10


def test_a_damaged_pointer_is_as_none_and_the_next_build_repairs_it(
    store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder
) -> None:
    (store / "index" / "CURRENT").write_bytes(b"\xff\xfe\x00gen")
    with pytest.raises(DataError, match="shelfwise index build"):
        HybridIndex.open(store, recall_table, recall_embedder, SETTINGS)
    assert build_index(store, recall_table, recall_embedder, SETTINGS).embedded == 0
    found = HybridIndex.open(store, recall_table, recall_embedder, SETTINGS)
    assert found.search("tea", k=1, filters=Filters())


def test_a_lower_limit_makes_the_index_approximate(
    store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder
) -> None:
    many = [
        Product(product_id=f"{kind}{n}", title=f"{n} piece {kind}")
        for n in range(3)
        for kind in KINDS
    ]
    larger, *_ = recall_table.upsert(many)
    settings = SETTINGS.model_copy(update={"exact_limit": 100, "ann_recall": 0.9})
    report = build_index(store, larger, recall_embedder, settings)
    assert report.kind == "approximate"
    assert report.recall >= 0.85
    assert build_index(store, larger, recall_embedder, settings).up_to_date
    back = build_index(store, larger, recall_embedder, SETTINGS)
    assert (back.kind, back.recall, back.embedded) == ("exact", 1.0, 0)


KILLED = """
import os, signal, sys
from pathlib import Path
from types import SimpleNamespace
import retrieval.index_build
from reranker.settings import RetrievalSettings
from retrieval.embedder import SentenceTransformerEmbedder
from retrieval.index_build import embed_products
from retrieval.index_store import IndexStore
from retrieval.lexical import LexicalIndex
from retrieval.product_table import ProductTable

store, moment, model, fingerprint = Path(sys.argv[1]), *sys.argv[2:]
retrieval.index_build._SHARD = 8
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def progress(stage, done, total):
    if stage == moment and done > 8:
        die()
if moment == "publish":
    IndexStore.publish = die
if moment == "clear":
    clear, seen = IndexStore._clear, []
    IndexStore._clear = lambda self: die() if seen else seen.append(clear(self))
recall_table = ProductTable.open(store / "later.arrow")
recall_embedder = SimpleNamespace(name="minilm", fingerprint=fingerprint, dimension=384)
if moment == "embed":
    recall_embedder = SentenceTransformerEmbedder(model)
retrieval.index_build.build_index(
    store, recall_table, recall_embedder, RetrievalSettings(arm_depth=30), progress=progress
)
"""


@pytest.mark.parametrize(
    ("moment", "left"), [("embed", 12), ("lexical", 0), ("publish", 0), ("clear", 0)]
)
def test_a_killed_build_leaves_an_index_and_is_taken_up(
    store: Path,
    recall_table: ProductTable,
    recall_embedder: CountingEmbedder,
    moment: str,
    left: int,
) -> None:
    new = [Product(product_id=f"k{n}", title=f"garden gnome {n}") for n in range(20)]
    later, *_ = recall_table.upsert(new)
    later.save(store / "later.arrow")
    if moment != "embed":  # past it no model is needed, and loading one takes long
        folder = IndexStore(store).embeddings(recall_embedder.fingerprint)
        cache = EmbeddingCache(folder, recall_embedder.fingerprint, recall_embedder.dimension)
        embed_products(later, np.arange(len(later)), cache, recall_embedder)
    model = str(resolve("all-minilm-l6-v2"))
    command = [sys.executable, "-c", KILLED, str(store), moment, model, recall_embedder.fingerprint]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # Up to the switch the old index serves, after it the new one.
    serves = later if moment == "clear" else recall_table
    index = HybridIndex.open(store, serves, recall_embedder, SETTINGS)
    gnomes = [
        each for each in ids(index.search("garden gnome", k=9, filters=Filters())) if each[0] == "k"
    ]
    assert bool(gnomes) == (moment == "clear")
    report = build_index(store, later, recall_embedder, SETTINGS)
    assert report.embedded == left
    assert report.up_to_date == (moment == "clear")
    found = HybridIndex.open(store, later, recall_embedder, SETTINGS)
    assert "gnome" in found.search("garden gnome", k=1, filters=Filters())[0].product.title
    assert len(list((store / "index").glob("gen-*"))) == 1


def test_progress_names_the_stages(
    recall_table: ProductTable, recall_embedder: CountingEmbedder, tmp_path: Path
) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        seen[stage] = (done, total)

    told: Callable[[str, int, int], None] = progress
    build_index(tmp_path, recall_table, recall_embedder, SETTINGS, progress=told)
    assert list(seen) == ["embed", "vectors", "lexical"]
    assert all(done == total for done, total in seen.values())
