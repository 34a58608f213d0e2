"""The path of one request: profile and recall, the model's judgement, the blend, the result."""

import os
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from threading import Lock
from types import TracebackType
from typing import Any, Self

from anyio.from_thread import BlockingPortal, start_blocking_portal

from reranker.deadlines import Deadline, Finishing
from reranker.errors import DataError, ShelfwiseError
from reranker.fusion import Blend
from reranker.listwise import Asking, Judgement, ListwiseRanker
from reranker.look_up import Found, LookUp
from reranker.ports import CandidateIndex, InterestSource, ProfileStore, Recommender
from reranker.sales import with_sales
from reranker.schema import (
    Candidate,
    Issue,
    RerankResult,
    SearchRequest,
    Timings,
    UserProfile,
)
from reranker.settings import Settings
from reranker.workers import while_waiting

_CUT = "no time was left to look up the shopper, what is near in meaning, and the model's order"


@dataclass(frozen=True)
class _Begun:
    """A request about which everything has been looked up."""

    found: Found
    blend: Blend
    asking: Asking

    def prepared(self) -> Self:
        """Make the first prompts, too."""
        self.asking.prepare()
        return self


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
        interest: InterestSource | None = None,
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
            interest: learnt from all shoppers; None where none is.
            ranker: asks the language model.
            settings: of recall, ranking and blend.
            resources: closed with this.
            owns_model: whether closing this closes the ranker's model.
        """
        self._profiles = profiles
        self._look_up = LookUp(
            index=index,
            recommender=recommender,
            profiles=profiles,
            interest=interest,
            language=ranker.language,
            settings=settings.retrieval,
        )
        self._ranker = ranker
        self._settings = settings
        self._resources = resources or ExitStack()
        self._owns_model = owns_model
        self._finishing = Finishing()
        self._portal: BlockingPortal | None = None
        self._lock = Lock()
        self._closed = False
        self._process = os.getpid()

    def search(self, request: SearchRequest) -> RerankResult:
        """Recall candidates for a request and rank them; see `asearch`."""
        return self._wait_for(partial(self.asearch, request))

    def rerank(self, request: SearchRequest, candidates: Sequence[Candidate]) -> RerankResult:
        """Rank the caller's own candidates; see `arerank`."""
        return self._wait_for(partial(self.arerank, request, candidates))

    def recall(self, request: SearchRequest) -> tuple[Candidate, ...]:
        """Return what a search would hand to the model and the blend, in recall order.

        Raises:
            DataError: the store is damaged.
        """
        self._require_open()
        found = self._look_up.now(request)
        return with_sales(found.candidates, found.interest)

    def profile(self, user_id: str, at: datetime | None = None) -> UserProfile | None:
        """Return what is known of a shopper from events strictly before a moment (default: now).

        None means that there is no event, or that the shop's behaviour has not been imported.
        """
        self._require_open()
        if self._profiles is None:
            return None
        return self._profiles.profile(user_id, at or datetime.now(UTC))

    async def asearch(self, request: SearchRequest) -> RerankResult:
        """Recall candidates for a request and rank them for its shopper.

        Returns:
            Every candidate exactly once: those that recall found, the last of them giving way to
            the shopper's own products that match the query. ``query=None`` recommends.

        Raises:
            ConfigError: the request names an adapter, and the model takes none by name.
            DataError: the store is damaged. A failing model is no error: see ``outcome``; nor is
                behaviour in a database that does not answer: see ``issues``.
        """
        self._require_open()
        deadline = self._deadline(request)
        depth = self._settings.ranking.depth
        found, begun = await self._look_up.find(
            request,
            deadline,
            reserve=self._finishing.seconds(deadline),
            then=lambda found: self._begin(request, depth, found).prepared(),
        )
        begun = begun or self._begin(request, depth, found)
        return await self._finish(request, begun, deadline)

    async def arerank(
        self, request: SearchRequest, candidates: Sequence[Candidate]
    ) -> RerankResult:
        """Rank candidates that the caller recalled, for the request's shopper.

        Args:
            request: its filters are the caller's business: nothing is removed.
            candidates: best first; each product once.

        Raises:
            ConfigError: the request names an adapter, and the model takes none by name.
            DataError: a product stands in the candidates twice.
        """
        self._require_open()
        deadline = self._deadline(request)
        counts = Counter(candidate.product.product_id for candidate in candidates)
        for product_id, count in counts.items():
            if count > 1:
                raise DataError(f"the candidates hold product {product_id!r} {count} times")
        found, begun = await self._look_up.find_profile(
            request,
            candidates,
            deadline,
            reserve=self._finishing.seconds(deadline),
            then=lambda found: self._begin(request, 0, found).prepared(),
        )
        return await self._finish(request, begun or self._begin(request, 0, found), deadline)

    def _deadline(self, request: SearchRequest) -> Deadline:
        return Deadline.of(request.deadline_ms or self._settings.ranking.deadline_ms)

    def _begin(self, request: SearchRequest, depth: int, found: Found) -> _Begun:
        """Put what was found in order.

        Args:
            request: the request.
            depth: number of candidates that the model judges; 0 for all.
            found: what was looked up.
        """
        blend = Blend(found.candidates, found.profile, found.interest, self._settings.fusion)
        # What is shown has been judged: the first k, even where fewer would be by the setting.
        shown = blend.shown(max(depth, request.k) if depth else None)
        return _Begun(found, blend, self._ranker.begin(request, found.profile, shown))

    async def _finish(
        self, request: SearchRequest, begun: _Begun, deadline: Deadline
    ) -> RerankResult:
        if begun.found.given_up_at is not None:
            return self._unjudged(request, begun, deadline, begun.found.given_up_at)
        began = time.monotonic()
        waits_until = deadline.ends - self._finishing.seconds(deadline)
        with while_waiting(begun.blend.prepare if begun.blend.hidden else None):
            judged = await begun.asking.judgement(deadline=waits_until)
        result = self._result(request, begun, judged, deadline)
        self._finishing.ended(max(waits_until, began), deadline)
        return result

    def _unjudged(
        self, request: SearchRequest, begun: _Begun, deadline: Deadline, given_up_at: float
    ) -> RerankResult:
        """Answer a request whose time went by in the look-up, without asking the model."""
        judged = Judgement.nothing(len(begun.found.candidates)).model_copy(
            update={"issues": (Issue(code="look_up_cut", detail=_CUT),), "deadline_hit": True}
        )
        result = self._result(request, begun, judged, deadline)
        self._finishing.ended(given_up_at, deadline)
        return result

    def _result(
        self,
        request: SearchRequest,
        begun: _Begun,
        judged: Judgement,
        deadline: Deadline,
    ) -> RerankResult:
        blended = time.monotonic()
        found = begun.found
        items = begun.blend.items(judged.followed_by(len(found.candidates) - len(judged.places)))
        spec = self._ranker.model.spec
        behind = self._look_up.behind
        stale: tuple[Issue, ...] = (Issue(code="index_behind", detail=behind),) if behind else ()
        if fault := self._look_up.interest_fault:
            stale += (Issue(code="interest_unavailable", detail=fault),)
        return RerankResult(
            request_id=request.request_id,
            items=items,
            outcome=judged.outcome,
            issues=stale + found.issues + judged.issues,
            personalised=judged.personalised,
            label_mass=judged.label_mass,
            instability=judged.instability,
            windows=judged.windows,
            rounds=judged.rounds,
            template=judged.template,
            model=spec.name,
            adapter=request.adapter or spec.adapter,
            deadline_hit=judged.deadline_hit,
            timings=Timings(
                profile_ms=found.profile_ms,
                recall_ms=found.recall_ms,
                prompt_ms=judged.prompt_ms,
                model_ms=judged.model_ms,
                rank_ms=(time.monotonic() - blended) * 1000,
                total_ms=deadline.since(),
            ),
        )

    def _wait_for(self, act: Callable[[], Coroutine[Any, Any, RerankResult]]) -> RerankResult:
        """Do something in the event loop; who stops waiting, as by Ctrl-C, ends it."""
        doing = self._begun(act)
        try:
            result: RerankResult = doing.result()
        except BaseException:
            doing.cancel()
            raise
        return result

    def _begun(self, act: Callable[[], Coroutine[Any, Any, RerankResult]]) -> Future[RerankResult]:
        with self._lock:
            self._require_open()
            if self._portal is None:
                self._portal = self._resources.enter_context(start_blocking_portal())
            return self._portal.start_task_soon(act)

    def _require_open(self) -> None:
        if self._process != os.getpid():
            raise ShelfwiseError(
                "this Reranker was built before the process was forked, and its threads are not "
                "here: build one in each process"
            )
        if self._closed:
            raise ShelfwiseError("this Reranker is closed: build another")

    def close(self) -> None:
        """Let go of the store, the thread behind the synchronous methods, and an own model.

        What has begun in the store ends first; a request that wants to begin is refused.
        """
        if self._process != os.getpid():  # the lock may have been held when it forked
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        # From here on nobody else has to do with the loop.
        if self._owns_model:
            loop = self._portal or self._resources.enter_context(start_blocking_portal())
            loop.call(self._ranker.model.aclose)
        self._look_up.close()
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
