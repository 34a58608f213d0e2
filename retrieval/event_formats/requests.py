"""Joins events to the searches that led to them, where a format logs the two apart.

The text of a query, and its shopper where an event names none, come from the import's own files or
from what the store knows, where `retrieval.event_formats.links` finds no doubt. A search that
arrives after its events gives them its query, so that the order of imports does not matter.
"""

from pathlib import Path
from typing import NamedTuple

import duckdb

from retrieval.event_formats.actions import ActionTable
from retrieval.event_formats.links import at_hand, shopper, text
from retrieval.event_formats.sql import literal


def linked(actions: ActionTable) -> str:
    """Return the relation of the events in the logs that `link` was given, completed.

    ``user_fault`` says why a missing shopper could not be filled in.
    """
    search = f"coalesce({actions.kind('c.kind')} = 'search', false)"
    return f"""(SELECT c.* REPLACE (coalesce(c.query, {text("c")}) AS query)
        FROM named c
        LEFT JOIN known k ON c.request_id = k.request_id AND {shopper("c")} = k.shopper
        WHERE c.fault IS NOT NULL OR (c.origin <> 'none'
            AND NOT (c.origin = 'event' AND {search} AND {at_hand("c", "searched")})
            AND NOT (c.origin = 'hits' AND {at_hand("c", "shown")})))"""


class Tally(NamedTuple):
    """What foreign logs hold.

    Attributes:
        rows: records, bulk action lines left out.
        events: made of them, before `linked` leaves out what is told twice.
        without: documents that are no behaviour, such as Metarank's items.
    """

    rows: int = 0
    events: int = 0
    without: int = 0


def tally(connection: duckdb.DuckDBPyConnection) -> Tally:
    """Count what the logs that `link` was given hold."""
    counted = connection.execute(
        """SELECT sum(rows)::BIGINT, sum(events)::BIGINT, sum(without)::BIGINT FROM (
            SELECT count(DISTINCT source_row) AS rows,
                count(*) FILTER (origin <> 'none' OR fault IS NOT NULL) AS events,
                count(*) FILTER (origin = 'none' AND fault IS NULL) AS without
            FROM named GROUP BY filename)"""
    ).fetchall()[0]
    return Tally(*(number or 0 for number in counted))


def write(connection: duckdb.DuckDBPyConnection, query: str, copy: Path) -> None:
    """Write the events of one file as Parquet."""
    connection.execute(f"COPY ({query}) TO {literal(copy)} (FORMAT parquet)")
