"""A shopper's own products that match a query: what recall cuts off among hundreds like them."""

from collections.abc import Sequence

from reranker.ports import CandidateIndex
from reranker.schema import Candidate, Filters, Product, UserProfile

_SHARE = 5


def own_products(
    index: CandidateIndex, query: str, filters: Filters, profile: UserProfile | None
) -> tuple[Product, ...]:
    """Return the shopper's own products that hold every word of a query."""
    if profile is None:
        return ()
    touched = [item.product_id for item in profile.repeat_purchases]
    touched += [item.product_id for item in profile.recent_items]
    return index.matching(query, list(dict.fromkeys(touched)), filters=filters)


def with_own(
    own: Sequence[Product], candidates: tuple[Candidate, ...], depth: int
) -> tuple[Candidate, ...]:
    """Let the shopper's own products take the last places of recall.

    What recall found of them keeps its place. At most a fifth of the places is given away.

    Args:
        own: what `own_products` returns.
        candidates: of recall, best first.
        depth: number of candidates that recall was asked for; it stays what it is if recall was
            cut.
    """
    found = {candidate.product.product_id for candidate in candidates}
    depth = max(depth, len(candidates))
    missing = [product for product in own if product.product_id not in found]
    products = missing[: max(depth // _SHARE, 1)]
    kept = candidates[: depth - len(products)]
    return kept + tuple(
        Candidate(product=product, recall_rank=rank, recall_score=0.0, from_history=True)
        for rank, product in enumerate(products, start=len(kept) + 1)
    )
