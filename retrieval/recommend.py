"""Recall without a query: what this shopper buys again, what lies near it, what sells."""

import logging
from collections.abc import Sequence
from datetime import datetime

from reranker.errors import StoreUnavailable
from reranker.ports import CandidateIndex, ProfileStore
from reranker.schema import Candidate, Filters, UserProfile
from retrieval.hybrid import reciprocal_rank_fusion

logger = logging.getLogger(__name__)


class ProfileRecommender:
    """Joins repeat purchases, neighbours of recent items and popular products by rank fusion.

    Implements `reranker.ports.Recommender`. An anonymous shopper gets popular products; where they
    do not suffice, other products of the catalogue that meet the filters fill the places.
    """

    def __init__(self, index: CandidateIndex, profiles: ProfileStore | None, *, rrf_k: int) -> None:
        self._index = index
        self._profiles = profiles
        self._rrf_k = rrf_k

    def recommend(
        self, profile: UserProfile | None, as_of: datetime, *, k: int, filters: Filters
    ) -> tuple[Candidate, ...]:
        """Return at most k products that meet the filters, best first."""
        lists: list[Sequence[str]] = []
        if profile is not None:
            lists.append([repeat.product_id for repeat in profile.repeat_purchases])
            recent = [item.product_id for item in profile.recent_items]
            near = self._index.similar(recent, k=k, filters=filters)
            lists.append([candidate.product.product_id for candidate in near])
        if self._profiles is not None:
            # Filters may reject many of the popular ones: look deeper than k.
            lists.append(self._popular(self._profiles, as_of, 10 * k))
        fused = reciprocal_rank_fusion(lists, self._rrf_k)
        products = self._index.products([product_id for product_id, _ in fused])
        kept = [
            (product, score)
            for product, (_, score) in zip(products, fused, strict=True)
            if product is not None and filters.matches(product)
        ]
        if len(kept) < k:
            known = {product.product_id for product, _ in kept}
            rest = self._index.browse(k=k + len(known), filters=filters)
            kept += [(product, 0.0) for product in rest if product.product_id not in known]
        return tuple(
            Candidate(product=product, recall_rank=rank, recall_score=score)
            for rank, (product, score) in enumerate(kept[:k], start=1)
        )

    @staticmethod
    def _popular(profiles: ProfileStore, as_of: datetime, k: int) -> Sequence[str]:
        try:
            return profiles.popular(as_of, k=k)
        except StoreUnavailable as error:
            logger.warning("nothing popular is recommended: %s", error)
            return ()
