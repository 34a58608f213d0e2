"""What a shopper touched lately, buys again, and searched for."""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from statistics import median

import numpy as np

from reranker.schema import EventKind, Language, RecentItem, RepeatPurchase
from retrieval.product_lookup import ProductLookup
from retrieval.profiles.history import DAY_US, KINDS, PURCHASE, SEARCH, History, moment_of

_MOST_REPEATS = 20
_MOST_QUERIES = 10
_MOST_RETURNED = 10
_FEWEST_QUERIES = 3


def recent_items(history: History, lookup: ProductLookup, most: int) -> list[RecentItem]:
    """Return the latest products with the strongest thing done to each, newest first.

    At most ``most`` bought ones and as many others, so that an afternoon of looking around does not
    hide what was bought the week before.
    """
    places = history.chosen
    rows, first, which = np.unique(history.rows[places], return_index=True, return_inverse=True)
    strongest = np.full(len(rows), len(KINDS))
    np.minimum.at(strongest, which, history.kinds[places])
    newest = np.argsort(first)
    bought = strongest[newest] == PURCHASE
    kept = newest[np.sort(np.r_[np.flatnonzero(bought)[:most], np.flatnonzero(~bought)[:most]])]
    titles = lookup.titles(rows[kept].tolist())
    columns = zip(
        rows[kept].tolist(), strongest[kept].tolist(), places[first[kept]].tolist(), strict=True
    )
    return [
        RecentItem(
            product_id=str(history.product_ids[place]),
            title=titles[row],
            kind=EventKind(KINDS[kind]),
            at=moment_of(int(history.at_us[place])),
        )
        for row, kind, place in columns
    ]


def repeat_purchases(
    history: History, lookup: ProductLookup, *, timed: bool = True
) -> list[RepeatPurchase]:
    """Return what was bought at least twice, most often bought first.

    Args:
        history: of the shopper.
        lookup: of the titles.
        timed: whether the days between purchases mean anything.
    """
    places = history.bought
    rows, first, which, count = np.unique(
        history.rows[places], return_index=True, return_inverse=True, return_counts=True
    )
    repeated = np.flatnonzero(count > 1)
    # Most often first; among equals the one that was bought last.
    repeated = repeated[np.lexsort((first[repeated], -count[repeated]))][:_MOST_REPEATS]
    titles = lookup.titles(rows[repeated].tolist())
    return [
        _repeat(
            str(history.product_ids[places[first[code]]]),
            titles[int(rows[code])],
            history.at_us[places[which == code]].tolist(),
            timed=timed,
        )
        for code in repeated.tolist()
    ]


def purchases(history: History) -> dict[str, int]:
    """Return how often each known product was bought, the newest first."""
    ids = history.product_ids
    return dict(Counter(str(ids[place]) for place in history.bought.tolist()))


def recent_queries(history: History) -> list[str]:
    """Return what was searched for, newest first, each once."""
    places = np.flatnonzero(history.kinds == SEARCH).tolist()
    searched = [" ".join((history.queries[place] or "").split()) for place in places]
    distinct = {query.casefold(): query for query in reversed(searched) if query}
    newest = dict.fromkeys(query.casefold() for query in searched if query)
    return [distinct[folded] for folded in newest][:_MOST_QUERIES]


def returned_items(history: History, lookup: ProductLookup) -> list[RecentItem]:
    """Return what was sent back and not bought again since, newest first."""
    rows = lookup.rows(list(history.returned))
    titles = lookup.titles([row for row in rows.tolist() if row >= 0])
    return [
        RecentItem(
            product_id=product_id, title=titles[row], kind=EventKind("return"), at=moment_of(at_us)
        )
        for row, (product_id, at_us) in zip(rows.tolist(), history.returned.items(), strict=True)
        if row >= 0
    ][:_MOST_RETURNED]


def query_language(queries: Sequence[str]) -> Language | None:
    """Return the language of most queries, as far as prompts know languages; None for too few."""
    if len(queries) < _FEWEST_QUERIES:
        return None
    chinese = sum(any("\u4e00" <= c <= "\u9fff" for c in query) for query in queries)
    return "zh" if 2 * chinese > len(queries) else "en"


def _repeat(product_id: str, title: str, times: list[int], *, timed: bool) -> RepeatPurchase:
    last = moment_of(times[0])
    interval = _interval(times) if timed else None
    return RepeatPurchase(
        product_id=product_id,
        title=title,
        count=len(times),
        last_at=last,
        interval_days=interval,
        due_at=None if interval is None else last + timedelta(days=interval),
    )


def _interval(times: list[int]) -> float | None:
    """Return the median days between purchases; None if all were on one day."""
    days = sorted({at_us // DAY_US for at_us in times})
    gaps = [later - earlier for earlier, later in pairwise(days)]
    return float(median(gaps)) if gaps else None
