"""Lists of candidates as searches of a real shop make them, for benchmarks of the ranking alone."""

from collections.abc import Sequence
from datetime import datetime
from itertools import cycle

from reranker.errors import DataError
from reranker.pipeline import Reranker
from reranker.schema import Candidate, SearchRequest, UserProfile, Value


class RankingList(Value):
    """One list to rank: a request, its shopper's profile, and its candidates."""

    request: SearchRequest
    profile: UserProfile | None
    candidates: tuple[Candidate, ...]


def ranking_lists(
    shelf: Reranker,
    queries: Sequence[str],
    users: Sequence[str],
    *,
    at: datetime,
    count: int,
    size: int = 20,
) -> tuple[RankingList, ...]:
    """Search with one query after the other, each as the next shopper.

    Args:
        shelf: recalls, and knows the shoppers.
        queries: those that recall fewer than ``size`` products are passed over.
        users: taken in turn.
        at: moment of the searches.
        count: number of lists.
        size: candidates of each.

    Raises:
        DataError: there are too few such queries.
    """
    lists: list[RankingList] = []
    shoppers = cycle(users or [None])
    for query in queries:
        request = SearchRequest(query=query, user_id=next(shoppers), at=at, language="en")
        found = shelf.recall(request)[:size]
        if len(found) == size:
            profile = shelf.profile(request.user_id, at) if request.user_id else None
            lists.append(RankingList(request=request, profile=profile, candidates=found))
        if len(lists) == count:
            return tuple(lists)
    raise DataError(
        f"only {len(lists)} of {len(queries)} product types recall {size} products, {count} are "
        "needed: take fewer lists, or a shop with more products"
    )
