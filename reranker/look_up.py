"""What a request begins with: the shopper's profile and the candidates, in the time that there is.

A look-up computes on this machine, one request after the other. Where more come than it can do in
time, each waits for its turn at most half of its deadline, so that what is left is enough to ask
the model. One that has had no turn by then, or no end in time, takes the short way: candidates by
words alone, and nothing about the shopper.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event
from typing import TypeVar

from reranker.deadlines import Deadline
from reranker.errors import StoreUnavailable
from reranker.own_products import own_products, with_own
from reranker.ports import CandidateIndex, InterestSource, ProfileStore, Recommender
from reranker.recommendations import BEHAVIOUR_UNAVAILABLE, Recommendations
from reranker.schema import (
    Candidate,
    Issue,
    Language,
    Product,
    ProductInterest,
    SearchRequest,
    UserProfile,
)
from reranker.settings import RetrievalSettings
from reranker.workers import TooLate, UnderWay, in_spare_thread, in_turn, in_worker

_TURN_WITHIN = 0.5

_Made = TypeVar("_Made")
_Known = tuple[UserProfile | None, tuple[Issue, ...]]
"""What is known of a shopper, and why it is nothing."""
_NOBODY: _Known = (None, ())
_INTEREST_CUT = Issue(
    code="interest_unavailable",
    detail="no time was left to look up what all shoppers' behaviour tells",
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What was looked up for a request, and how long that took.

    Attributes:
        given_up_at: moment of `time.monotonic` from which on nothing was waited for, where the
            short way was taken; None where everything was looked up.
        issues: why nothing is known of the shopper, where the database does not answer.
        interest: one a candidate, what all shoppers' behaviour tells; None where nothing is known.
    """

    profile: UserProfile | None
    candidates: tuple[Candidate, ...]
    profile_ms: float
    recall_ms: float
    given_up_at: float | None = None
    issues: tuple[Issue, ...] = ()
    interest: tuple[ProductInterest, ...] | None = None


class LookUp:
    """Looks up what requests are about."""

    def __init__(
        self,
        *,
        index: CandidateIndex,
        recommender: Recommender,
        profiles: ProfileStore | None,
        interest: InterestSource | None,
        language: Callable[[SearchRequest], Language],
        settings: RetrievalSettings,
    ) -> None:
        """Take the parts.

        Args:
            index: of the catalogue.
            recommender: for requests without a query.
            profiles: of the shoppers; None where there is no behaviour.
            interest: learnt from all shoppers; None where none is.
            language: tells the language of a request's prompts.
            settings: of recall.
        """
        self._index = index
        self._recommendations = Recommendations(recommender, profiles, interest)
        self._profiles = profiles
        self._interest = interest
        self._language = language
        self._settings = settings
        self._under_way = UnderWay()

    @property
    def behind(self) -> str | None:
        """Say in what the index lags behind the catalogue; None if in nothing."""
        return self._index.behind

    @property
    def interest_fault(self) -> str | None:
        """Say why the interest learnt last is not in use; None if it is."""
        return self._interest.fault if self._interest is not None else None

    async def find(
        self,
        request: SearchRequest,
        deadline: Deadline,
        *,
        reserve: float,
        then: Callable[[Found], _Made],
    ) -> tuple[Found, _Made | None]:
        """Find the profile and the candidates, or what the short way gives.

        Args:
            request: the search.
            deadline: of it.
            reserve: seconds of the deadline that what follows needs.
            then: goes on with them in the same thread, whose caches hold them.

        Returns:
            What was found, and what ``then`` made of it; None where there was no time for that.
        """
        try:
            return await _in_turn(lambda: self.now(request), then, _limits(deadline, reserve))
        except TooLate:
            return await self._short_way(request, deadline.ends - reserve), None

    async def find_profile(
        self,
        request: SearchRequest,
        candidates: Sequence[Candidate],
        deadline: Deadline,
        *,
        reserve: float,
        then: Callable[[Found], _Made],
    ) -> tuple[Found, _Made | None]:
        """Find the profile beside candidates that are known; else see `find`."""
        started = time.monotonic()
        given = tuple(candidates)
        stranger = self._profiles is None or request.user_id is None
        if stranger and not (self._interest and self._interest.knows(request.at)):
            return Found(None, given, profile_ms=_since(started), recall_ms=0.0), None
        try:
            limits = _limits(deadline, reserve)
            return await _in_turn(lambda: self._around(request, given), then, limits)
        except TooLate:
            found = Found(None, given, profile_ms=_since(started), recall_ms=0.0)
            if not stranger:
                return replace(found, given_up_at=time.monotonic()), None
            # Of a stranger nothing needful is missing.
            lost = self._interest is not None and self._interest.knows(request.at)
            return replace(found, issues=(_INTEREST_CUT,) if lost else ()), None

    def now(self, request: SearchRequest) -> Found:
        """Find the profile and the candidates in this thread.

        A search by a query goes on beside the profile and what follows from that.
        """
        with self._under_way:
            return self._everything(request)

    def close(self) -> None:
        """Begin nothing more, and wait for the end of what has begun: the store can be closed."""
        self._under_way.end()

    def _everything(self, request: SearchRequest) -> Found:
        started = time.monotonic()
        depth = self._depth(request)
        begun = None
        if request.query is not None:
            begun = self._index.begin_search(request.query, k=depth, filters=request.filters)
        try:
            profile, issues = self._profile(request)
            profile_ms = _since(started)
            own: tuple[Product, ...] = ()
            if request.query is not None:
                own = own_products(self._index, request.query, request.filters, profile)
        except BaseException:
            if begun is not None:  # the store may be closed only when nothing goes on in it
                with suppress(Exception):
                    begun()
            raise
        if begun is None:
            candidates, more = self._recommendations.of(profile, request, depth)
            issues = issues or more
        else:
            candidates = with_own(own, begun(), self._settings.candidates)
        interest = self._interest_in(candidates, profile, request)
        recall_ms = _since(started) - profile_ms
        return Found(profile, candidates, profile_ms, recall_ms, issues=issues, interest=interest)

    def _around(self, request: SearchRequest, given: tuple[Candidate, ...]) -> Found:
        """Look up what stands around candidates that are known."""
        with self._under_way:
            started = time.monotonic()
            profile, issues = self._profile(request)
            interest = self._interest_in(given, profile, request)
            return Found(
                profile,
                given,
                profile_ms=_since(started),
                recall_ms=0.0,
                issues=issues,
                interest=interest,
            )

    def _interest_in(
        self,
        candidates: tuple[Candidate, ...],
        profile: UserProfile | None,
        request: SearchRequest,
    ) -> tuple[ProductInterest, ...] | None:
        """Return what all shoppers' behaviour tells of each candidate; None if nothing is known."""
        if self._interest is None:
            return None
        ids = [candidate.product.product_id for candidate in candidates]
        return self._interest.of(profile, ids, request.at)

    async def _short_way(self, request: SearchRequest, ends: float) -> Found:
        """Find candidates by words alone; where none hold them, until some moment as ever."""
        given_up_at = time.monotonic()
        found = await in_worker(self._without_profile, request, self._quickly, given_up_at)
        if request.query is not None and not found.candidates:
            asked, left = (request, self._nearest, given_up_at), ends - time.monotonic()
            with suppress(TooLate):
                found = await in_spare_thread(self._without_profile, *asked, end_within=left)
            found = replace(found, given_up_at=time.monotonic())
        return found

    def _without_profile(
        self,
        request: SearchRequest,
        find: Callable[[SearchRequest], tuple[Candidate, ...]],
        given_up_at: float,
    ) -> Found:
        with self._under_way:
            candidates = find(request)
            return Found(
                None,
                candidates,
                profile_ms=0.0,
                recall_ms=_since(given_up_at),
                given_up_at=given_up_at,
                interest=self._interest_in(candidates, None, request),
            )

    def _quickly(self, request: SearchRequest) -> tuple[Candidate, ...]:
        depth = self._depth(request)
        if request.query is None:
            return self._recommendations.at_hand(request, depth)
        return self._index.by_words(request.query, k=depth, filters=request.filters)

    def _nearest(self, request: SearchRequest) -> tuple[Candidate, ...]:
        depth = self._depth(request)
        return self._index.search(request.query or "", k=depth, filters=request.filters)

    def _depth(self, request: SearchRequest) -> int:
        return max(self._settings.candidates, request.k)

    def _profile(self, request: SearchRequest) -> _Known:
        if self._profiles is None or request.user_id is None:
            return _NOBODY
        try:
            profile = self._profiles.profile(request.user_id, request.at, self._language(request))
        except StoreUnavailable as error:
            logger.warning("nothing is known of a shopper: %s", error)
            return None, (BEHAVIOUR_UNAVAILABLE,)
        return profile, ()


async def _in_turn(
    look_up: Callable[[], Found], then: Callable[[Found], _Made], limits: dict[str, float]
) -> tuple[Found, _Made | None]:
    """Look up in turn and go on in the same thread; see `LookUp.find`.

    Raises:
        TooLate: nothing was found in time.
    """
    given_up = Event()
    known: list[Found] = []

    def act() -> _Made | None:
        known.append(look_up())
        return None if given_up.is_set() else then(known[0])

    try:
        made = await in_turn(act, **limits)
    except TooLate:
        if not known:
            raise
        made = None
    finally:
        given_up.set()  # late, or cancelled: nobody wants the prompts any more
    return known[0], made


def _limits(deadline: Deadline, reserve: float) -> dict[str, float]:
    gone = time.monotonic() - deadline.started
    return {
        "begin_within": deadline.seconds * _TURN_WITHIN - gone,
        "end_within": deadline.seconds - reserve - gone,
    }


def _since(started: float) -> float:
    return (time.monotonic() - started) * 1000
