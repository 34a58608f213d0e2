"""Recall without a query: what this shopper buys again, what lies near it, what sells."""

from collections.abc import Sequence

from reranker.ports import CandidateIndex
from reranker.schema import Candidate, Filters, UserProfile
from retrieval.hybrid import reciprocal_rank_fusion


class ProfileRecommender:
    """Joins repeat purchases, neighbours of recent items and what was counted by rank fusion.

    Implements `reranker.ports.Recommender`. An anonymous shopper gets what sells; where that
    does not suffice, other products of the catalogue that meet the filters fill the places.
    """

    def __init__(self, index: CandidateIndex, *, rrf_k: int) -> None:
        self._index = index
        self._rrf_k = rrf_k

    def recommend(
        self,
        profile: UserProfile | None,
        counted: Sequence[Sequence[str]],
        *,
        k: int,
        near: int,
        filters: Filters,
    ) -> tuple[Candidate, ...]:
        """Return at most k products that meet the filters, best first."""
        lists: list[Sequence[str]] = []
        if profile is not None:
            lists.append([repeat.product_id for repeat in profile.repeat_purchases])
            recent = [item.product_id for item in profile.recent_items]
            found = self._index.similar(recent, k=near, filters=filters)
            lists.append([candidate.product.product_id for candidate in found])
        lists += counted
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
