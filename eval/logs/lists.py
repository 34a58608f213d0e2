"""Logged lists in columns: a row for each shown item, which is what estimators compute on."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, Self

import numpy as np

from eval.statistics.estimates import Floats, Integers, codes
from reranker.errors import DataError
from reranker.schema import Impression


@dataclass(frozen=True)
class LoggedLists:
    """Logged lists as columns. R requests, N shown items sorted by request, then position.

    Attributes:
        request_ids: R names.
        shoppers: R numbers; anonymous requests have a number each.
        queries: R numbers into ``query_names``.
        products: names of the products.
        request: N row numbers of requests.
        product: N numbers into ``products``.
        position: N, 1-based.
        propensity: N, of the item in its place; NaN where unknown.
        prefix_propensity: N, of the list down to the place; NaN where unknown.
        grade: N, see `ShownItem`.
    """

    request_ids: tuple[str, ...]
    shoppers: Integers
    queries: Integers
    query_names: tuple[str, ...]
    products: tuple[str, ...]
    request: Integers
    product: Integers
    position: Integers
    propensity: Floats
    prefix_propensity: Floats
    grade: Integers

    def __post_init__(self) -> None:
        rows = {len(getattr(self, name)) for name in _ROW_COLUMNS}
        if len(rows) != 1 or {len(self.shoppers), len(self.queries)} != {len(self.request_ids)}:
            raise DataError("logged lists: the columns differ in length")
        key = self.request * (int(self.position.max(initial=0)) + 1) + self.position
        if len(key) == 0 or (np.diff(key) <= 0).any():
            raise DataError("logged lists: rows have to be sorted by request, then position")
        if len(np.unique(self.request)) != len(self.request_ids):
            raise DataError("logged lists: every request has to show at least one item")
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                column.setflags(write=False)

    def __len__(self) -> int:
        return len(self.request_ids)

    @cached_property
    def last_rows(self) -> Integers:
        """The row of each request's last item."""
        return np.flatnonzero(np.diff(self.request, append=len(self))).astype(np.int64)

    @cached_property
    def list_propensity(self) -> Floats:
        """Probability of each whole list; NaN where unknown."""
        return self.prefix_propensity[self.last_rows]

    @cached_property
    def list_length(self) -> Integers:
        """Number of items that each request showed."""
        return np.bincount(self.request, minlength=len(self)).astype(np.int64)

    def reached(self, grade: int = 1) -> Floats:
        """Return 1.0 for each row whose grade is at least this one, else 0.0."""
        return (self.grade >= grade).astype(np.float64)

    def select(self, requests: Integers) -> "LoggedLists":
        """Return only these requests (sorted, unique row numbers)."""
        kept = np.full(len(self), -1, np.int64)
        kept[requests] = np.arange(len(requests))
        rows = kept[self.request] >= 0
        columns = {name: getattr(self, name)[rows] for name in _ROW_COLUMNS if name != "request"}
        return LoggedLists(
            request_ids=tuple(self.request_ids[i] for i in requests),
            shoppers=self.shoppers[requests],
            queries=self.queries[requests],
            query_names=self.query_names,
            products=self.products,
            request=kept[self.request][rows],
            **columns,
        )

    @classmethod
    def from_impressions(cls, impressions: Iterable[Impression]) -> Self:
        """Gather impressions into columns.

        Raises:
            DataError: there is none, or a request_id comes twice.
        """
        gathered = list(impressions)
        if not gathered:
            raise DataError("the log holds no impressions")
        names = [impression.request_id for impression in gathered]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"request_id {twice!r} comes twice in the log: one list a request")
        return cls(**_columns(gathered))


_ROW_COLUMNS = ("request", "product", "position", "propensity", "prefix_propensity", "grade")


def _columns(gathered: Sequence[Impression]) -> dict[str, Any]:
    items = [sorted(impression.items, key=lambda item: item.position) for impression in gathered]
    flat = [item for shown in items for item in shown]
    products = [item.product_id for item in flat]
    queries = [impression.query or "" for impression in gathered]
    users = [i.user_id or ("anonymous", row) for row, i in enumerate(gathered)]
    return {
        "request_ids": tuple(impression.request_id for impression in gathered),
        "shoppers": codes(users),
        "queries": codes(queries),
        "query_names": tuple(dict.fromkeys(queries)),
        "products": tuple(dict.fromkeys(products)),
        "request": np.repeat(np.arange(len(items)), [len(shown) for shown in items]),
        "product": codes(products),
        "position": np.array([item.position for item in flat], np.int64),
        "propensity": _known([item.propensity for item in flat]),
        "prefix_propensity": _known([item.prefix_propensity for item in flat]),
        "grade": np.array([item.grade for item in flat], np.int64),
    }


def _known(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)
