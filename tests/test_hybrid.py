"""Hybrid recall: real MiniLM, real FAISS, real tantivy."""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recall_shop import PRODUCTS, QUERIES, SETTINGS, CountingEmbedder, ids
from reranker.errors import DataError
from reranker.schema import Filters, Product
from retrieval.faiss_index import VectorIndex
from retrieval.hybrid import HybridIndex, reciprocal_rank_fusion
from retrieval.lexical import LexicalIndex
from retrieval.product_table import ProductTable


@pytest.fixture(scope="module")
def index(
    recall_store: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder
) -> HybridIndex:
    return HybridIndex.open(recall_store, recall_table, recall_embedder, SETTINGS)


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
    assert ids(index.search("light Acme lamp", k=7, filters=Filters())) == ids(found[:7])


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_words_are_looked_up_once_whoever_is_free_first(
    index: HybridIndex, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    expected = index.search(QUERIES[0], k=5, filters=Filters())
    real, asked = LexicalIndex.search, []

    def counted(lexical: LexicalIndex, query: str, **how: Any) -> Any:
        asked.append(query)
        return real(lexical, query, **how)

    monkeypatch.setattr(LexicalIndex, "search", counted)
    rest = index.begin_search(QUERIES[0], k=5, filters=Filters())
    time.sleep(seconds)
    assert rest() == expected
    assert asked == [QUERIES[0]]


@pytest.mark.parametrize("broken", [LexicalIndex, VectorIndex])
def test_a_fault_of_either_arm_reaches_the_caller(
    index: HybridIndex, monkeypatch: pytest.MonkeyPatch, broken: type
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DataError("the disk is gone")

    monkeypatch.setattr(broken, "search", fail)
    with pytest.raises(DataError, match="the disk is gone"):
        index.search(QUERIES[0], k=5, filters=Filters())


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
    recall_table: ProductTable,
    recall_embedder: CountingEmbedder,
    filters: Filters,
    query: str,
) -> None:
    matching = [row for row, product in enumerate(PRODUCTS) if filters.matches(product)]
    found = index.search(query, k=20, filters=filters)
    assert all(filters.matches(candidate.product) for candidate in found)
    assert len(found) == min(20, len(matching))
    dense = [candidate for candidate in found if candidate.dense_rank]
    assert len(dense) >= min(15, len(matching))
    vectors = recall_embedder.encode(recall_table.texts(matching))
    best = np.sort(vectors @ recall_embedder.encode_query(query))[::-1]
    by_id = {recall_table.product_ids([row])[0]: place for place, row in enumerate(matching)}
    for candidate in dense:
        assert candidate.dense_rank is not None
        score = vectors[by_id[candidate.product.product_id]] @ recall_embedder.encode_query(query)
        # Vectors of another batch differ by the rounding of bfloat16.
        assert score == pytest.approx(best[candidate.dense_rank - 1], abs=0.01)


def test_similar_takes_the_mean_and_includes_the_given(index: HybridIndex) -> None:
    given = ["tea-Acme-light", "no such product", "soup-Acme-light"]
    found = index.similar(given, k=12, filters=Filters())
    assert set(given) - {"no such product"} <= set(ids(found))
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


def test_a_catalogue_that_moved_on_is_searched_where_both_agree(
    recall_store: Path,
    recall_table: ProductTable,
    recall_embedder: CountingEmbedder,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = [product.product_id for product in PRODUCTS[:4]]
    later, _ = recall_table.delete(gone)
    later, *_ = later.upsert([Product(product_id="new", title="Running shoes of tomorrow")])
    with caplog.at_level(logging.WARNING):
        index = HybridIndex.open(recall_store, later, recall_embedder, SETTINGS)
    assert "shelfwise index build" in caplog.text
    found = ids(index.search("running shoes", k=30, filters=Filters()))
    assert len(found) == 30
    assert not set(found) & {*gone, "new"}
    assert index.similar(["new"], k=3, filters=Filters()) == ()


def test_no_index_names_the_command(
    tmp_path: Path, recall_table: ProductTable, recall_embedder: CountingEmbedder
) -> None:
    with pytest.raises(DataError, match="shelfwise index build"):
        HybridIndex.open(tmp_path, recall_table, recall_embedder, SETTINGS)


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
