"""What the past says of every product: how popular it is, what it is bought with, what follows it.

Counts are of distinct shoppers, so that one who buys a product weekly counts once, and so that a
purchase that two rows of a file tell of is one.
"""

from functools import cached_property
from typing import Any

import numpy as np

from eval.past.purchases import Purchases
from eval.statistics.estimates import Floats, Integers
from reranker.learned_interest import Choices
from retrieval.product_table import ProductTable


class Past:
    """Counts over purchases, by row of a product table. Nothing is ever mutated.

    Attributes:
        unknown: purchases of products that the table does not have; they count nowhere.
        shoppers: that purchases are known of.
    """

    def __init__(self, purchases: Purchases, table: ProductTable) -> None:
        rows = table.rows_of_ids(purchases.products)[purchases.product]
        known = rows >= 0
        self.unknown = int((~known).sum())
        self.shoppers = len(np.unique(purchases.user[known]))
        self.purchases = int(known.sum())
        self._size = len(table)
        self._users = len(purchases.users)
        self._sequence = purchases.sequence[known]
        self._user = purchases.user[known]
        self._row: Integers = rows[known]
        self._at_us = purchases.at_us[known]

    def choices(self) -> Choices:
        """Return the purchases in the form that the interest model learns from."""
        return Choices.of(self._sequence, self._user, self._row, self._size, at_us=self._at_us)

    @cached_property
    def popularity(self) -> Floats:
        """Number of shoppers who bought each product, shape (products,)."""
        counts: Floats = np.asarray(self._bought.sum(axis=0), np.float64).ravel()
        return counts

    def cooccurrence(self, history: Integers) -> Floats:
        """Return how strongly each product goes with some others, shape (products,).

        The sum over ``history`` of the number of shoppers who bought both, divided by the square
        root of both popularities (cosine of the columns of the shopper-product matrix; item-based
        collaborative filtering, Linden et al. 2003).

        Args:
            history: rows of products; one that comes twice counts twice.
        """
        if not len(history):
            return np.zeros(self._size)
        both = self._bought_by_product[history] @ self._bought
        own = self.popularity[history]
        weights = np.divide(1.0, np.sqrt(own), out=np.zeros_like(own), where=own > 0)
        together: Floats = np.asarray(weights @ both, np.float64).ravel()
        scaled: Floats = together * self._inverse_root
        return scaled

    def transitions(self, last: int) -> Floats:
        """Return how many shoppers bought each product right after one, shape (products,)."""
        return np.asarray(self._follows[last].toarray(), np.float64).ravel()

    @cached_property
    def _bought(self) -> Any:
        """Shoppers by products, 1 where bought."""
        return self._matrix(self._user, self._row, (self._users, self._size))

    @cached_property
    def _bought_by_product(self) -> Any:
        return self._bought.T.tocsr()

    @cached_property
    def _inverse_root(self) -> Floats:
        counts = self.popularity
        inverse: Floats = np.zeros_like(counts)
        np.divide(1.0, np.sqrt(counts), out=inverse, where=counts > 0)
        return inverse

    @cached_property
    def _follows(self) -> Any:
        """Products by products: distinct shoppers who bought the second right after the first."""
        same = np.flatnonzero(np.diff(self._sequence) == 0)
        pairs = np.column_stack([self._user[same], self._row[same], self._row[same + 1]])
        distinct = np.unique(pairs, axis=0)
        return self._matrix(distinct[:, 1], distinct[:, 2], (self._size, self._size), once=False)

    @staticmethod
    def _matrix(
        first: Integers, second: Integers, shape: tuple[int, int], *, once: bool = True
    ) -> Any:
        from scipy.sparse import csr_matrix

        matrix = csr_matrix((np.ones(len(first)), (first, second)), shape=shape)
        if once:
            matrix.data[:] = 1.0
        return matrix
