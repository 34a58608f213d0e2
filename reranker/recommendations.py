"""Candidates where there is no query: what a shopper may take next, by all that is known."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from reranker.errors import StoreUnavailable
from reranker.interest import Interest
from reranker.ports import InterestSource, ProfileStore, Recommender
from reranker.schema import Candidate, Issue, SearchRequest, UserProfile

BEHAVIOUR_UNAVAILABLE = Issue(
    code="profile_unavailable",
    detail="the database with what shoppers did does not answer: see the log",
)
_POPULAR_DEPTHS = 10
_WIDER = 3

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recommendations:
    """Joins what sells, what lies near and what has been learnt, and puts the likeliest first.

    Attributes:
        recommender: joins the lists.
        profiles: knows what sells; None where there is no behaviour.
        interest: learnt from all shoppers; None where none is.
    """

    recommender: Recommender
    profiles: ProfileStore | None
    interest: InterestSource | None

    def of(
        self, profile: UserProfile | None, request: SearchRequest, depth: int
    ) -> tuple[tuple[Candidate, ...], tuple[Issue, ...]]:
        """Return at most so many products that meet a request's filters, best first.

        Returns:
            The products, and why they are not those that sell, where they are not.
        """
        popular: Sequence[str] = ()
        issues: tuple[Issue, ...] = ()
        try:
            if self.profiles is not None:
                # Filters may reject many of the popular ones: look deeper.
                popular = self.profiles.popular(request.at, k=_POPULAR_DEPTHS * depth)
        except StoreUnavailable as error:
            logger.warning("nothing is known of what sells: %s", error)
            issues = (BEHAVIOUR_UNAVAILABLE,)
        wide, counted = _WIDER * depth, [popular]
        if self.interest is not None:
            counted.append(self.interest.likely(profile, wide, request.at))
        found = self.recommender.recommend(profile, counted, k=wide, filters=request.filters)
        return self._likeliest_first(found, profile, request)[:depth], issues

    def _likeliest_first(
        self,
        candidates: tuple[Candidate, ...],
        profile: UserProfile | None,
        request: SearchRequest,
    ) -> tuple[Candidate, ...]:
        """Order what was joined by the interest of its shopper, where that has been learnt.

        The lists do not know each other. Of a shopper who has bought nothing the interest tells
        only what sells, and the lists know what sells of late. What merely fills the places stays
        behind.
        """
        if self.interest is None or profile is None or not profile.purchases:
            return candidates
        found = [each for each in candidates if each.recall_score > 0]
        asked = [each.product.product_id for each in found]
        learned = self.interest.of(profile, asked, request.at)
        if learned is None:
            return candidates
        interest = Interest(profile)
        shares = [
            interest.of(each.product, one)[0] for each, one in zip(found, learned, strict=True)
        ]
        order = sorted(range(len(found)), key=lambda place: -shares[place])
        ranked = [
            found[place].model_copy(update={"recall_rank": rank, "recall_score": shares[place]})
            for rank, place in enumerate(order, start=1)
        ]
        return (*ranked, *candidates[len(found) :])
