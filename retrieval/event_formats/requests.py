"""Joins events to the searches that led to them, where a format logs the two apart.

The text of a query, and its shopper where an event names none, come from the import's own files or
from what the store knows. A search that arrives after its events gives them its query, so that the
order of imports does not matter.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb

from retrieval.event_formats.actions import ActionTable
from retrieval.event_formats.sql import literal, source


def link(
    connection: duckdb.DuckDBPyConnection, copies: Sequence[Path], actions: ActionTable
) -> None:
    """Make the temporary tables that `linked` joins, and complete the events of the store.

    ``request`` holds query and shopper by request; ``searched`` the requests with a search of their
    own, besides one that the client may have logged as an event; ``shown`` those of which it is
    known what was shown, so that the hits of the query are no impressions.
    """
    files = f"read_parquet([{', '.join(source(copy) for copy in copies)}])"
    kind = actions.kind("kind")
    connection.execute(
        f"""CREATE TEMP TABLE request AS
        SELECT request_id, coalesce(min(query) FILTER (origin = 'query'), min(query)) AS query,
            min(user_id) AS user_id
        FROM {files} WHERE request_id IS NOT NULL AND fault IS NULL
            AND (query IS NOT NULL OR user_id IS NOT NULL)
        GROUP BY request_id"""
    )
    connection.execute(
        f"""INSERT INTO request SELECT request_id, min(query), min(user_id) FROM event
        WHERE kind = 'search' AND request_id IN (SELECT request_id FROM {files})
            AND request_id NOT IN (SELECT request_id FROM request WHERE query IS NOT NULL)
        GROUP BY request_id"""
    )
    connection.execute(
        f"""CREATE TEMP TABLE searched AS
        SELECT DISTINCT request_id FROM {files} WHERE origin = 'query' AND request_id IS NOT NULL
        UNION SELECT request_id FROM event WHERE kind = 'search'
            AND request_id IN (SELECT request_id FROM {files} WHERE origin = 'event')"""
    )
    connection.execute(
        f"""CREATE TEMP TABLE shown AS
        SELECT DISTINCT request_id FROM {files}
        WHERE origin = 'event' AND request_id IS NOT NULL AND {kind} = 'impression'
        UNION SELECT request_id FROM event WHERE kind = 'impression'
            AND request_id IN (SELECT request_id FROM {files} WHERE origin = 'hits')"""
    )
    connection.execute(
        """UPDATE event SET query = request.query FROM request
        WHERE event.request_id = request.request_id AND event.query IS NULL
            AND request.query IS NOT NULL"""
    )


def linked(copies: Sequence[Path], actions: ActionTable) -> str:
    """Return the relation of the events in some copies, completed from their requests."""
    files = ", ".join(source(copy) for copy in copies)
    search = f"coalesce({actions.kind('c.kind')} = 'search', false)"
    return f"""(SELECT c.* REPLACE (coalesce(c.query, r.query) AS query,
            coalesce(c.user_id, r.user_id) AS user_id)
        FROM read_parquet([{files}], filename = true) c
        LEFT JOIN (SELECT request_id, min(query) AS query, min(user_id) AS user_id FROM request
            GROUP BY request_id) r ON c.request_id = r.request_id
        WHERE c.fault IS NOT NULL OR (c.origin <> 'none'
            AND NOT coalesce(c.origin = 'event' AND {search}
                AND c.request_id IN (SELECT request_id FROM searched), false)
            AND NOT coalesce(c.origin = 'hits'
                AND c.request_id IN (SELECT request_id FROM shown), false)))"""


class Tally(NamedTuple):
    """What foreign logs hold.

    Attributes:
        rows: records, bulk action lines left out.
        events: made of them, before `linked` leaves out what is told twice.
        linked: after that.
        without: documents that are no behaviour, such as Metarank's items.
    """

    rows: int = 0
    events: int = 0
    linked: int = 0
    without: int = 0


def tally(
    connection: duckdb.DuckDBPyConnection, copies: Sequence[Path], actions: ActionTable
) -> Tally:
    """Count what the copies hold."""
    if not copies:
        return Tally()
    files = ", ".join(source(copy) for copy in copies)
    counted = connection.execute(
        f"""SELECT count(DISTINCT (filename, source_row)),
        count(*) FILTER (origin <> 'none' OR fault IS NOT NULL),
        (SELECT count(*) FROM {linked(copies, actions)}),
        count(*) FILTER (origin = 'none' AND fault IS NULL)
        FROM read_parquet([{files}], filename = true)"""
    )
    return Tally(*counted.fetchall()[0])


def write(connection: duckdb.DuckDBPyConnection, query: str, copy: Path) -> None:
    """Write the events of one file as Parquet."""
    connection.execute(f"COPY ({query}) TO {literal(copy)} (FORMAT parquet)")
