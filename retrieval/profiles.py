"""From behaviour to a `UserProfile`: what a shopper likes, buys again, and looked at last.

An event counts by its kind and, halving every ``half_life_days``, by its age. Weights are shares
of all that is known of their kind, so that they do not depend on how much somebody shops.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from statistics import median

import numpy as np
import numpy.typing as npt

from reranker.ports import Tokenizer
from reranker.schema import (
    Affinity,
    AffinityKind,
    EventKind,
    Language,
    RecentItem,
    RepeatPurchase,
    UserProfile,
)
from reranker.settings import ProfileSettings
from retrieval.behaviour import BehaviourStore, PastEvent
from retrieval.product_facts import CodedFact, ProductFacts, parent_category
from retrieval.product_table import IntArray, ProductTable
from retrieval.profile_text import Findings, summarise

KIND_WEIGHTS = {"purchase": 5.0, "cart": 3.0, "favourite": 2.0, "click": 1.0, "view": 0.5}
"""Searches and impressions weigh nothing: they name no product that the shopper chose."""
POPULAR_DAYS = 28
_MOST_AFFINITIES = 20
_MOST_REPEATS = 20
_MOST_QUERIES = 10
_POPULAR_CACHED = 64
_DAY_US = 86_400_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_Tally = dict[str, tuple[float, int]]
"""Name to its share of the weight and its number of events."""


@dataclass(frozen=True)
class _History:
    """One shopper's events, newest first, with the catalogue row of each (-1: none)."""

    events: Sequence[PastEvent]
    rows: IntArray
    titles: dict[str, str]


class DuckDBProfileStore:
    """Implements `reranker.ports.ProfileStore` over a behaviour store and a catalogue snapshot."""

    def __init__(
        self,
        behaviour: BehaviourStore,
        products: ProductTable,
        settings: ProfileSettings,
        tokenizer: Tokenizer,
    ) -> None:
        self._behaviour = behaviour
        self._products = products
        self._facts = ProductFacts(products)
        self._settings = settings
        self._tokenizer = tokenizer
        self._popular = lru_cache(maxsize=_POPULAR_CACHED)(self._count_popular)

    def profile(
        self, user_id: str, as_of: datetime, language: Language = "en"
    ) -> UserProfile | None:
        """Return the profile from events strictly before ``as_of``; None without any.

        Impressions alone make no profile. Products that have left the catalogue are not named.
        """
        limit = self._settings.max_events
        events = self._behaviour.history(user_id, as_of, limit=limit)
        if not events:
            return None
        history = self._look_up(events)
        findings = Findings(
            affinities=self._affinities(history),
            recent_items=_recent_items(history, self._settings.recent_items),
            repeat_purchases=_repeat_purchases(history),
            recent_queries=_recent_queries(events),
        )
        summary = summarise(findings, language, self._tokenizer, self._settings.max_tokens, user_id)
        return UserProfile(
            user_id=user_id,
            as_of=as_of,
            affinities=tuple(findings.affinities),
            recent_items=tuple(findings.recent_items),
            repeat_purchases=tuple(findings.repeat_purchases),
            recent_queries=tuple(findings.recent_queries),
            event_count=len(events),
            summary=summary,
            language=language,
        )

    def popular(self, as_of: datetime, *, k: int) -> tuple[str, ...]:
        """Return at most k product ids by purchases in the four weeks before the hour of ``as_of``.

        Counted once an hour: what happened since the full hour does not count yet, so that
        nothing from ``as_of`` on ever does. Clicks, then views, fill up what purchases leave.
        """
        hour = as_of.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return self._popular(hour, k, self._behaviour.generation)

    def _count_popular(self, hour: datetime, k: int, _generation: int) -> tuple[str, ...]:
        return self._behaviour.popular(hour, days=POPULAR_DAYS, k=k)

    def _look_up(self, events: Sequence[PastEvent]) -> _History:
        ids = list(dict.fromkeys(event.product_id for event in events if event.product_id))
        found = self._products.rows_of_ids(ids)
        row_of: dict[str | None, int] = dict(zip(ids, found.tolist(), strict=True))
        rows = np.array([row_of.get(event.product_id, -1) for event in events], np.int64)
        named = _to_name(events, row_of, self._settings.recent_items)
        titles = self._products.titles([row_of[product_id] for product_id in named])
        return _History(events, rows, dict(zip(named, titles, strict=True)))

    def _affinities(self, history: _History) -> list[Affinity]:
        at = np.array([event.at_us for event in history.events], np.float64)
        # Ages count from the newest event: shares are the same, and old ones do not underflow.
        age_days = (at[0] - at) / _DAY_US
        kinds = np.array([KIND_WEIGHTS.get(event.kind, 0.0) for event in history.events])
        weights = kinds * np.exp2(-age_days / self._settings.half_life_days)
        counted = (history.rows >= 0) & (kinds > 0)
        rows, weights = history.rows[counted], weights[counted]
        facts = self._facts
        brand, category, band = (
            _tally(fact, rows, weights) for fact in (facts.brand, facts.category, facts.band)
        )
        return [
            *self._telling("brand", brand),
            *self._telling("category", _with_parents(category)),
            *self._telling("price_band", band),
        ]

    def _telling(self, kind: AffinityKind, tally: _Tally) -> list[Affinity]:
        enough = [
            (name, share, evidence)
            for name, (share, evidence) in tally.items()
            if evidence >= self._settings.min_evidence
        ]
        enough.sort(key=lambda entry: (-entry[1], entry[0]))
        return [
            Affinity(kind=kind, name=name, weight=min(share, 1.0), evidence=evidence)
            for name, share, evidence in enough[:_MOST_AFFINITIES]
        ]


def _tally(fact: CodedFact, rows: IntArray, weights: npt.NDArray[np.float64]) -> _Tally:
    codes = fact.codes[rows]
    known = codes >= 0
    names, places = np.unique(codes[known], return_inverse=True)
    sums = np.bincount(places, weights=weights[known])
    counts = np.bincount(places)
    total = float(sums.sum())
    if total <= 0:
        return {}
    return {
        fact.names[code]: (share / total, count)
        for code, share, count in zip(names.tolist(), sums.tolist(), counts.tolist(), strict=True)
    }


def _with_parents(tally: _Tally) -> _Tally:
    """Add the parents that say more than one child does: those of several touched children."""
    children: dict[str, list[str]] = {}
    for name in tally:
        parent = parent_category(name)
        if parent is not None:
            children.setdefault(parent, []).append(name)
    joined = dict(tally)
    for parent, names in children.items():
        if len(names) > 1:
            parts = [tally[name] for name in (*names, parent) if name in tally]
            joined[parent] = (sum(p[0] for p in parts), sum(p[1] for p in parts))
    return joined


def _to_name(events: Sequence[PastEvent], row_of: dict[str | None, int], recent: int) -> list[str]:
    """Return the products of the catalogue whose titles the profile needs."""
    chosen = [e for e in events if e.kind != "search" and e.product_id]
    known = (e.product_id for e in chosen if row_of[e.product_id] >= 0)
    latest = [p for p in dict.fromkeys(known) if p][:recent]
    bought = Counter(e.product_id for e in events if e.kind == "purchase")
    repeated = [p for p, count in bought.items() if p and count > 1 and row_of[p] >= 0]
    return list(dict.fromkeys([*latest, *repeated]))


def _recent_items(history: _History, most: int) -> list[RecentItem]:
    strongest: dict[str, str] = {}
    newest: dict[str, int] = {}
    for event in history.events:
        product_id = event.product_id
        if product_id is None or product_id not in history.titles or event.kind == "search":
            continue
        newest.setdefault(product_id, event.at_us)
        best = strongest.get(product_id, event.kind)
        strongest[product_id] = max(best, event.kind, key=lambda kind: KIND_WEIGHTS[kind])
    return [
        RecentItem(
            product_id=product_id,
            title=history.titles[product_id],
            kind=EventKind(strongest[product_id]),
            at=_moment(at_us),
        )
        for product_id, at_us in list(newest.items())[:most]
    ]


def _repeat_purchases(history: _History) -> list[RepeatPurchase]:
    bought: dict[str, list[int]] = {}
    for event in history.events:
        if event.kind == "purchase" and event.product_id in history.titles:
            bought.setdefault(str(event.product_id), []).append(event.at_us)
    repeated = [
        RepeatPurchase(
            product_id=product_id,
            title=history.titles[product_id],
            count=len(times),
            last_at=_moment(max(times)),
            interval_days=_interval(_moment(at_us).date() for at_us in times),
        )
        for product_id, times in bought.items()
        if len(times) > 1
    ]
    # The history is newest first, and sorting keeps that order among equals.
    repeated.sort(key=lambda repeat: -repeat.count)
    return repeated[:_MOST_REPEATS]


def _interval(dates: Iterable[date]) -> float | None:
    """Return the median days between purchases; None if all were on one day."""
    days = sorted(set(dates))
    gaps = [(later - earlier).days for earlier, later in pairwise(days)]
    return float(median(gaps)) if gaps else None


def _recent_queries(events: Sequence[PastEvent]) -> list[str]:
    searched = [" ".join((e.query or "").split()) for e in events if e.kind == "search"]
    distinct = {query.casefold(): query for query in reversed(searched) if query}
    newest = dict.fromkeys(query.casefold() for query in searched if query)
    return [distinct[folded] for folded in newest][:_MOST_QUERIES]


def _moment(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)
