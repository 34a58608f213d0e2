"""Reads the past of shoppers: of one, or of all in one pass."""

from collections.abc import Iterator
from datetime import datetime
from itertools import groupby
from typing import Any, NamedTuple

import duckdb

from retrieval.behaviour.pseudonyms import Pseudonym

_BATCH = 20_000


class PastEvent(NamedTuple):
    """One event as profiles read it; ``at_us`` is in microseconds since 1970, UTC."""

    kind: str
    at_us: int
    product_id: str | None
    query: str | None
    discount: float | None = None


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
