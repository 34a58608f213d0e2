"""The path of one request: profile and recall, the model's judgement, the blend, the result."""

import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from types import TracebackType
from typing import Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from reranker.errors import DataError
from reranker.fusion import Blend
from reranker.listwise import ListwiseRanker
from reranker.ports import CandidateIndex, ProfileStore, Recommender
from reranker.schema import (
    Candidate,
    Filters,
    Issue,
    RerankResult,
    SearchRequest,
    Timings,
    UserProfile,
)
from reranker.settings import Settings
from reranker.workers import in_worker

_MOST_KEPT_BACK = 0.25
_FADING = 0.98


@dataclass(frozen=True)
class _Found:
    """What was looked up for a request, and how long that took."""

    profile: UserProfile | None
    candidates: tuple[Candidate, ...]
    profile_ms: float
    recall_ms: float


class Reranker:
    """Searches and re-ranks. Build one with `reranker.build`; it serves many requests at once.

    The asynchronous methods are `asearch` and `arerank`; `search` and `rerank` do the same for
    synchronous callers, also where an event loop runs already, as in a notebook. Use it as a
    context manager, or call `close`, to let go of the model.
    """

    def __init__(
        self,
        *,
        index: CandidateIndex,
        recommender: Recommender,
        profiles: ProfileStore | None,
        ranker: ListwiseRanker,
        settings: Settings,
        resources: ExitStack | None = None,
        owns_model: bool = False,
    ) -> None:
        """Take the parts.

        Args:
            index: of the catalogue.
            recommender: for requests without a query.
            profiles: of the shoppers; None where there is no behaviour.
            ranker: asks the language model.
            settings: of recall, ranking and blend.
            resources: closed with this.
            owns_model: whether closing this closes the ranker's model.
        """
        self._index = index
        self._recommender = recommender
        self._profiles = profiles
        self._ranker = ranker
        self._settings = settings
        self._resources = resources or ExitStack()
        self._owns_model = owns_model
        self._finishing = _Finishing()
        self._portal: BlockingPortal | None = None
        self._lock = Lock()

    def search(self, request: SearchRequest) -> RerankResult:
        """Recall candidates for a request and rank them; see `asearch`."""
        return self._blocking().call(self.asearch, request)

    def rerank(self, request: SearchRequest, candidates: Sequence[Candidate]) -> RerankResult:
        """Rank the caller's own candidates; see `arerank`."""
        return self._blocking().call(self.arerank, request, candidates)

    def recall(self, request: SearchRequest) -> tuple[Candidate, ...]:
        """Return what a search would hand to the model and the blend, in recall order.

        Raises:
            DataError: the store is damaged.
        """
        return self._look_up(request).candidates

    def profile(self, user_id: str, at: datetime | None = None) -> UserProfile | None:
        """Return what is known of a shopper from events strictly before a moment (default: now).

        None means that there is no event, or that the shop's behaviour has not been imported.
        """
        if self._profiles is None:
            return None
        return self._profiles.profile(user_id, at or datetime.now(UTC))

    async def asearch(self, request: SearchRequest) -> RerankResult:
        """Recall candidates for a request and rank them for its shopper.

        Returns:
            Every candidate exactly once: those that recall found, the last of them giving way to
            the shopper's own products that match the query. ``query=None`` recommends.

        Raises:
            DataError: the store is damaged. A failing model is no error: see ``outcome``.
        """
        started = time.monotonic()
        found = await in_worker(self._look_up, request)
        depth = self._settings.ranking.depth or len(found.candidates)
        # What is shown has been judged: the first k, even where fewer would be by the setting.
        return await self._rank(request, found, started, depth=max(depth, request.k))

    async def arerank(
        self, request: SearchRequest, candidates: Sequence[Candidate]
    ) -> RerankResult:
        """Rank candidates that the caller recalled, for the request's shopper.

        Args:
            request: its filters are the caller's business: nothing is removed.
            candidates: best first; each product once.

        Raises:
            DataError: a product stands in the candidates twice.
        """
        started = time.monotonic()
        counts = Counter(candidate.product.product_id for candidate in candidates)
        for product_id, count in counts.items():
            if count > 1:
                raise DataError(f"the candidates hold product {product_id!r} {count} times")
        profile = await in_worker(self._profile, request)
        found = _Found(profile, tuple(candidates), profile_ms=_since(started), recall_ms=0.0)
        return await self._rank(request, found, started, depth=len(candidates))

    def _look_up(self, request: SearchRequest) -> "_Found":
        """Find the profile and the candidates.

        A search by a query goes on beside the profile.
        """
        started = time.monotonic()
        depth = max(self._settings.retrieval.candidates, request.k)
        begun = None
        if request.query is not None:
            begun = self._index.begin_search(request.query, k=depth, filters=request.filters)
        profile = self._profile(request)
        profile_ms = _since(started)
        if begun is None or request.query is None:
            candidates = self._recommender.recommend(
                profile, request.at, k=depth, filters=request.filters
            )
        else:
            candidates = begun()
            if profile is not None:
                candidates = self._with_history(request.query, request.filters, profile, candidates)
        recall_ms = _since(started) - profile_ms
        return _Found(profile, candidates, profile_ms=profile_ms, recall_ms=recall_ms)

    def _profile(self, request: SearchRequest) -> UserProfile | None:
        if self._profiles is None or request.user_id is None:
            return None
        return self._profiles.profile(request.user_id, request.at, self._ranker.language(request))

    def _with_history(
        self,
        query: str,
        filters: Filters,
        profile: UserProfile,
        candidates: tuple[Candidate, ...],
    ) -> tuple[Candidate, ...]:
        """Let the shopper's own products that match the query take the last places of recall.

        The number of candidates stays what it is if recall was cut; what recall found of them
        keeps its place. At most a fifth of the places is given away.
        """
        touched = [item.product_id for item in profile.repeat_purchases]
        touched += [item.product_id for item in profile.recent_items]
        found = {candidate.product.product_id for candidate in candidates}
        own = [product_id for product_id in dict.fromkeys(touched) if product_id not in found]
        depth = max(self._settings.retrieval.candidates, len(candidates))
        products = self._index.matching(query, own, filters=filters)[: max(depth // 5, 1)]
        kept = candidates[: depth - len(products)]
        return kept + tuple(
            Candidate(product=product, recall_rank=rank, recall_score=0.0, from_history=True)
            for rank, product in enumerate(products, start=len(kept) + 1)
        )

    async def _rank(
        self, request: SearchRequest, found: "_Found", started: float, *, depth: int
    ) -> RerankResult:
        limit = request.deadline_ms or self._settings.ranking.deadline_ms
        deadline = started + limit / 1000 if limit else math.inf
        waits_until = deadline - self._finishing.seconds(limit)
        blend = Blend(found.candidates, found.profile, self._settings.fusion)
        judged = await self._ranker.judge(
            request, found.profile, blend.candidates[:depth], deadline=waits_until
        )
        blended = time.monotonic()
        items = blend.items(judged.followed_by(len(found.candidates) - len(judged.places)))
        spec = self._ranker.model.spec
        behind = self._index.behind
        stale = (Issue(code="index_behind", detail=behind),) if behind else ()
        result = RerankResult(
            request_id=request.request_id,
            items=items,
            outcome=judged.outcome,
            issues=stale + judged.issues,
            personalised=judged.personalised,
            label_mass=judged.label_mass,
            instability=judged.instability,
            windows=judged.windows,
            rounds=judged.rounds,
            template=judged.template,
            model=spec.name,
            adapter=spec.adapter,
            deadline_hit=judged.deadline_hit,
            timings=Timings(
                profile_ms=found.profile_ms,
                recall_ms=found.recall_ms,
                prompt_ms=judged.prompt_ms,
                model_ms=judged.model_ms,
                rank_ms=_since(blended),
                total_ms=_since(started),
            ),
        )
        self._finishing.ended(waits_until)
        return result

    def _blocking(self) -> BlockingPortal:
        with self._lock:
            if self._portal is None:
                self._portal = self._resources.enter_context(start_blocking_portal())
            return self._portal

    def close(self) -> None:
        """Let go of the store, the thread behind the synchronous methods, and an own model."""
        if self._owns_model:
            self._blocking().call(self._ranker.model.aclose)
        with self._lock:
            self._portal = None
            self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class _Finishing:
    """How long it takes of late from giving up the wait for the model to the answer.

    On a busy machine that is more than the time of the computation: many requests may end at the
    same moment. So much sooner the wait ends, lest answers come after their deadlines.
    """

    def __init__(self) -> None:
        self._usual_s = 0.1  # as long as nothing is known: more than it takes but in a crowd

    def seconds(self, limit_ms: int | None) -> float:
        """Return the time to keep back, in seconds, of a deadline of so many milliseconds."""
        return min(self._usual_s, (limit_ms or 0) / 1000 * _MOST_KEPT_BACK)

    def ended(self, waited_until: float) -> None:
        """Learn from an answer after the end of the wait: the most of late counts, and fades."""
        seconds = time.monotonic() - waited_until
        if seconds > 0:
            self._usual_s = max(seconds, self._usual_s * _FADING)


def _since(started: float) -> float:
    return (time.monotonic() - started) * 1000
