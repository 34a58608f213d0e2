"""Logged clicks arranged for click models: counts by pair and place, and whole sessions."""

from dataclasses import dataclass

import numpy as np

from eval.logs import LoggedLists
from eval.statistics.estimates import Floats, Integers, RefusedEstimate, cluster_sums

_MOST_ROUNDS = 2000


@dataclass(frozen=True)
class ClickCells:
    """Impressions and clicks by (query, product) pair and place.

    Attributes:
        pair: the pair of each logged row.
        shown: impressions, shape (pairs, places).
        mass: impressions by weight (equal to ``shown`` without weights), (pairs, places).
        clicks: clicks by weight, (pairs, places).
        group: the group of shoppers of each logged row.
        cell: of each logged row, its place in the flattened counts.
        weight: of each logged row.
        clicked: of each logged row, weight or 0.
    """

    pair: Integers
    shown: Floats
    mass: Floats
    clicks: Floats
    group: Integers
    cell: Integers
    weight: Floats
    clicked: Floats

    @classmethod
    def of(
        cls,
        logs: LoggedLists,
        *,
        by_propensity: bool = False,
        groups: Integers | None = None,
    ) -> "ClickCells":
        """Count a log, optionally with weights 1 / propensity, and groups that can be left out."""
        keys = logs.queries[logs.request] * len(logs.products) + logs.product
        _, pair = np.unique(keys, return_inverse=True)
        pair = pair.astype(np.int64)
        group = np.zeros(len(logs), np.int64) if groups is None else groups
        shape = (int(pair.max()) + 1, int(logs.position.max()))
        cell = np.ravel_multi_index((pair, logs.position - 1), shape).astype(np.int64)
        weight = 1 / logs.propensity if by_propensity else np.ones(len(pair))
        clicked = weight * logs.reached()
        shown, mass, clicks = (
            cluster_sums(column, cell, shape[0] * shape[1]).reshape(shape)
            for column in (np.ones(len(pair)), weight, clicked)
        )
        rows = group[logs.request]
        return cls(pair, shown, mass, clicks, rows, cell, weight, clicked)

    @property
    def pairs_in_several_places(self) -> int:
        """Number of (query, product) pairs that were shown in at least two places."""
        return int(((self.shown > 0).sum(axis=1) > 1).sum())

    def without(self, group: int) -> tuple[Floats, Floats, Floats]:
        """Return ``shown``, ``mass`` and ``clicks`` of all other groups."""
        out = self.group == group
        cell, weight, clicked = self.cell[out], self.weight[out], self.clicked[out]
        shown, mass, clicks = self.shown.copy(), self.mass.copy(), self.clicks.copy()
        for counts, column in ((shown, np.ones(len(cell))), (mass, weight), (clicks, clicked)):
            np.subtract.at(counts.reshape(-1), cell, column)
        # Subtracting weights leaves rounding noise where nothing was shown.
        mass[shown == 0] = 0.0
        clicks[shown == 0] = 0.0
        return shown, mass, np.maximum(clicks, 0.0)


@dataclass(frozen=True)
class CascadeFit:
    """A fitted cascade.

    Attributes:
        goes_on: probability to go on after a click, and after a skip.
        attraction: of each (query, product) pair.
        examination: average probability that a list is read down to each place.
        rounds: of expectation-maximisation.
    """

    goes_on: Floats
    attraction: Floats
    examination: Floats
    rounds: int


@dataclass(frozen=True)
class Sessions:
    """Logged lists of one length as matrices.

    Attributes:
        pair: the (query, product) pair in each place, shape (requests, places).
        clicks: 0 or 1, same shape.
        known: 1 down to the last click: there the reading is certain.
    """

    pair: Integers
    clicks: Floats
    known: Floats

    @classmethod
    def of(cls, logs: LoggedLists) -> "Sessions":
        """Arrange a log.

        Raises:
            RefusedEstimate: its lists have gaps or differ in length.
        """
        places = int(logs.position.max())
        if (logs.list_length != places).any():
            message = (
                "the cascade needs lists of one length without gaps: cut all lists to the places "
                "that every list fills"
            )
            raise RefusedEstimate(message)
        shape = (len(logs), places)
        clicks = logs.reached().reshape(shape)
        known = np.cumsum(clicks[:, ::-1], axis=1)[:, ::-1] > 0
        known[:, 0] = True
        return cls(ClickCells.of(logs).pair.reshape(shape), clicks, known.astype(np.float64))

    def fit(
        self, weights: Floats, goes_on: Floats, attraction: Floats | None, tolerance: float
    ) -> CascadeFit:
        """Fit by expectation-maximisation, each request with a weight."""
        count = int(self.pair.max()) + 1
        row = weights[:, None]
        hits = np.bincount(self.pair.ravel(), (row * self.clicks).ravel(), count)
        shown = np.bincount(self.pair.ravel(), np.broadcast_to(row, self.pair.shape).ravel(), count)
        chance = (hits + 0.5) / (shown + 1) if attraction is None else attraction
        rounds, moved = 0, np.inf
        while moved >= tolerance and rounds < _MOST_ROUNDS:
            rounds += 1
            read = self._read(chance[self.pair], goes_on)
            examined = np.bincount(self.pair.ravel(), (row * read).ravel(), count)
            chance = np.clip(hits / np.where(examined > 0, examined, 1.0), 1e-9, 1 - 1e-9)
            new = self._goes_on(read, row)
            moved = float(np.abs(new - goes_on).max())
            goes_on = new
        return CascadeFit(goes_on, chance, self._curve(chance, goes_on, weights), rounds)

    def _read(self, chance: Floats, goes_on: Floats) -> Floats:
        """Return P(place was read | all clicks of the list): 1 down to the last click."""
        places = self.clicks.shape[1]
        # silent[k]: no click from place k on, given that place k is read.
        silent = np.ones((len(chance), places + 1))
        after_click, after_skip = float(goes_on[0]), float(goes_on[1])
        for k in range(places - 1, -1, -1):
            below = silent[:, k + 1] if k + 1 < places else 1.0
            silent[:, k] = (1 - chance[:, k]) * (1 - after_skip + after_skip * below)
        read = self.known.copy()
        for k in range(1, places):
            step = np.where(self.clicks[:, k - 1] > 0, after_click, after_skip)
            onward = step * silent[:, k]
            posterior = onward / np.maximum(1 - step + onward, 1e-300)
            read[:, k] = np.where(self.known[:, k] > 0, 1.0, read[:, k - 1] * posterior)
        return read

    def _goes_on(self, read: Floats, row: Floats) -> Floats:
        clicked = self.clicks[:, :-1] > 0
        here, next_read = row * read[:, :-1], row * read[:, 1:]
        rates = [
            np.sum(next_read * kind) / max(float(np.sum(here * kind)), 1e-300)
            for kind in (clicked, ~clicked)
        ]
        return np.clip(np.array(rates, np.float64), 1e-9, 1 - 1e-9)

    def _curve(self, chance: Floats, goes_on: Floats, weights: Floats) -> Floats:
        attracted = chance[self.pair[:, :-1]]
        steps = attracted * goes_on[0] + (1 - attracted) * goes_on[1]
        reach = np.cumprod(np.concatenate([np.ones((len(steps), 1)), steps], axis=1), axis=1)
        curve: Floats = weights @ reach / weights.sum()
        return curve
