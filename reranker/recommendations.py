"""Candidates where there is no query: what a shopper may take next, by all that is known."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from reranker.errors import StoreUnavailable
from reranker.interest import Interest
from reranker.ports import InterestSource, ProfileStore, Recommender
from reranker.schema import Candidate, Issue, ProductInterest, SearchRequest, UserProfile

BEHAVIOUR_UNAVAILABLE = Issue(
    code="profile_unavailable",
    detail="the database with what shoppers did does not answer: see the log",
)
_POPULAR_DEPTHS = 10
_WIDER = 3

logger = logging.getLogger(__name__)


@dataclass
class Recommendations:
    """Joins what sells, what lies near and what has been learnt, and puts the likeliest first.

    Thread-safe.

    Attributes:
        recommender: joins the lists.
        profiles: knows what sells; None where there is no behaviour.
        interest: learnt from all shoppers; None where none is.
    """

    recommender: Recommender
    profiles: ProfileStore | None
    interest: InterestSource | None
    _last: tuple[datetime, Sequence[str]] | None = field(default=None, init=False)

    def of(
        self, profile: UserProfile | None, request: SearchRequest, depth: int
    ) -> tuple[tuple[Candidate, ...], tuple[Issue, ...]]:
        """Return at most so many products that meet a request's filters, best first.

        Returns:
            The products, and why they are not those that sell, where they are not.
        """
        popular, issues = self._popular(request, depth)
        # Of others it tells what sells, and the lists know what sells of late.
        by_interest = (
            profile is not None
            and self.interest is not None
            and self.interest.tells(profile, request.at)
        )
        found = self.recommender.recommend(
            profile,
            self._counted(popular, profile, request, depth),
            k=_WIDER * depth if by_interest else depth,
            near=depth,
            filters=request.filters,
        )
        if by_interest and self.interest is not None:
            asked = [each.product.product_id for each in found]
            learned = self.interest.of(profile, asked, request.at)
            if learned is not None:
                found = _likeliest_first(found, learned, Interest(profile))
        return found[:depth], issues

    def at_hand(self, request: SearchRequest, depth: int) -> tuple[Candidate, ...]:
        """Return products for a stranger by what is in memory, without asking a database.

        What sells is what a request of that moment or before it was told last.
        """
        last = self._last
        popular = last[1] if last is not None and last[0] <= request.at else ()
        counted = self._counted(popular, None, request, depth)
        return self.recommender.recommend(
            None, counted, k=depth, near=depth, filters=request.filters
        )

    def _popular(
        self, request: SearchRequest, depth: int
    ) -> tuple[Sequence[str], tuple[Issue, ...]]:
        if self.profiles is None:
            return (), ()
        try:
            # Filters may reject many of the popular ones: look deeper.
            popular = self.profiles.popular(request.at, k=_POPULAR_DEPTHS * depth)
        except StoreUnavailable as error:
            logger.warning("nothing is known of what sells: %s", error)
            return (), (BEHAVIOUR_UNAVAILABLE,)
        self._last = (request.at, popular)
        return popular, ()

    def _counted(
        self,
        popular: Sequence[str],
        profile: UserProfile | None,
        request: SearchRequest,
        depth: int,
    ) -> list[Sequence[str]]:
        if self.interest is None:
            return [popular]
        return [popular, self.interest.likely(profile, _WIDER * depth, request.at)]


def _likeliest_first(
    candidates: Sequence[Candidate], learned: Sequence[ProductInterest], interest: Interest
) -> tuple[Candidate, ...]:
    """Order what was joined by the interest of its shopper: the lists do not know each other.

    What has been learnt of nobody, for it is newer, keeps the place that the lists gave it, and so
    does what merely fills the places.
    """
    shares = {
        place: interest.of(each.product, one)[0]
        for place, (each, one) in enumerate(zip(candidates, learned, strict=True))
        if one.sales is not None and each.recall_score > 0
    }
    likeliest = iter(sorted(shares, key=lambda place: -shares[place]))
    order = [next(likeliest) if place in shares else place for place in range(len(candidates))]
    return tuple(
        candidates[place].model_copy(update={"recall_rank": rank})
        for rank, place in enumerate(order, start=1)
    )
