"""Vectors of just those products that some cases need, kept on the disk for the next run."""

from pathlib import Path

import numpy as np

from eval.statistics.estimates import Integers
from reranker.ports import Progress
from retrieval.embedder import Embedder, Vectors
from retrieval.embedding_cache import EmbeddingCache
from retrieval.index_build import embed_products
from retrieval.index_store import IndexStore
from retrieval.product_table import ProductTable


class ProductVectors:
    """Embedded products by row of a table."""

    def __init__(
        self, table: ProductTable, rows: Integers, embedder: Embedder, work: Path, report: Progress
    ) -> None:
        """Embed what the cache in ``work`` lacks of some rows."""
        folder = IndexStore(work).embeddings(embedder.fingerprint)
        cache = EmbeddingCache(folder, embedder.fingerprint, embedder.dimension)
        self._rows = np.unique(rows)
        embed_products(table, self._rows, cache, embedder, report)
        self._vectors = cache.get(table.text_hashes[self._rows])

    def of(self, rows: Integers) -> Vectors:
        """Return the vectors of some of the rows, shape (rows, dimension)."""
        return self._vectors[np.searchsorted(self._rows, rows)]
