"""How much products had sold at the moments of the purchases that are learnt from."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Self

import numpy as np

from reranker.sales import sales_levels
from reranker.training.purchases import Purchase
from retrieval.behaviour.purchases import Integers, PurchaseColumns
from retrieval.profiles.history import microseconds

_ALWAYS = -1
_NEVER = np.empty(0, np.int64)


class PastSales:
    """Counts, for any moment, the shoppers who had bought a product by then."""

    def __init__(self, product_ids: Sequence[str], product: Integers, at_us: Integers) -> None:
        """Take every product once for each shopper who bought it.

        Args:
            product_ids: of the products.
            product: shape (N,), places in ``product_ids``.
            at_us: shape (N,), when the shopper first bought it, in microseconds since 1970, UTC.
        """
        order = np.lexsort((at_us, product))
        by_product = np.split(at_us[order], np.flatnonzero(np.diff(product[order])) + 1)
        bought = np.unique(product).tolist()
        # Without a purchase there is one part, an empty one.
        self._times = {
            product_ids[place]: times for place, times in zip(bought, by_product, strict=False)
        }
        # The count of each product when it was bought, in the order of time: its highest so far is
        # that of the best seller.
        counts = np.empty(len(product), np.int64)
        counts[order] = [number for times in by_product for number in range(1, len(times) + 1)]
        by_time = np.argsort(at_us, kind="stable")
        self._moments = at_us[by_time]
        self._most = np.maximum.accumulate(counts[by_time]) if len(product) else _NEVER

    @classmethod
    def of_histories(cls, histories: Iterable[Sequence[str]]) -> Self:
        """Take histories of which no time is known: they are the past of every moment."""
        numbers: defaultdict[str, int] = defaultdict(lambda: len(numbers))
        product = np.array([numbers[each] for one in histories for each in set(one)], np.int64)
        return cls(tuple(numbers), product, np.full(len(product), _ALWAYS, np.int64))

    @classmethod
    def of_columns(cls, purchases: PurchaseColumns) -> Self:
        """Take the purchases of a behaviour store."""
        pair = purchases.shopper * max(len(purchases.product_ids), 1) + purchases.product
        _, first = np.unique(pair, return_index=True)  # of each pair the oldest
        return cls(purchases.product_ids, purchases.product[first], purchases.at_us[first])

    def __call__(self, purchase: Purchase, product_ids: Sequence[str]) -> tuple[int | None, ...]:
        """Return the level of sale of products strictly before a purchase, as serving says it.

        None where nothing had been sold at all.
        """
        moment = microseconds(purchase.at) if purchase.at is not None else 0
        before = np.searchsorted(self._moments, moment, side="left")
        if not before:
            return (None,) * len(product_ids)
        shoppers = [
            float(np.searchsorted(self._times.get(each, _NEVER), moment, side="left"))
            for each in product_ids
        ]
        return tuple(sales_levels(shoppers, float(self._most[before - 1])))
