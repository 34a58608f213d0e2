"""How fast products are embedded, and what the approximate vector index gives up for its speed."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from pydantic import Field

from reranker.quiet import quiet_transformers
from reranker.schema import Product, Value
from retrieval.embedder import Embedder, SentenceTransformerEmbedder, Vectors
from retrieval.embedding_cache import EmbeddingCache
from retrieval.faiss_index import VectorIndex
from retrieval.faiss_training import faiss
from retrieval.index_build import TUNING_QUERIES, embed_products, short_texts
from retrieval.product_table import IntArray, ProductTable

DEPTH = 100
_NEIGHBOURS = 8
_BATCH = 50_000
_TIE = 1e-5


class EmbeddingSpeed(Value):
    """Embedding through the index build against the bare library, in one run on one machine.

    Attributes:
        texts: distinct product texts a round.
        ours: products a second through the build's embedding stage, cache files included.
        bare: texts a second of `SentenceTransformer.encode` with the same type of numbers.
        bare_float32: texts a second of `SentenceTransformer.encode` as it comes.
        ratio: ours to bare, the median over rounds.
        ratio_float32: ours to bare_float32, the median over rounds.
    """

    texts: int
    rounds: int
    bfloat16: bool
    ours: float
    bare: float
    bare_float32: float
    ratio: float
    ratio_float32: float


class Latency(Value):
    """Milliseconds of single searches, one after the other on one thread."""

    p50_ms: float
    p95_ms: float


class ApproximateRecall(Value):
    """What the approximate index finds of the true hundred nearest, and how fast.

    Attributes:
        products: vectors in the index.
        real: how many of them are embeddings of real texts; the others lie between those.
        queries: held-out queries that were measured; none of them tuned the index.
        recall: recall@100 against exact search.
        worst: recall@100 of the worst query.
        tuned: recall@100 that the index itself reports from its tuning.
    """

    products: int
    real: int
    queries: int
    cells: int
    nprobe: int
    recall: float = Field(ge=0, le=1)
    worst: float = Field(ge=0, le=1)
    tuned: float
    approximate: Latency
    exact: Latency
    build_seconds: float


def embedding_speed(
    texts: Sequence[str], model: Path, *, batch_size: int = 64, rounds: int = 7
) -> EmbeddingSpeed:
    """Compare the embedding stage of a build with the bare library.

    Each round runs all three on the same texts, in turn first and last, and the ratio is taken
    inside a round, so that a machine that slows down meanwhile does not favour one; many short
    rounds do that better than a few long ones. One round before them is not counted, as torch
    prepares its kernels for each new shape of a batch.

    Args:
        texts: of products; equal ones count once.
        model: folder of a sentence-transformers model.
        batch_size: for all of them.
        rounds: odd, at best; each starts with an empty cache.
    """
    from sentence_transformers import SentenceTransformer

    embedder = SentenceTransformerEmbedder(model, batch_size=batch_size)
    with quiet_transformers():
        bare = SentenceTransformer(str(model))
    distinct = list(dict.fromkeys(texts))
    products = (Product(product_id=str(n), title=text) for n, text in enumerate(distinct))
    table = ProductTable.empty().upsert(products)[0]
    rows = np.arange(len(table), dtype=np.int64)

    def encode(bfloat16: bool) -> None:
        import torch

        device = bare.device.type
        with torch.autocast(device, dtype=torch.bfloat16) if bfloat16 else nullcontext():
            bare.encode(table.texts(rows), batch_size=batch_size, show_progress_bar=False)

    contestants: dict[str, Callable[[], object]] = {
        "ours": lambda: _embed_once(table, rows, embedder),
        "bare": lambda: encode(embedder.bfloat16),
        "bare_float32": lambda: encode(False),
    }
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name in sorted(contestants, reverse=bool(number % 2)):
            started = perf_counter()
            contestants[name]()
            rates[name].append(len(distinct) / (perf_counter() - started))
    for values in rates.values():
        del values[0]
    return EmbeddingSpeed(
        texts=len(distinct),
        rounds=rounds,
        bfloat16=embedder.bfloat16,
        ratio=_ratio(rates["ours"], rates["bare"]),
        ratio_float32=_ratio(rates["ours"], rates["bare_float32"]),
        **{name: median(values) for name, values in rates.items()},
    )


def approximate_recall(
    texts: Sequence[str],
    queries: Sequence[str],
    embedder: Embedder,
    *,
    products: int = 1_000_000,
    ann_recall: float = 0.99,
) -> ApproximateRecall:
    """Measure recall@100 and latency of the approximate index against exact search.

    The index is tuned as in a build, with the beginnings of product texts; ``queries`` are kept
    out of that. Products of equal score are equally good: a result counts if it scores no less
    than the true hundredth. Needs about five times the size of the vectors in memory.

    Args:
        texts: of real products; `spread` makes the other vectors out of them.
        queries: like those that shoppers write.
        embedder: for both.
        products: number of vectors in the index.
        ann_recall: what the index is tuned to.
    """
    real = embedder.encode(list(dict.fromkeys(texts)))
    vectors = spread(real, products)
    keys = np.arange(products, dtype=np.int64)
    tuning = short_texts(texts[:: max(1, len(texts) // TUNING_QUERIES)])
    measured = np.stack([embedder.encode_query(query) for query in dict.fromkeys(queries)])
    started = perf_counter()
    index = VectorIndex.build(
        keys,
        vectors,
        fingerprint=embedder.fingerprint,
        exact_limit=0,
        ann_recall=ann_recall,
        queries=np.stack([embedder.encode_query(text) for text in tuning]),
    )
    seconds = perf_counter() - started
    found, approximate = _search_all(index, measured)
    exact = VectorIndex.build(
        keys, vectors, fingerprint=embedder.fingerprint, exact_limit=products, ann_recall=1
    )
    best, exact_latency = _search_all(exact, measured)
    recalls = [
        float((vectors[mine] @ query >= vectors[true[-1]] @ query - _TIE).sum() / len(true))
        for mine, true, query in zip(found, best, measured, strict=True)
    ]
    return ApproximateRecall(
        products=products,
        real=min(len(real), products),
        queries=len(measured),
        cells=index.manifest.cells,
        nprobe=index.manifest.nprobe,
        recall=float(np.mean(recalls)),
        worst=min(recalls),
        tuned=index.manifest.recall,
        approximate=approximate,
        exact=exact_latency,
        build_seconds=seconds,
    )


def spread(real: Vectors, count: int, *, noise: float = 0.05, seed: int = 0) -> Vectors:
    """Make many vectors out of fewer real ones, shape (count, dimension), each of length 1.

    The first are the real ones. Each of the others lies at a random place between a real vector
    and one of its 8 nearest neighbours, plus Gaussian noise of length ``noise``. This keeps the
    clusters of the real catalogue and makes them denser, as a larger shop with the same range
    would. It is no substitute for a million real products: their tail of rare things is missing.
    """
    rng = np.random.default_rng(seed)
    _, near = faiss.knn(real, real, _NEIGHBOURS + 1, metric=faiss.METRIC_INNER_PRODUCT)
    dimension = real.shape[1]
    vectors = np.empty((count, dimension), np.float32)
    vectors[: len(real)] = real[:count]
    for start in range(len(real), count, _BATCH):
        size = min(_BATCH, count - start)
        one = rng.integers(len(real), size=size)
        other = near[one, rng.integers(1, near.shape[1], size=size)]
        share = rng.random((size, 1), dtype=np.float32)
        mixed = real[one] * (1 - share) + real[other] * share
        mixed += rng.standard_normal(mixed.shape, dtype=np.float32) * (noise / dimension**0.5)
        mixed /= np.linalg.norm(mixed, axis=1, keepdims=True)
        vectors[start : start + size] = mixed
    return vectors


def _embed_once(table: ProductTable, rows: IntArray, embedder: Embedder) -> None:
    with TemporaryDirectory() as folder:
        cache = EmbeddingCache(Path(folder), embedder.fingerprint, embedder.dimension)
        embed_products(table, rows, cache, embedder)


def _ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return median(one / other for one, other in zip(ours, theirs, strict=True))


def _search_all(index: VectorIndex, queries: Vectors) -> tuple[list[IntArray], Latency]:
    found, milliseconds = [], []
    for query in queries:
        started = perf_counter()
        found.append(index.search(query, DEPTH)[0])
        milliseconds.append(1000 * (perf_counter() - started))
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return found, Latency(p50_ms=float(p50), p95_ms=float(p95))
