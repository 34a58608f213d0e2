"""Recall by meaning and by words, fused: what `reranker.ports.CandidateIndex` asks for."""

import logging
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from reranker.errors import DataError, IndexMismatchError
from reranker.schema import Candidate, Filters, Product
from reranker.settings import RetrievalSettings
from retrieval.embedder import Embedder, Vectors
from retrieval.faiss_index import VectorIndex
from retrieval.index_build import IndexReport, build_index
from retrieval.index_store import REMEDY, Generation, IndexStore
from retrieval.lexical import LexicalIndex
from retrieval.product_table import IntArray, ProductTable

__all__ = ["HybridIndex", "IndexReport", "build_index", "reciprocal_rank_fusion"]

Item = TypeVar("Item", bound=Hashable)
Made = TypeVar("Made")

logger = logging.getLogger(__name__)


def reciprocal_rank_fusion(lists: Sequence[Sequence[Item]], k: int) -> list[tuple[Item, float]]:
    """Fuse ranked lists: an item scores the sum of ``1 / (k + rank)`` over the lists it is in.

    Cormack, Clarke and Buettcher: Reciprocal Rank Fusion outperforms Condorcet and individual Rank
    Learning Methods (SIGIR 2009). An item that a list repeats counts at its best rank there.

    Args:
        lists: items, best first.
        k: damps the weight of the first ranks; the paper takes 60.

    Returns:
        Items with scores, best first; of equal scores the better single rank comes first, then the
        earlier list.
    """
    scores: dict[Item, float] = {}
    best: dict[Item, int] = {}
    for items in lists:
        for rank, item in enumerate(dict.fromkeys(items), start=1):
            if item in scores:
                scores[item] += 1.0 / (k + rank)
                best[item] = min(rank, best[item])
            else:
                scores[item] = 1.0 / (k + rank)
                best[item] = rank
    # Sorting is stable: the last key counts first.
    fused = sorted(scores, key=best.__getitem__)
    fused.sort(key=scores.__getitem__, reverse=True)
    return [(item, scores[item]) for item in fused]


class HybridIndex:
    """Dense and lexical recall over one catalogue. Thread-safe; build it with `open`.

    Implements `reranker.ports.CandidateIndex`.
    """

    def __init__(
        self,
        table: ProductTable,
        embedder: Embedder,
        vectors: VectorIndex,
        lexical: LexicalIndex,
        settings: RetrievalSettings,
        *,
        behind: str | None = None,
    ) -> None:
        self.behind = behind
        self._table = table
        self._embedder = embedder
        self._vectors = vectors
        self._lexical = lexical
        self._settings = settings
        self._in_step = np.array_equal(vectors.keys, table.keys)

    @classmethod
    def open(
        cls, store: Path, table: ProductTable, embedder: Embedder, settings: RetrievalSettings
    ) -> "HybridIndex":
        """Open the index of a store.

        Where the catalogue has changed since the index was built, a warning is logged, `behind`
        says so, and the products that are in both are searched.

        Raises:
            DataError: there is no index, or it is corrupt.
            IndexMismatchError: it is of another embedding model, format or catalogue.
        """
        folder = IndexStore(store)
        while (generation := folder.current()) is not None:
            try:
                return cls._of(generation, table, embedder, settings)
            except DataError:
                latest = folder.current()
                # A build that ended in between has removed the generation under our feet.
                if latest is None or latest.folder == generation.folder:
                    raise
        raise DataError(f"{store / 'index'}: there is no index; {REMEDY}")

    @classmethod
    def _of(
        cls,
        generation: Generation,
        table: ProductTable,
        embedder: Embedder,
        settings: RetrievalSettings,
    ) -> "HybridIndex":
        manifest = generation.manifest()
        if manifest.model != embedder.fingerprint:
            raise IndexMismatchError(
                f"{generation.folder}: the index was built with the embedding model "
                f"{manifest.model_name} ({manifest.model[:12]}), in use is {embedder.name} "
                f"({embedder.fingerprint[:12]}); {REMEDY}, or set retrieval.embedder"
            )
        generation.refuse_other_catalogue(table)
        behind = None
        if manifest.catalogue != table.fingerprint:
            behind = (
                f"the catalogue has changed since the index was built ({manifest.products} "
                f"products then, {len(table)} now); {REMEDY}"
            )
            logger.warning("%s: %s", generation.folder, behind)
        vectors = VectorIndex.load(
            generation.vectors, fingerprint=embedder.fingerprint, dimension=embedder.dimension
        )
        lexical = LexicalIndex.open(generation.lexical)
        return cls(table, embedder, vectors, lexical, settings, behind=behind)

    def __len__(self) -> int:
        return len(self._table)

    def close(self) -> None:
        """Release the files of the lexical index."""
        self._lexical.close()

    def search(self, query: str, *, k: int, filters: Filters) -> tuple[Candidate, ...]:
        """Return at most k products for a query, best first, all of which meet the filters.

        Both arms are asked for ``arm_depth`` products (k if that is more) that meet the filters,
        and their ranks are fused.
        """
        return self.begin_search(query, k=k, filters=filters)()

    def begin_search(
        self, query: str, *, k: int, filters: Filters
    ) -> Callable[[], tuple[Candidate, ...]]:
        """Begin a `search` with what of it is outside of the interpreter, in the embedder's thread.

        Returns:
            What does the rest, which would hold up the caller's work, and returns the products.
        """
        depth = max(k, self._settings.arm_depth)
        # By whichever thread is free first.
        by_words = _Once(lambda: self._lexical.search(query, k=depth, filters=filters)[0])

        def arms(vector: Vectors) -> tuple[IntArray, IntArray]:
            dense, _ = self._vectors.search(vector, depth, self._allowed(filters))
            return dense, by_words()

        begun = self._embedder.begin_query(query, arms)

        def rest() -> tuple[Candidate, ...]:
            with suppress(Exception):  # the other thread ends first, and its result raises this
                by_words()
            return self._fused(*begun.result(), k=k, filters=filters)

        return rest

    def by_words(self, query: str, *, k: int, filters: Filters) -> tuple[Candidate, ...]:
        """Return at most k products that hold words of a query, best first, without its vector.

        They are scored as in a `search` in which the vectors find nothing.
        """
        found, _ = self._lexical.search(query, k=k, filters=filters)
        return self._fused(np.empty(0, np.int64), found, k=k, filters=filters)

    def _fused(
        self, dense: IntArray, found: IntArray, *, k: int, filters: Filters
    ) -> tuple[Candidate, ...]:
        lexical = self._still_allowed(found, filters)
        dense_rank = _ranks(dense)
        lexical_rank = _ranks(lexical)
        fused = reciprocal_rank_fusion([list(dense_rank), list(lexical_rank)], self._settings.rrf_k)
        return self._candidates(
            [key for key, _ in fused[:k]], [score for _, score in fused], dense_rank, lexical_rank
        )

    def similar(
        self, product_ids: Sequence[str], *, k: int, filters: Filters
    ) -> tuple[Candidate, ...]:
        """Return at most k products near the mean of the given ones, themselves included.

        Unknown ids are passed over; with none left the answer is empty. The score is the cosine
        to the mean of the vectors.
        """
        rows = self._table.rows_of_ids(product_ids)
        keys = np.intersect1d(self._table.keys[rows[rows >= 0]], self._vectors.keys)
        if not len(keys):
            return ()
        mean = self._vectors.vectors(keys).mean(axis=0)
        mean /= max(float(np.linalg.norm(mean)), 1e-12)
        dense, scores = self._vectors.search(mean, k, self._allowed(filters))
        return self._candidates(dense.tolist(), scores.tolist(), _ranks(dense), {})

    def matching(
        self, query: str, product_ids: Sequence[str], *, filters: Filters
    ) -> tuple[Product, ...]:
        """Return those of the given products that hold every word of a query, in their order.

        Where hundreds of products match alike, the cut of recall is arbitrary among them; this
        finds a shopper's own products again.
        """
        rows = self._table.lookup.rows(product_ids)
        rows = rows[rows >= 0]
        rows = rows[self._table.mask(filters)[rows]] if filters else rows
        held = self._lexical.holding(query, self._table.texts(rows))
        return self._table.products(rows[np.array(held, np.bool_)])

    def browse(self, *, k: int, filters: Filters) -> tuple[Product, ...]:
        """Return at most k products that meet the filters, in the catalogue's order."""
        return self._table.products(np.flatnonzero(self._table.mask(filters))[:k])

    def products(self, product_ids: Sequence[str]) -> tuple[Product | None, ...]:
        """Return the products of the given ids in the same order, None where there is none."""
        rows = self._table.rows_of_ids(product_ids)
        found = iter(self._table.products(rows[rows >= 0]))
        return tuple(next(found) if row >= 0 else None for row in rows)

    def _allowed(self, filters: Filters) -> IntArray | None:
        if not filters and self._in_step:
            return None
        keys: IntArray = self._table.keys[self._table.mask(filters)]
        return keys if self._in_step else np.intersect1d(keys, self._vectors.keys)

    def _still_allowed(self, keys: IntArray, filters: Filters) -> IntArray:
        """Drop what the catalogue of now lacks or the filters no longer admit."""
        if self._in_step and not filters:
            return keys
        rows = self._table.rows_of_keys(keys)
        kept: npt.NDArray[np.bool_] = rows >= 0
        if filters:
            kept[kept] = self._table.mask(filters)[rows[kept]]
        return keys[kept]

    def _candidates(
        self,
        keys: Sequence[int],
        scores: Sequence[float],
        dense_rank: dict[int, int],
        lexical_rank: dict[int, int],
    ) -> tuple[Candidate, ...]:
        rows = self._table.rows_of_keys(keys)
        products = self._table.products(rows)
        # The shopper's interest in them is asked for next, by their ids.
        self._table.lookup.remember([one.product_id for one in products], rows.tolist())
        return tuple(
            Candidate(
                product=product,
                recall_rank=rank,
                recall_score=score,
                dense_rank=dense_rank.get(key),
                lexical_rank=lexical_rank.get(key),
            )
            for rank, (product, key, score) in enumerate(
                zip(products, keys, scores, strict=False), start=1
            )
        )


class _Once(Generic[Made]):
    """Calls a function once, whoever asks first; the others wait for what it returns or raises."""

    def __init__(self, act: Callable[[], Made]) -> None:
        self._act = act
        self._made: Future[Made] = Future()
        self._claim = Lock()

    def __call__(self) -> Made:
        if self._claim.acquire(blocking=False):
            try:
                self._made.set_result(self._act())
            except BaseException as error:
                self._made.set_exception(error)
        return self._made.result()


def _ranks(keys: IntArray) -> dict[int, int]:
    return {key: rank for rank, key in enumerate(keys.tolist(), start=1)}
