"""Brings the index in line with the catalogue at the cost of what changed, and of nothing else."""

import logging
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import Field

from reranker.errors import DataError, IndexMismatchError
from reranker.ports import Progress, no_progress
from reranker.schema import CATEGORY_SEPARATOR, Value
from reranker.settings import RetrievalSettings
from retrieval.embedder import CountProgress, Embedder, Vectors
from retrieval.embedding_cache import EmbeddingCache
from retrieval.faiss_index import VectorIndex
from retrieval.index_store import Changes, Generation, IndexedRows, IndexStore, link_tree
from retrieval.lexical import LexicalIndex
from retrieval.product_table import IntArray, ProductTable
from retrieval.vector_manifest import Kind

_SHARD = 4096
_MOST_REMOVED = 0.2
TUNING_QUERIES = 512

logger = logging.getLogger(__name__)


class IndexReport(Value):
    """What a build did.

    Attributes:
        products: in the index now.
        embedded: texts that were computed; equal texts count once.
        reused: products that needed nothing computed, as their text was known.
        added: products that were not in the index.
        changed: products of which any field differs, even one that has no part in the text.
        removed: products that left the catalogue.
        recall: recall@100 of the vector index against exact search, measured when it was tuned.
        up_to_date: nothing had to be done.
    """

    products: int
    embedded: int = 0
    reused: int
    added: int = 0
    changed: int = 0
    removed: int = 0
    kind: Kind
    recall: Annotated[float, Field(ge=0, le=1)]
    seconds: float
    up_to_date: bool = False


class _Previous(NamedTuple):
    """The generation to start from, as far as it can be used."""

    generation: Generation | None
    rows: IndexedRows
    vectors: VectorIndex | None
    catalogue: str | None = None


def build_index(
    store: Path,
    table: ProductTable,
    embedder: Embedder,
    settings: RetrievalSettings,
    *,
    progress: Progress | None = None,
) -> IndexReport:
    """Bring the index of a store in line with a catalogue.

    Only texts that were never embedded by this model are computed, and only products that changed
    are replaced in the indexes; of words a whole index is built where a fifth would be left over
    from products that changed or went. The old index stays in use until the new one is complete; a
    build that was killed is taken up by the next, which repairs damaged files too.

    Args:
        store: the folder of the shop's data.
        table: the catalogue of now.
        embedder: makes the vectors; the vectors of several models can lie side by side.
        settings: ``exact_limit`` and ``ann_recall`` decide what kind of index it becomes.
        progress: is told the stage (``embed``, ``vectors``, ``lexical``), what is done, and all.

    Raises:
        DataError: another build is running.
    """
    started, progress = perf_counter(), progress or no_progress
    with IndexStore(store).building() as folder:
        previous = _previous(folder, table, embedder, settings)
        changes = Changes.between(previous.rows, table)
        same = previous.catalogue == table.identity and not any(len(part) for part in changes)
        if previous.vectors is not None and same:
            return _report(previous.vectors, changes, 0, started, up_to_date=True)
        rows = _to_embed(previous, changes, table)
        cache = EmbeddingCache(
            folder.embeddings(embedder.fingerprint), embedder.fingerprint, embedder.dimension
        )
        embedded = embed_products(table, rows, cache, embedder, progress)
        generation = folder.begin()
        vectors = previous.vectors
        if vectors is None:
            vectors = _new_vectors(table, cache, embedder, settings, progress)
            vectors.save(generation.vectors)
        elif previous.generation and not len(rows) and not len(changes.removed):
            link_tree(previous.generation.vectors, generation.vectors)
        else:
            vectors.remove(changes.removed)
            vectors.add(table.keys[rows], cache.get(table.text_hashes[rows]))
            vectors.save(generation.vectors)
        _update_lexical(previous.generation, generation, table, changes, progress)
        generation.describe(table, embedder)
        folder.publish(generation)
    return _report(vectors, changes, embedded, started)


def embed_products(
    table: ProductTable,
    rows: IntArray,
    cache: EmbeddingCache,
    embedder: Embedder,
    progress: Progress = no_progress,
) -> int:
    """Compute the vectors that the cache lacks for some rows, and return how many those were.

    They are stored in shards as they are made, so that a kill costs one shard at most.
    """
    hashes, first = np.unique(table.text_hashes[rows], return_index=True)
    todo = np.sort(rows[first[np.isin(hashes, cache.missing(hashes))]])
    for start in range(0, len(todo), _SHARD):
        shard = todo[start : start + _SHARD]
        tell = _counting_from(start, len(todo), progress)
        vectors = embedder.encode(table.texts(shard), progress=tell)
        cache.put(table.text_hashes[shard], vectors)
    return len(todo)


def short_texts(titles: Sequence[str]) -> list[str]:
    """Return the first one, two or three words of each title: as short as queries are.

    Short texts lie between the products, and their neighbours in many cells: an index that is
    tuned with whole titles in place of them promises more than it keeps.
    """
    return [" ".join(title.split()[: 1 + n % 3]) for n, title in enumerate(titles)]


def _counting_from(start: int, total: int, progress: Progress) -> CountProgress:
    return lambda done, _: progress("embed", start + done, total)


def _previous(
    folder: IndexStore, table: ProductTable, embedder: Embedder, settings: RetrievalSettings
) -> _Previous:
    generation = folder.current()
    if generation is None:
        return _Previous(None, IndexedRows.none(), None)
    try:
        catalogue = generation.manifest().catalogue_identity
        rows = generation.rows()
        LexicalIndex.open(generation.lexical).close()
    except (DataError, IndexMismatchError) as error:
        logger.warning("the index is built afresh: %s", error)
        return _Previous(None, IndexedRows.none(), None)
    try:
        vectors = VectorIndex.load(
            generation.vectors, fingerprint=embedder.fingerprint, dimension=embedder.dimension
        )
    except (DataError, IndexMismatchError) as error:
        logger.warning("the vector index is built afresh: %s", error)
        return _Previous(generation, rows, None)
    same_products = np.array_equal(vectors.keys, rows.keys)
    if not same_products or not vectors.fits(
        len(table), exact_limit=settings.exact_limit, ann_recall=settings.ann_recall
    ):
        return _Previous(generation, rows, None)
    return _Previous(generation, rows, vectors, catalogue)


def _to_embed(previous: _Previous, changes: Changes, table: ProductTable) -> IntArray:
    if previous.vectors is None:
        return np.arange(len(table), dtype=np.int64)
    return np.union1d(changes.added, changes.reworded)


def _new_vectors(
    table: ProductTable,
    cache: EmbeddingCache,
    embedder: Embedder,
    settings: RetrievalSettings,
    progress: Progress,
) -> VectorIndex:
    queries = _tuning_queries(table, embedder) if len(table) > settings.exact_limit else None
    return VectorIndex.build(
        table.keys,
        cache.get(table.text_hashes),
        fingerprint=embedder.fingerprint,
        exact_limit=settings.exact_limit,
        ann_recall=settings.ann_recall,
        queries=queries,
        progress=lambda done, total: progress("vectors", done, total),
    )


def _tuning_queries(table: ProductTable, embedder: Embedder) -> Vectors:
    sample = np.random.default_rng(0).choice(
        len(table), min(len(table), TUNING_QUERIES), replace=False
    )
    products = table.products(np.sort(sample))
    leaves = [(each.category or "").split(CATEGORY_SEPARATOR)[-1] for each in products]
    texts = short_texts([each.title for each in products])
    mixed = [leaf if leaf and n % 4 == 3 else texts[n] for n, leaf in enumerate(leaves)]
    return np.stack([embedder.encode_query(text) for text in mixed])


def _update_lexical(
    previous: Generation | None,
    generation: Generation,
    table: ProductTable,
    changes: Changes,
    progress: Progress,
) -> None:
    outdated = np.concatenate([changes.removed, table.keys[changes.changed]])
    rows = np.union1d(changes.added, changes.changed)
    if previous is None or _is_worn(previous, len(outdated), len(table)):
        index, rows = LexicalIndex.create(generation.lexical), np.arange(len(table))
    else:
        link_tree(previous.lexical, generation.lexical)
        index = LexicalIndex.open(generation.lexical)
        index.remove(outdated)
    index.add(table, rows, progress=lambda done, total: progress("lexical", done, total))
    index.commit()
    index.close()


def _is_worn(previous: Generation, outdated: int, products: int) -> bool:
    """Tell whether removed products would be more than a fifth of all that the word index holds.

    They count in the scores of the others, so that an index updated for ever ranks otherwise than
    one built anew. tantivy merges by size alone and on no request. Building it anew takes about
    four minutes a million products, but comes once for a quarter of them changed at most.
    """
    with LexicalIndex.open(previous.lexical) as index:
        removed = index.deleted() + outdated
    return removed > _MOST_REMOVED * (removed + products)


def _report(
    vectors: VectorIndex,
    changes: Changes,
    embedded: int,
    started: float,
    *,
    up_to_date: bool = False,
) -> IndexReport:
    return IndexReport(
        products=len(vectors),
        embedded=embedded,
        reused=len(vectors) - embedded,
        added=len(changes.added),
        changed=len(changes.changed),
        removed=len(changes.removed),
        kind=vectors.manifest.kind,
        recall=vectors.manifest.recall,
        seconds=perf_counter() - started,
        up_to_date=up_to_date,
    )
