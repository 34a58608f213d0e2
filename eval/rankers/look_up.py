"""The look-up of a search as it is served, fed by cases and what is known in place of a store."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from eval.cases.values import Case
from eval.rankers.profiles import CaseProfiles
from eval.rankers.ranked import Hashes, best_first
from reranker.learned_interest import LearnedInterest
from reranker.look_up import LookUp
from reranker.prompting import detect_language
from reranker.schema import Language, ProductInterest, UserProfile
from reranker.settings import RetrievalSettings
from retrieval.hybrid import HybridIndex
from retrieval.recommend import ProfileRecommender


@dataclass(frozen=True)
class CaseShoppers:
    """Implements `reranker.ports.ProfileStore`: a shopper goes by the id of the case.

    Attributes:
        cases: by id.
        profiles: of their shoppers.
        best_sellers: products by the number of shoppers who bought them in all that is known,
            which often carries no times; most first.
    """

    cases: Mapping[str, Case]
    profiles: CaseProfiles
    best_sellers: Sequence[str]

    def profile(
        self, user_id: str, _as_of: datetime, language: Language = "en"
    ) -> UserProfile | None:
        """Return the profile of a case's shopper, as of the moment of the case."""
        return self.profiles.of(self.cases[user_id], language)

    def popular(self, _as_of: datetime, *, k: int) -> tuple[str, ...]:
        """Return at most k of the best sellers."""
        return tuple(self.best_sellers[:k])


@dataclass(frozen=True)
class PastInterest:
    """Implements `reranker.ports.InterestSource` by what was learned from the known past.

    Attributes:
        ties: breaks ties between products, which the order of a file must not do.
    """

    learned: LearnedInterest
    ties: Callable[[Sequence[str]], Hashes]

    @property
    def fault(self) -> str | None:
        """Nothing is wrong with it."""
        return None

    def knows(self, _at: datetime) -> bool:
        """Tell that the past is known: it ends before the cases."""
        return True

    def tells(self, profile: UserProfile, _at: datetime) -> bool:
        """Tell whether anything is known that a shopper bought."""
        return self.learned.tells(profile)

    def of(
        self, profile: UserProfile | None, product_ids: Sequence[str], _at: datetime
    ) -> tuple[ProductInterest, ...]:
        """Return the interest of a shopper in some products."""
        return self.learned.of(profile, product_ids)

    def likely(self, profile: UserProfile | None, k: int, _at: datetime) -> tuple[str, ...]:
        """Return what a shopper may take next, the likeliest first."""
        found = self.learned.likely(profile, 2 * k)
        odds = [one.odds for one in self.learned.of(profile, found)]
        return tuple(found[place] for place in best_first(odds, self.ties(found))[:k])


def look_up_for_cases(
    index: HybridIndex,
    shoppers: CaseShoppers,
    interest: PastInterest | None,
    settings: RetrievalSettings,
) -> LookUp:
    """Return the look-up of requests whose shoppers are `CaseShoppers`."""
    return LookUp(
        index=index,
        recommender=ProfileRecommender(index, rrf_k=settings.rrf_k),
        profiles=shoppers,
        interest=interest,
        language=lambda request: detect_language(request.query),
        settings=settings,
    )
