"""One shopper's events as columns, with what the catalogue knows of each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.behaviour import PastEvent
from retrieval.product_lookup import ProductLookup
from retrieval.product_table import IntArray

KIND_WEIGHTS = {"purchase": 5.0, "cart": 3.0, "favourite": 2.0, "click": 1.0, "view": 0.5}
"""Searches, impressions and returns weigh nothing: they name no product that was chosen."""
KINDS = (*KIND_WEIGHTS, "search", "impression", "return")
"""The strongest deed first."""
PURCHASE, SEARCH, RETURN = (KINDS.index(kind) for kind in ("purchase", "search", "return"))
DAY_US = 86_400_000_000
_CODES = {kind: code for code, kind in enumerate(KINDS)}
_WEIGHTS = np.array([KIND_WEIGHTS.get(kind, 0.0) for kind in KINDS])
_MINUTE_US = 60_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class History:
    """Events, newest first, column by column.

    Attributes:
        kinds: as codes: places in `KINDS`.
        at_us: microseconds since 1970, UTC.
        discounts: what a promotion took off each purchase; None where nothing is known of it.
        rows: in the catalogue; -1 where it does not have the product, or there is none.
        returned: products that were sent back and not bought again since, to the time of that, the
            newest first. What was sent back is not among the purchases.
    """

    kinds: IntArray
    at_us: IntArray
    product_ids: tuple[str | None, ...]
    queries: tuple[str | None, ...]
    discounts: tuple[float | None, ...]
    rows: IntArray
    returned: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, events: Sequence[PastEvent], lookup: ProductLookup) -> "History":
        """Return the history of some events, of which there must be one at least.

        Raises:
            ValueError: the events are not newest first.
        """
        columns: list[tuple[Any, ...]] = list(zip(*events, strict=True))
        kinds, at, product_ids, queries = columns[:4]
        discounts = columns[4] if len(columns) > 4 else (None,) * len(events)
        at_us = np.array(at, np.int64)
        if (at_us[1:] > at_us[:-1]).any():
            raise ValueError("the events of a profile must be newest first")
        codes = np.array([_CODES[kind] for kind in kinds], np.int64)
        history = cls(codes, at_us, product_ids, queries, discounts, lookup.rows(product_ids))
        return history._without_returned() if RETURN in codes else history

    def __len__(self) -> int:
        return len(self.kinds)

    def older(self, newest: int) -> "History":
        """Return the history without its newest events."""
        return self._taken(slice(newest, None), self.returned)

    def latest(self, newest: int) -> "History":
        """Return the newest events alone."""
        return self._taken(slice(newest), self.returned)

    def visit(self, as_of: datetime, minutes: float) -> int:
        """Return how many events are of the visit that goes on at a moment.

        It goes back from the moment as long as no gap between events is longer than the minutes.
        """
        if not len(self):
            return 0
        gap = minutes * _MINUTE_US
        before = np.append(microseconds(as_of), self.at_us[:-1])
        long = np.flatnonzero(before - self.at_us > gap)
        return int(long[0]) if len(long) else len(self)

    def weights(self, half_life_days: float) -> npt.NDArray[np.float64]:
        """Return what each event counts: by its kind, and half as much each half-life.

        What does not name a product of the catalogue counts nothing.
        """
        # Ages count from the newest event: shares are the same, and old ones do not underflow.
        age_days = (self.at_us[:1] - self.at_us) / DAY_US
        weights: npt.NDArray[np.float64] = _WEIGHTS[self.kinds] * np.exp2(
            -age_days / half_life_days
        )
        weights[self.rows < 0] = 0.0
        return weights

    @cached_property
    def chosen(self) -> IntArray:
        """The places of what the shopper did to known products."""
        return np.flatnonzero((self.rows >= 0) & (self.kinds < SEARCH))

    @cached_property
    def bought(self) -> IntArray:
        """The places of the purchases of known products."""
        return np.flatnonzero((self.rows >= 0) & (self.kinds == PURCHASE))

    def _without_returned(self) -> "History":
        """Take every purchase out that a later return of its product undoes.

        As `retrieval.returns` defines it, each event being one piece.
        """
        undone: dict[str | None, int] = {}
        kept: list[int] = []
        returned: dict[str, int] = {}
        bought: set[str | None] = set()
        for place, code in enumerate(self.kinds.tolist()):
            product_id = self.product_ids[place]
            if code == RETURN:
                undone[product_id] = undone.get(product_id, 0) + 1
                if product_id is not None and product_id not in bought:
                    returned.setdefault(product_id, int(self.at_us[place]))
            elif code == PURCHASE and undone.get(product_id):
                undone[product_id] -= 1
            else:
                kept.append(place)
                if code == PURCHASE:
                    bought.add(product_id)
        return self._taken(np.array(kept, np.int64), returned)

    def _taken(self, places: slice | IntArray, returned: Mapping[str, int]) -> "History":
        def some(column: tuple[Any, ...]) -> tuple[Any, ...]:
            if isinstance(places, slice):
                return column[places]
            return tuple(column[place] for place in places.tolist())

        return History(
            self.kinds[places],
            self.at_us[places],
            some(self.product_ids),
            some(self.queries),
            some(self.discounts),
            self.rows[places],
            returned,
        )


def untimed_purchases(product_ids: Sequence[str], as_of: datetime) -> list[PastEvent]:
    """Return purchases of which only the order is known, spaced one day apart, newest first.

    Args:
        product_ids: oldest first.
        as_of: moment before which they lie; the newest is one day old.
    """
    moment = microseconds(as_of)
    return [
        PastEvent("purchase", moment - days * DAY_US, product_id, None)
        for days, product_id in enumerate(reversed(product_ids), start=1)
    ]


def microseconds(moment: datetime) -> int:
    """Return a moment in microseconds since 1970, UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def moment_of(at_us: int) -> datetime:
    """Return the moment of some microseconds since 1970, UTC."""
    return _EPOCH + timedelta(microseconds=at_us)
