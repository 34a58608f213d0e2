"""How much products had sold at the moments of the purchases that are learnt from."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from reranker.sales import sales_levels
from reranker.training.purchases import Purchase
from retrieval.behaviour.purchases import PurchaseColumns
from retrieval.profiles.history import microseconds

_CANDIDATES_FOR_MOST = 64
_ALWAYS = -1


class Bought(NamedTuple):
    """A product that a shopper bought, and when first, in microseconds since 1970 UTC."""

    product_id: str
    at_us: int


class PastSales:
    """Counts, for any moment, the shoppers who had bought a product by then.

    The best seller of a moment is sought among the 64 products that sold most in the end.
    """

    def __init__(self, bought: Iterable[Bought]) -> None:
        """Take every product once for each shopper who bought it."""
        times: dict[str, list[int]] = {}
        for product, at_us in bought:
            times.setdefault(product, []).append(at_us)
        self._times = {
            product: np.sort(np.array(found, np.int64)) for product, found in times.items()
        }
        by_count = sorted(self._times.values(), key=len, reverse=True)
        self._best = by_count[:_CANDIDATES_FOR_MOST]

    @classmethod
    def of_histories(cls, histories: Iterable[Sequence[str]]) -> "PastSales":
        """Take histories of which no time is known: they are the past of every moment."""
        return cls(Bought(product, _ALWAYS) for one in histories for product in set(one))

    @classmethod
    def of_columns(cls, purchases: PurchaseColumns) -> "PastSales":
        """Take the purchases of a behaviour store."""
        pairs = np.column_stack([purchases.shopper, purchases.product])
        _, first = np.unique(pairs, axis=0, return_index=True)  # of each pair the oldest
        names = purchases.product_ids
        found = zip(purchases.product[first].tolist(), purchases.at_us[first].tolist(), strict=True)
        return cls(Bought(names[product], at_us) for product, at_us in found)

    def __call__(self, purchase: Purchase, product_ids: Sequence[str]) -> tuple[int | None, ...]:
        """Return the level of sale of products strictly before a purchase, as serving says it.

        None where nothing had been sold at all.
        """
        moment = microseconds(purchase.at) if purchase.at is not None else 0
        most = max((_until(times, moment) for times in self._best), default=0)
        if not most:
            return (None,) * len(product_ids)
        own = set(purchase.history)
        others = [
            _until(self._times[product], moment) - (product in own) if product in self._times else 0
            for product in product_ids
        ]
        return tuple(sales_levels(others, most))


def _until(times: np.ndarray, moment: int) -> int:
    return int(np.searchsorted(times, moment, side="left"))
