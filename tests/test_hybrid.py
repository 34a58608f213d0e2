"""Hybrid recall and the building of its index: real MiniLM, real FAISS, real tantivy."""

import copy
import logging
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.errors import DataError, IndexMismatchError
from reranker.models.weights import resolve
from reranker.schema import Candidate, Filters, Product
from reranker.settings import RetrievalSettings
from retrieval.embedder import CountProgress, SentenceTransformerEmbedder, Vectors
from retrieval.embedding_cache import EmbeddingCache
from retrieval.hybrid import HybridIndex, build_index, reciprocal_rank_fusion
from retrieval.index_build import embed_products
from retrieval.index_store import IndexStore
from retrieval.product_table import ProductTable

KINDS = {
    "running shoes": "Sport > Shoes",
    "football": "Sport > Balls",
    "tomato soup": "Food > Soups",
    "green tea": "Food > Drinks",
    "desk lamp": "Home > Lighting",
    "coffee mug": "Home > Kitchen",
}
BRANDS = ("Acme", "Borealis", "Cirrus", "Dune", "Ember")
STYLES = ("classic", "light", "premium", "travel")
SETTINGS = RetrievalSettings(arm_depth=30)
QUERIES = ("something to jog in", "hot drink", "light Acme lamp", "soup", "gift for a footballer")


class CountingEmbedder(SentenceTransformerEmbedder):
    """MiniLM that remembers which product texts it was asked for."""

    def encode(self, texts: Sequence[str], *, progress: CountProgress | None = None) -> Vectors:
        self.seen = [*getattr(self, "seen", []), *texts]
        return super().encode(texts, progress=progress)


def _shop() -> list[Product]:
    products = [
        Product(
            product_id=f"{kind.split()[-1]}-{brand}-{style}",
            title=f"{brand} {style} {kind}",
            brand=brand,
            category=category,
            price=float(5 + 7 * place + len(style)),
            in_stock=(place + len(style)) % 3 != 0,
        )
        for kind, category in KINDS.items()
        for place, brand in enumerate(BRANDS)
        for style in STYLES
    ]
    twin = products[0].model_copy(update={"product_id": "twin", "price": 1.0})
    part = Product(product_id="part", title="Replacement part XQ7731")
    return [*products, twin, part]


PRODUCTS = _shop()


@pytest.fixture(scope="module")
def embedder() -> CountingEmbedder:
    return CountingEmbedder(resolve("all-minilm-l6-v2"), name="minilm")


@pytest.fixture(scope="module")
def table() -> ProductTable:
    return ProductTable.empty().upsert(PRODUCTS)[0]


@pytest.fixture(scope="module")
def built(
    tmp_path_factory: pytest.TempPathFactory, table: ProductTable, embedder: CountingEmbedder
) -> Path:
    store = tmp_path_factory.mktemp("store")
    report = build_index(store, table, embedder, SETTINGS)
    assert (report.products, report.added, report.kind) == (len(table), len(table), "exact")
    assert report.embedded == len(table) - 1  # the twin has a text that was there already
    return store


@pytest.fixture
def store(built: Path, tmp_path: Path) -> Path:
    """A store of its own, for tests that change it."""
    return Path(shutil.copytree(built, tmp_path / "store"))


@pytest.fixture(scope="module")
def index(built: Path, table: ProductTable, embedder: CountingEmbedder) -> HybridIndex:
    return HybridIndex.open(built, table, embedder, SETTINGS)


def _ids(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.product.product_id for candidate in candidates]


def test_meaning_and_words_are_both_found(index: HybridIndex) -> None:
    jog = index.search("something to jog in", k=10, filters=Filters())
    assert {candidate.product.category for candidate in jog[:5]} == {"Sport > Shoes"}
    part = index.search("XQ7731", k=3, filters=Filters())
    assert part[0].product.product_id == "part"
    assert part[0].lexical_rank == 1


def test_candidates_keep_the_evidence_of_both_arms(index: HybridIndex) -> None:
    found = index.search("light Acme lamp", k=40, filters=Filters())
    assert [candidate.recall_rank for candidate in found] == list(range(1, len(found) + 1))
    for candidate in found:
        ranks = [rank for rank in (candidate.dense_rank, candidate.lexical_rank) if rank]
        assert candidate.recall_score == pytest.approx(sum(1 / (60 + rank) for rank in ranks))
    assert {candidate.dense_rank for candidate in found} >= set(range(1, 31))
    assert _ids(index.search("light Acme lamp", k=7, filters=Filters())) == _ids(found[:7])


@pytest.mark.parametrize(
    "filters",
    [
        Filters(categories=("food",)),
        Filters(brands=("ACME", "dune"), in_stock=True),
        Filters(min_price=20, max_price=24),
        Filters(categories=("Sport > Shoes",), max_price=2),
        Filters(brands=("nobody",)),
    ],
)
@pytest.mark.parametrize("query", QUERIES[:2])
def test_filters_act_in_both_arms_before_the_cut(
    index: HybridIndex,
    table: ProductTable,
    embedder: CountingEmbedder,
    filters: Filters,
    query: str,
) -> None:
    matching = [row for row, product in enumerate(PRODUCTS) if filters.matches(product)]
    found = index.search(query, k=20, filters=filters)
    assert all(filters.matches(candidate.product) for candidate in found)
    assert len(found) == min(20, len(matching))
    dense = [candidate for candidate in found if candidate.dense_rank]
    assert len(dense) >= min(15, len(matching))
    vectors = embedder.encode(table.texts(matching))
    best = np.sort(vectors @ embedder.encode_query(query))[::-1]
    by_id = {table.product_ids([row])[0]: place for place, row in enumerate(matching)}
    for candidate in dense:
        assert candidate.dense_rank is not None
        score = vectors[by_id[candidate.product.product_id]] @ embedder.encode_query(query)
        # Vectors of another batch differ by the rounding of bfloat16.
        assert score == pytest.approx(best[candidate.dense_rank - 1], abs=0.01)


def test_similar_takes_the_mean_and_includes_the_given(index: HybridIndex) -> None:
    given = ["tea-Acme-light", "no such product", "soup-Acme-light"]
    found = index.similar(given, k=12, filters=Filters())
    assert set(given) - {"no such product"} <= set(_ids(found))
    assert {str(candidate.product.category).split()[0] for candidate in found} == {"Food"}
    scores = [candidate.recall_score for candidate in found]
    assert scores == sorted(scores, reverse=True)
    assert all(candidate.lexical_rank is None for candidate in found)
    assert index.similar(["no such product"], k=5, filters=Filters()) == ()
    assert index.similar([], k=5, filters=Filters()) == ()
    lamps = index.similar(given, k=5, filters=Filters(categories=("Home > Lighting",)))
    assert {candidate.product.category for candidate in lamps} == {"Home > Lighting"}


def test_products_keep_their_places(index: HybridIndex) -> None:
    found = index.products(["part", "no such product", "twin"])
    assert found[1] is None
    assert [product.product_id for product in found if product] == ["part", "twin"]


def test_nothing_new_costs_nothing(
    built: Path, table: ProductTable, embedder: CountingEmbedder
) -> None:
    before = sorted(path.name for path in (built / "index").iterdir())
    embedder.seen = []
    report = build_index(built, table, embedder, SETTINGS)
    assert report.up_to_date
    assert embedder.seen == []
    assert sorted(path.name for path in (built / "index").iterdir()) == before


def test_a_changed_text_is_one_embedding(
    store: Path, table: ProductTable, embedder: CountingEmbedder
) -> None:
    mug = PRODUCTS[-5].model_copy(update={"title": "Submarine periscope"})
    changed, *_ = table.upsert([mug])
    embedder.seen = []
    report = build_index(store, changed, embedder, SETTINGS)
    assert (report.embedded, report.changed, report.added, report.removed) == (1, 1, 0, 0)
    assert [text.splitlines()[0] for text in embedder.seen] == ["Submarine periscope"]
    index = HybridIndex.open(store, changed, embedder, SETTINGS)
    assert _ids(index.search("periscope", k=1, filters=Filters())) == [mug.product_id]


def test_a_changed_price_is_no_embedding(
    store: Path, table: ProductTable, embedder: CountingEmbedder
) -> None:
    dear = PRODUCTS[3].model_copy(update={"price": 9999.0})
    changed, *_ = table.upsert([dear])
    report = build_index(store, changed, embedder, SETTINGS)
    assert (report.embedded, report.changed) == (0, 1)
    index = HybridIndex.open(store, changed, embedder, SETTINGS)
    found = index.search(dear.title, k=5, filters=Filters(min_price=9000))
    assert _ids(found) == [dear.product_id]
    assert (found[0].dense_rank, found[0].lexical_rank) == (1, 1)


def test_updates_equal_an_index_built_anew(
    store: Path, table: ProductTable, embedder: CountingEmbedder, tmp_path: Path
) -> None:
    removed, _ = table.delete([product.product_id for product in PRODUCTS[10:40]])
    new = [Product(product_id=f"n{n}", title=f"folding bicycle {n}") for n in range(5)]
    changed, *_ = removed.upsert([*new, PRODUCTS[0].model_copy(update={"title": "Trail shoes"})])
    report = build_index(store, changed, embedder, SETTINGS)
    assert (report.added, report.changed, report.removed) == (5, 1, 30)
    fresh = tmp_path / "fresh"
    shutil.copytree(store / "embeddings", fresh / "embeddings")
    assert build_index(fresh, changed, embedder, SETTINGS).embedded == 0
    both = [HybridIndex.open(path, changed, embedder, SETTINGS) for path in (store, fresh)]
    for query in (*QUERIES, "folding bicycle", "trail"):
        one, other = (each.search(query, k=300, filters=Filters()) for each in both)
        dense = [{c.product.product_id: c.dense_rank for c in found} for found in (one, other)]
        assert dense[0] == dense[1]
        words = [{c.product.product_id for c in f if c.lexical_rank} for f in (one, other)]
        assert words[0] == words[1]
    assert len(list((store / "index").glob("gen-*"))) == 1


def test_a_catalogue_that_moved_on_is_searched_where_both_agree(
    built: Path,
    table: ProductTable,
    embedder: CountingEmbedder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = [product.product_id for product in PRODUCTS[:4]]
    later, _ = table.delete(gone)
    later, *_ = later.upsert([Product(product_id="new", title="Running shoes of tomorrow")])
    with caplog.at_level(logging.WARNING):
        index = HybridIndex.open(built, later, embedder, SETTINGS)
    assert "shelfwise index build" in caplog.text
    found = _ids(index.search("running shoes", k=30, filters=Filters()))
    assert len(found) == 30
    assert not set(found) & {*gone, "new"}
    assert index.similar(["new"], k=3, filters=Filters()) == ()


def test_another_model_is_refused_and_can_be_built(
    store: Path, table: ProductTable, embedder: CountingEmbedder
) -> None:
    other = copy.copy(embedder)
    other.name, other.fingerprint = "other-model", "f" * 64
    with pytest.raises(IndexMismatchError, match=r"minilm.*other-model.*shelfwise index build"):
        HybridIndex.open(store, table, other, SETTINGS)
    report = build_index(store, table, other, SETTINGS)
    assert (report.embedded, report.added) == (len(table) - 1, 0)
    assert HybridIndex.open(store, table, other, SETTINGS).search("tea", k=1, filters=Filters())
    assert build_index(store, table, embedder, SETTINGS).embedded == 0


def test_no_index_names_the_command(
    tmp_path: Path, table: ProductTable, embedder: CountingEmbedder
) -> None:
    with pytest.raises(DataError, match="shelfwise index build"):
        HybridIndex.open(tmp_path, table, embedder, SETTINGS)


def test_two_builds_do_not_meet(
    store: Path, table: ProductTable, embedder: CountingEmbedder
) -> None:
    with (
        IndexStore(store).building(),
        pytest.raises(DataError, match="another `shelfwise index build` is running"),
    ):
        build_index(store, table, embedder, SETTINGS)


@pytest.mark.parametrize(
    "name",
    ["manifest.json", "rows.npz", "vectors/manifest.json", "vectors/*.faiss", "lexical/meta.json"],
)
def test_damage_is_noticed_and_the_next_build_repairs_it(
    store: Path, table: ProductTable, embedder: CountingEmbedder, name: str
) -> None:
    (path,) = (store / "index").glob(f"gen-*/{name}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if name != "rows.npz":  # which searching does not need
        with pytest.raises(DataError, match="shelfwise index build"):
            HybridIndex.open(store, table, embedder, SETTINGS)
    report = build_index(store, table, embedder, SETTINGS)
    assert not report.up_to_date
    assert report.embedded == 0
    index = HybridIndex.open(store, table, embedder, SETTINGS)
    assert len(index.search("tea", k=10, filters=Filters())) == 10


def test_a_lower_limit_makes_the_index_approximate(
    store: Path, table: ProductTable, embedder: CountingEmbedder
) -> None:
    many = [
        Product(product_id=f"{kind}{n}", title=f"{n} piece {kind}")
        for n in range(3)
        for kind in KINDS
    ]
    larger, *_ = table.upsert(many)
    settings = SETTINGS.model_copy(update={"exact_limit": 100, "ann_recall": 0.9})
    report = build_index(store, larger, embedder, settings)
    assert report.kind == "approximate"
    assert report.recall >= 0.85
    assert build_index(store, larger, embedder, settings).up_to_date
    back = build_index(store, larger, embedder, SETTINGS)
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
table = ProductTable.open(store / "later.arrow")
embedder = SimpleNamespace(name="minilm", fingerprint=fingerprint, dimension=384)
if moment == "embed":
    embedder = SentenceTransformerEmbedder(model)
retrieval.index_build.build_index(
    store, table, embedder, RetrievalSettings(arm_depth=30), progress=progress
)
"""


@pytest.mark.parametrize(
    ("moment", "left"), [("embed", 12), ("lexical", 0), ("publish", 0), ("clear", 0)]
)
def test_a_killed_build_leaves_an_index_and_is_taken_up(
    store: Path,
    table: ProductTable,
    embedder: CountingEmbedder,
    moment: str,
    left: int,
) -> None:
    new = [Product(product_id=f"k{n}", title=f"garden gnome {n}") for n in range(20)]
    later, *_ = table.upsert(new)
    later.save(store / "later.arrow")
    if moment != "embed":  # past it no model is needed, and loading one takes long
        folder = IndexStore(store).embeddings(embedder.fingerprint)
        cache = EmbeddingCache(folder, embedder.fingerprint, embedder.dimension)
        embed_products(later, np.arange(len(later)), cache, embedder)
    model = str(resolve("all-minilm-l6-v2"))
    command = [sys.executable, "-c", KILLED, str(store), moment, model, embedder.fingerprint]
    killed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # Up to the switch the old index serves, after it the new one.
    serves = later if moment == "clear" else table
    index = HybridIndex.open(store, serves, embedder, SETTINGS)
    gnomes = [
        each
        for each in _ids(index.search("garden gnome", k=9, filters=Filters()))
        if each[0] == "k"
    ]
    assert bool(gnomes) == (moment == "clear")
    report = build_index(store, later, embedder, SETTINGS)
    assert report.embedded == left
    assert report.up_to_date == (moment == "clear")
    found = HybridIndex.open(store, later, embedder, SETTINGS)
    assert "gnome" in found.search("garden gnome", k=1, filters=Filters())[0].product.title
    assert len(list((store / "index").glob("gen-*"))) == 1


def test_fusion_follows_the_formula() -> None:
    fused = reciprocal_rank_fusion([["a", "b", "c"], ["c", "d", "a"]], 60)
    expected = {"a": 1 / 61 + 1 / 63, "c": 1 / 63 + 1 / 61, "b": 1 / 62, "d": 1 / 62}
    assert dict(fused) == pytest.approx(expected)
    assert [item for item, _ in fused] == ["a", "c", "b", "d"]
    assert reciprocal_rank_fusion([], 60) == []


@given(st.lists(st.lists(st.integers(0, 20)), max_size=4), st.integers(1, 100))
def test_fusion_keeps_every_item_once_and_in_order(lists: list[list[int]], k: int) -> None:
    fused = reciprocal_rank_fusion(lists, k)
    assert {item for item, _ in fused} == {item for items in lists for item in items}
    assert len(dict(fused)) == len(fused)
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
    most = len(lists) / (k + 1)
    assert all(0 < score <= most * (1 + 1e-12) for score in scores)


def test_progress_names_the_stages(
    table: ProductTable, embedder: CountingEmbedder, tmp_path: Path
) -> None:
    seen: dict[str, tuple[int, int]] = {}

    def progress(stage: str, done: int, total: int) -> None:
        seen[stage] = (done, total)

    told: Callable[[str, int, int], None] = progress
    build_index(tmp_path, table, embedder, SETTINGS, progress=told)
    assert list(seen) == ["embed", "vectors", "lexical"]
    assert all(done == total for done, total in seen.values())
