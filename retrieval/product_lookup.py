"""What is asked of a catalogue again and again, remembered: rows by product id, titles by row."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from retrieval.product_columns import IdColumn

_MOST_REMEMBERED = 1 << 16
_Asked = TypeVar("_Asked", str, int)
_Found = TypeVar("_Found")


class ProductLookup:
    """Rows by product id, and titles by row, of one `ProductTable`. Thread-safe.

    Shoppers share products, and to ask Arrow for a handful of rows costs more than to count them.
    """

    def __init__(self, ids: IdColumn, titles: Callable[[list[int]], list[str]]) -> None:
        """Remember nothing yet.

        Args:
            ids: of the table.
            titles: returns those of some rows.
        """
        self._rows: _Memory[str, int] = _Memory(lambda asked: ids.rows(asked).tolist())
        self._titles: _Memory[int, str] = _Memory(titles)

    def rows(self, product_ids: Sequence[str | None]) -> npt.NDArray[np.int64]:
        """Return the catalogue row of each product; -1 for none and for what it does not have."""
        known = self._rows.of(each for each in product_ids if each)
        return np.array([known[each] if each else -1 for each in product_ids], np.int64)

    def remember(self, product_ids: Sequence[str], rows: Sequence[int]) -> None:
        """Take rows that the caller knows already, so that they need not be looked up."""
        self._rows.take(product_ids, rows)

    def titles(self, rows: Sequence[int]) -> Mapping[int, str]:
        """Return the titles of some rows, and maybe of others."""
        return self._titles.of(rows)


class _Memory(Generic[_Asked, _Found]):
    """A bounded table of answers. Threads may look something up twice, but never miss it."""

    def __init__(self, find: Callable[[list[_Asked]], list[_Found]]) -> None:
        self._find: Callable[[list[_Asked]], list[_Found]] = find
        self._known: dict[_Asked, _Found] = {}

    def of(self, asked: Iterable[_Asked]) -> dict[_Asked, _Found]:
        """Return a table with the answers to all that is asked, and maybe others."""
        distinct = dict.fromkeys(asked)
        known = self._known
        new = [each for each in distinct if each not in known]
        if not new:
            return known
        if len(known) + len(new) > _MOST_REMEMBERED:
            # A new table: other threads go on reading the old one.
            known = self._known = {}
            new = list(distinct)
        known.update(zip(new, self._find(new), strict=True))
        return known

    def take(self, asked: Sequence[_Asked], found: Sequence[_Found]) -> None:
        """Remember answers, as far as there is room."""
        if len(self._known) + len(asked) <= _MOST_REMEMBERED:
            self._known.update(zip(asked, found, strict=True))
