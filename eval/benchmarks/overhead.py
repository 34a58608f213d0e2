"""What a search costs beside the language model, at the size of a large shop."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import anyio
import numpy as np
from pydantic import Field

from eval.benchmarks.profiles import PRIVACY, product_name, user_name
from eval.benchmarks.recall import Latency, spread
from reranker.errors import ConfigError
from reranker.learned_interest.learning import learn_interest
from reranker.learned_interest.stored import StoredInterest
from reranker.pipeline import Reranker
from reranker.ports import LanguageModel, Progress, no_progress
from reranker.schema import Product, Prompt, SearchRequest, SlotScores, Timings, Value
from reranker.settings import RetrievalSettings
from retrieval.behaviour import BehaviourStore
from retrieval.embedder import Embedder
from retrieval.embedding_cache import EmbeddingCache
from retrieval.hybrid import build_index
from retrieval.index_store import IndexStore
from retrieval.product_table import ProductTable

OpenShop = Callable[[Path, LanguageModel], Reranker]
"""Opens the shop of a store folder, whose catalogue is ``catalogue/products.arrow``, for search."""

_AT = datetime(2026, 1, 1, tzinfo=UTC)
_WARM_UP = 300
"""Searches of other shoppers for other things that a service has behind it when it is timed."""
_MODEL_WARM_UP = 3
_ANSWER_S = 0.02
"""Assumed; that it is not nothing matters: meanwhile the items behind are made."""
_BATCH = 100_000


class SearchOverhead(Value):
    """Milliseconds of whole searches less the wait for the language model, one after the other.

    Attributes:
        overhead: everything but the language model, embedding the query included.
        elsewhere: the same of a model that has emptied no cache of this processor, as one on
            another machine: its answers come after 20 ms, all alike.
        learning_s: seconds to learn the interest of all shoppers, from so many purchases.
        embed_query: of that, embedding a query that was not seen before.
        recall: of that, recall as a whole.
        profile: of that, the shopper's profile.
        prompt: of that, making the prompts.
        blend: of that, the final order.
        model: beside it, the wait for the language model.
    """

    products: int
    events: int
    searches: int = Field(ge=1)
    candidates: int
    overhead: Latency
    elsewhere: Latency
    learning_s: float
    purchases: int
    embed_query: Latency
    recall: Latency
    profile: Latency
    prompt: Latency
    blend: Latency
    model: Latency


def search_overhead(
    store: Path,
    real: Sequence[Product],
    queries: Sequence[str],
    searches: int,
    *,
    embedder: Embedder,
    model: LanguageModel,
    open_shop: OpenShop,
    settings: RetrievalSettings,
    products: int = 1_000_000,
    shoppers: int = 100_000,
    progress: Progress = no_progress,
) -> SearchOverhead:
    """Build a large shop in a folder, unless it is there, and time searches in it.

    Products are the real ones over and over, each with a number of its own in its text; their
    vectors are `eval.benchmarks.recall.spread`, put into the embedding cache, so that the real
    build takes them from there. Behaviour is what `eval.benchmarks.profiles` imported there.

    Each search has a query and a shopper that none had before, unless there are too few queries.

    Args:
        store: folder in which `benchmark_profiles` has run.
        real: products of a real catalogue.
        queries: taken one after the other, from the first again where they do not suffice, by
            shoppers drawn evenly.
        searches: that are timed of each kind.
        embedder: of queries and products.
        model: asked for real: what it does to caches and cores belongs to the measurement.
        open_shop: opens the store with that embedder and a model.
        settings: of the index.
        products: number of products.
        shoppers: number of shoppers in the behaviour store.
        progress: told what is being done.
    """
    table = _catalogue(store, real, products, progress)
    _fill_cache(store, table, real, embedder, progress)
    build_index(store, table, embedder, settings, progress=progress)
    with BehaviourStore(store, read_only=True, privacy=PRIVACY) as behaviour:
        events = behaviour.count()
        started = time.perf_counter()
        stored = StoredInterest(store / "interest")
        learnt = learn_interest(behaviour, table, stored, _AT, progress=progress)
        learning_s = time.perf_counter() - started
    count = _WARM_UP + _MODEL_WARM_UP + 2 * searches
    users = np.random.default_rng(1).choice(shoppers, count, replace=shoppers < count).tolist()
    asked = iter(
        SearchRequest(query=queries[number % len(queries)], user_id=user_name(user), at=_AT)
        for number, user in enumerate(users)
    )
    asks = _Elsewhere(model)
    with open_shop(store, asks) as shelf:

        def searched(stage: str, number: int) -> list[tuple[float, Timings]]:
            return _searched(shelf, list(islice(asked, number)), stage, progress)

        searched("warming up", _WARM_UP)
        elsewhere = searched("searching, the model elsewhere", searches)
        asks.here = True
        searched("warming the model up", _MODEL_WARM_UP)
        measured = searched("searching", searches)
        candidates = len(shelf.recall(SearchRequest(query=queries[0], at=_AT)))
    return SearchOverhead(
        products=len(table),
        events=events,
        searches=len(measured),
        candidates=candidates,
        overhead=_latency([wall - timings.model_ms for wall, timings in measured]),
        elsewhere=_latency([wall - timings.model_ms for wall, timings in elsewhere]),
        learning_s=learning_s,
        purchases=learnt.purchases,
        embed_query=_time_queries(embedder, queries[:searches]),
        recall=_latency([timings.recall_ms for _, timings in measured]),
        profile=_latency([timings.profile_ms for _, timings in measured]),
        prompt=_latency([timings.prompt_ms for _, timings in measured]),
        blend=_latency([timings.rank_ms for _, timings in measured]),
        model=_latency([timings.model_ms for _, timings in measured]),
    )


class _Elsewhere:
    """A model that is asked when it is ``here``; else its answers come after a while, all alike."""

    def __init__(self, model: LanguageModel) -> None:
        self.here = False
        self.spec = model.spec
        self.tokenizer = model.tokenizer
        self._model = model

    def with_adapter(self, name: str) -> "_Elsewhere":
        raise ConfigError(f"adapter {name}: there is none here")

    async def read(
        self, prompts: Sequence[Prompt], *, scope: str | None = None, seconds: float = math.inf
    ) -> tuple[SlotScores, ...]:
        if self.here:
            return await self._model.read(prompts, scope=scope, seconds=seconds)
        await anyio.sleep(_ANSWER_S)
        return tuple(SlotScores(logprobs=(-1.0,) * len(prompt.order)) for prompt in prompts)

    async def write(self, prompts: Sequence[Prompt], **asked: Any) -> tuple[str, ...]:
        if self.here:
            return await self._model.write(prompts, **asked)
        await anyio.sleep(_ANSWER_S)
        return ("",) * len(prompts)

    async def aclose(self) -> None:
        """Hold nothing."""


def _searched(
    shelf: Reranker, asked: Sequence[SearchRequest], stage: str, progress: Progress
) -> list[tuple[float, Timings]]:
    """Return the milliseconds and timings of searches."""
    rows = []
    for place, request in enumerate(asked):
        progress(stage, place, len(asked))
        started = time.perf_counter()
        result = shelf.search(request)
        rows.append(((time.perf_counter() - started) * 1000, result.timings))
    progress(stage, len(asked), len(asked))
    return rows


def _catalogue(
    store: Path, real: Sequence[Product], count: int, progress: Progress
) -> ProductTable:
    file = store / "catalogue" / "products.arrow"
    if not file.exists() or len(ProductTable.open(file)) != count:
        table, *_ = ProductTable.empty().upsert(_variants(real, count, progress))
        table.save(file)
    return ProductTable.open(file)


def _variants(real: Sequence[Product], count: int, progress: Progress) -> Iterator[Product]:
    for number in range(count):
        if number % _BATCH == 0:
            progress("making products", number, count)
        update = {
            "product_id": product_name(number),
            "description": f"Variant {number // len(real)}.",
        }
        yield real[number % len(real)].model_copy(update=update)
    progress("making products", count, count)


def _fill_cache(
    store: Path,
    table: ProductTable,
    real: Sequence[Product],
    embedder: Embedder,
    progress: Progress,
) -> None:
    folder = IndexStore(store).embeddings(embedder.fingerprint)
    cache = EmbeddingCache(folder, embedder.fingerprint, embedder.dimension)
    if not len(cache.missing(table.text_hashes)):
        return
    texts = [f"{p.title}\n{p.brand or ''}\n{p.category or ''}" for p in real]
    vectors = embedder.encode(
        texts, progress=lambda done, total: progress("embedding real products", done, total)
    )
    many = spread(np.unique(vectors, axis=0), len(table))
    for start in range(0, len(table), _BATCH):
        cache.put(table.text_hashes[start : start + _BATCH], many[start : start + _BATCH])


def _time_queries(embedder: Embedder, queries: Sequence[str]) -> Latency:
    times = []
    for query in queries:
        started = time.perf_counter()
        embedder.encode_query(f"{query} again")
        times.append((time.perf_counter() - started) * 1000)
    return _latency(times)


def _latency(milliseconds: Sequence[float]) -> Latency:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    return Latency(p50_ms=float(p50), p95_ms=float(p95))
