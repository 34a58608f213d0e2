"""Purchases from a shop's own behaviour, of shoppers who agreed that models learn from it."""

import random
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import NamedTuple

from reranker.training.purchases import Purchase
from retrieval.behaviour import PastEvent
from retrieval.profiles.history import moment_of

VISIT = timedelta(minutes=30)
"""Purchases that lie no further apart are one basket, and a search before them is theirs."""

Shopper = tuple[object, Sequence[PastEvent]]
"""A pseudonym, and events newest first: what `BehaviourStore.histories` yields."""


class _Basket(NamedTuple):
    at_us: int
    bought: tuple[str, ...]
    query: str | None


def purchases_of(
    shoppers: Iterable[Shopper],
    *,
    per_shopper: int,
    query_of: Callable[[str], str | None],
    seed: int,
    history: int = 200,
) -> tuple[Purchase, ...]:
    """Return purchases to learn from, at most so many of each shopper, drawn at random.

    Args:
        shoppers: of a purpose that they have agreed to.
        per_shopper: most purchases of one shopper, so that nobody decides what is learnt.
        query_of: what stands for the query of a product where no search came before: a name of
            its category, say; None: nothing was searched for.
        seed: of the draw.
        history: most products that a purchase remembers.
    """
    found = []
    for shopper, events in shoppers:
        baskets = _baskets(events)
        bought = [(place, p) for place, basket in enumerate(baskets) for p in basket.bought]
        generator = random.Random(f"{seed}/{shopper}")
        chosen = generator.sample(bought[1:], min(per_shopper, max(len(bought) - 1, 0)))
        for place, product in sorted(chosen):
            before = [p for basket in baskets[:place] for p in basket.bought]
            basket = baskets[place]
            found.append(
                Purchase(
                    user_id=str(shopper),
                    history=tuple(before[-history:]),
                    target=product,
                    query=basket.query or query_of(product),
                    along=tuple(p for p in basket.bought if p != product),
                    at=moment_of(basket.at_us),
                )
            )
    return tuple(found)


def _baskets(events: Sequence[PastEvent]) -> list[_Basket]:
    """Put purchases that lie close together into baskets, oldest first."""
    gap = int(VISIT.total_seconds() * 1_000_000)
    baskets: list[_Basket] = []
    searched: PastEvent | None = None
    for event in reversed(events):
        if event.kind == "search":
            searched = event
        elif event.kind == "purchase" and event.product_id:
            if baskets and event.at_us - baskets[-1].at_us <= gap:
                last = baskets[-1]
                bought = tuple(dict.fromkeys((*last.bought, event.product_id)))
                baskets[-1] = last._replace(bought=bought)
                continue
            fresh = searched is not None and event.at_us - searched.at_us <= gap
            query = searched.query if searched is not None and fresh else None
            baskets.append(_Basket(event.at_us, (event.product_id,), query))
    return baskets
