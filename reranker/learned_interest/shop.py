"""The interest that a shop's shoppers taught, asked for one shopper and some products."""

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from threading import Lock

import numpy as np

from reranker.errors import DataError
from reranker.learned_interest.choices import Integers
from reranker.learned_interest.model import InterestModel
from reranker.learned_interest.signals import latest_of
from reranker.learned_interest.stored import StoredInterest
from reranker.sales import sales_levels
from reranker.schema import ProductInterest, UserProfile
from retrieval.product_table import ProductTable

_LOOK_AGAIN_S = 1.0
_GOES_WELL = 0.05
_BEST = 200
_MOST_BEST = 10_000

logger = logging.getLogger(__name__)


class LearnedInterest:
    """A model, and which of its products is which of a catalogue. Thread-safe."""

    def __init__(self, model: InterestModel, numbers: Integers, table: ProductTable) -> None:
        """Take the model.

        Args:
            model: of what shoppers chose.
            numbers: of each row of the table the model's number; -1 where it has none.
            table: the catalogue.
        """
        self._model = model
        nothing = model.products  # a product that nobody chose and that has no words
        # The last place is what row -1, an unknown product, comes to.
        self._numbers = np.append(np.where(numbers < 0, nothing, numbers), nothing)
        rows = np.full(model.products + 1, -1, np.int64)
        known = np.flatnonzero(numbers >= 0)
        rows[numbers[known]] = known
        self._rows = rows
        self._table = table
        self._lookup = table.lookup
        self._most = float(model.signals.popularity.max(initial=0.0))

    def of(
        self, profile: UserProfile | None, product_ids: Sequence[str]
    ) -> tuple[ProductInterest, ...]:
        """Return the interest of a shopper in some products; see `ProductInterest`.

        Args:
            profile: None for a shopper of whom nothing is known: then it is what sells.
            product_ids: those asked about.
        """
        if not product_ids:
            return ()
        asked = self._numbers[self._lookup.rows(product_ids)]
        bought = profile.purchases if profile else {}
        history = self._history(bought)
        odds = self._model.odds(history, asked)
        partners, closeness = self._model.signals.closest(history, asked)
        levels = sales_levels(self._model.signals.popularity[asked], self._most)
        unknown = asked == self._model.products
        return tuple(
            ProductInterest(odds=value, sales=None if new else level, goes_with=title)
            for value, level, new, title in zip(
                odds.tolist(),
                levels,
                unknown.tolist(),
                self._titles(np.where(closeness >= _GOES_WELL, partners, -1)),
                strict=True,
            )
        )

    def tells(self, profile: UserProfile) -> bool:
        """Tell whether it knows anything that a shopper bought; else it knows what sells."""
        return bool(len(self._history(profile.purchases)))

    def likely(self, profile: UserProfile | None, k: int) -> tuple[str, ...]:
        """Return at most k products that a shopper may take next, the likeliest first.

        Sought among what goes with the latest purchases, what was bought right after them, and what
        sells; of an anonymous shopper it is what sells.
        """
        signals = self._model.signals
        history = self._history(profile.purchases if profile else {})
        near = [
            matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]
            for matrix in (signals.together, signals.follows)
            for row in latest_of(history).tolist()
        ]
        found = np.unique(np.concatenate([self._best_sellers[: max(k, _BEST)], *near]))
        found = found[self._rows[found] >= 0].astype(np.int64)
        order = np.argsort(-self._model.odds(history, found), kind="stable")[:k]
        return tuple(self._table.product_ids(self._rows[found[order]]))

    @cached_property
    def _best_sellers(self) -> Integers:
        """Numbers of the products that most shoppers bought, at most as many as are asked for."""
        popularity = self._model.signals.popularity
        best = np.argsort(-popularity, kind="stable")[:_MOST_BEST]
        return best[popularity[best] > 0]

    def _history(self, bought: dict[str, int]) -> Integers:
        """Return the numbers of what was bought, each as often, the product bought last at last."""
        numbers = self._numbers[self._lookup.rows(list(bought))] if bought else np.empty(0, int)
        history = np.repeat(numbers, list(bought.values()))[::-1]
        return history[history < self._model.products]

    def _titles(self, partners: Integers) -> list[str | None]:
        rows = np.where(partners < 0, -1, self._rows[partners]).tolist()
        titles = self._lookup.titles([row for row in rows if row >= 0])
        return [titles[row] if row >= 0 else None for row in rows]


@dataclass(frozen=True)
class _Open:
    name: str
    as_of: datetime
    interest: LearnedInterest


class ShopInterest:
    """The learned interest of a store. Implements `reranker.ports.InterestSource`; thread-safe.

    What is learnt anew while this is in use is taken up within a second.
    """

    def __init__(self, stored: StoredInterest, table: ProductTable) -> None:
        """Open what has been learnt, if anything has; see `fault` where that cannot be used."""
        self._stored = stored
        self._table = table
        self._lock = Lock()
        self._open: _Open | None = None
        self._fault: str | None = None
        self._looked_at = -math.inf
        self._follow()

    @property
    def fault(self) -> str | None:
        """Say why what was learnt last cannot be used; None if it can."""
        return self._fault

    def knows(self, at: datetime) -> bool:
        """Tell whether it is worth asking what is known at a moment.

        Something that was learnt before it is open, or it is time to look for something new.
        """
        return self._usable(at) is not None or self._is_due()

    def tells(self, profile: UserProfile, at: datetime) -> bool:
        """Tell whether it knows anything that a shopper bought, and `knows` anything at all."""
        self._follow()
        opened = self._usable(at)
        return opened is not None and opened.interest.tells(profile)

    def of(
        self, profile: UserProfile | None, product_ids: Sequence[str], at: datetime
    ) -> tuple[ProductInterest, ...] | None:
        """Return the interest of a shopper in some products; None where it `knows` nothing."""
        self._follow()
        opened = self._usable(at)
        return opened.interest.of(profile, product_ids) if opened else None

    def likely(self, profile: UserProfile | None, k: int, at: datetime) -> tuple[str, ...]:
        """Return what a shopper may take next, likeliest first; empty where it `knows` nothing."""
        self._follow()
        opened = self._usable(at)
        return opened.interest.likely(profile, k) if opened else ()

    def _is_due(self) -> bool:
        return time.monotonic() - self._looked_at >= _LOOK_AGAIN_S

    def _usable(self, at: datetime) -> _Open | None:
        opened = self._open
        return opened if opened is not None and at >= opened.as_of else None

    def _follow(self) -> None:
        """Take up what was learnt since; what cannot be read leaves what is open in use."""
        if not self._is_due() or not self._lock.acquire(False):
            return
        try:
            self._take_up(self._stored.current)
        except DataError as error:
            if str(error) != self._fault:
                self._fault = str(error)
                logger.warning("the interest learnt last cannot be used: %s", error)
        finally:
            self._looked_at = time.monotonic()
            self._lock.release()

    def _take_up(self, name: str | None) -> None:
        """Use a generation, or the one that has taken its place while it was read.

        Raises:
            DataError: it cannot be read. It is tried again: that may pass.
        """
        while name is not None and (self._open is None or name != self._open.name):
            try:
                self._open = self._read(name)
            except DataError:
                latest = self._stored.current
                if latest == name:
                    raise
                name = latest
        if name is None:
            self._open = None
        self._fault = None

    def _read(self, name: str) -> _Open:
        manifest = self._stored.manifest(name)
        model, identities = self._stored.load(name, manifest)
        rows = identities.rows_in(self._table)
        numbers = np.full(len(self._table), -1, np.int64)
        there = np.flatnonzero(rows >= 0)
        numbers[rows[there]] = there
        return _Open(name, manifest.as_of, LearnedInterest(model, numbers, self._table))
