"""Reads the past of shoppers: of one, or of all in one pass."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

import duckdb

from reranker.schema import EventKind
from retrieval.behaviour.pseudonyms import Pseudonym

_BATCH = 20_000
_STRENGTHS = {str(kind): -strength for strength, kind in enumerate(EventKind)}


class PastEvent(NamedTuple):
    """One event as profiles read it; ``at_us`` is in microseconds since 1970, UTC."""

    kind: str
    at_us: int
    product_id: str | None
    query: str | None
    discount: float | None = None


def newest_first(rows: Iterable[tuple[Any, ...]]) -> list[PastEvent]:
    """Return one shopper's events in the order of `retrieval.behaviour.schema.HistoryQuestions`.

    Newest first; of one moment the strongest deed first, then by product and query.
    """
    events = [PastEvent(*row) for row in rows]
    events.sort(key=_place)
    return events


def _place(event: PastEvent) -> tuple[int, int, bool, str, bool, str]:
    product_id, query = event.product_id, event.query
    return (
        -event.at_us,
        _STRENGTHS[event.kind],
        product_id is None,
        product_id or "",
        query is None,
        query or "",
    )


def histories(
    connection: duckdb.DuckDBPyConnection, past: str, as_of: datetime, *, limit: int
) -> Iterator[tuple[Pseudonym, list[PastEvent]]]:
    """Yield the past of each shopper in a relation of `retrieval.behaviour.schema.past`."""
    found = connection.execute(
        f"""SELECT shopper, kind::VARCHAR, epoch_us("at"), product_id, query, discount
        FROM {past} WHERE kind <> 'impression'
        ORDER BY shopper, "at" DESC, kind DESC, product_id, query""",
        {"as_of": as_of},
    )
    for shopper, rows in groupby(_rows(found), key=lambda row: row[0]):
        events = [PastEvent(*row[1:]) for place, row in enumerate(rows) if place < limit]
        yield Pseudonym(shopper), events


def _rows(found: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while rows := found.fetchmany(_BATCH):
        yield from rows
