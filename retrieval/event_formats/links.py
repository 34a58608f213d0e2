"""What an import of logs knows of each request: who made it, what was asked, what was shown.

Request ids are unique in theory, and UBI's are UUIDs; real logs count 1, 2, 3 anew for every
shopper or visit. So a search and an event belong together only where the shopper is the same, too,
and the session, where both name one. A UBI query names its client, its events the signed-in user
besides: the two are one shopper where no other user has the client's request.

All of this goes by pseudonym (`retrieval.behaviour.identities`). The tables are temporary, but for
``client``: which user was seen at which client. Like every table with pseudonyms it has to be
emptied of a shopper who is erased.
"""

from collections.abc import Sequence

import duckdb

from retrieval.event_formats.actions import ActionTable

_NO_ONE = "'00000000-0000-0000-0000-000000000000'::UUID"
"""Stands for the missing shopper in ``fact`` and ``known``."""
_KNOWN = """CREATE TEMP TABLE known AS SELECT request_id, shopper, min(query) AS query,
    CASE WHEN bool_and(session_id IS NOT NULL) FILTER (asks)
        THEN min(session_id) FILTER (asks) END AS session_id,
    coalesce(min(query) < max(query) OR (bool_and(session_id IS NOT NULL) FILTER (asks)
        AND min(session_id) FILTER (asks) < max(session_id) FILTER (asks)), false) AS several,
    bool_or(role = 'search') AS searched, bool_or(role = 'shown') AS shown,
    bool_or(role = 'search' AND session_id IS NULL) AS searched_anywhere,
    bool_or(role = 'shown' AND session_id IS NULL) AS shown_anywhere,
    list(session_id) FILTER (role = 'search' AND session_id IS NOT NULL) AS searched_in,
    list(session_id) FILTER (role = 'shown' AND session_id IS NOT NULL) AS shown_in,
    NULL::STRUCT(session_id VARCHAR, query VARCHAR)[] AS texts
    FROM (SELECT *, query IS NOT NULL AS asks FROM fact) GROUP BY request_id, shopper"""


def link(
    connection: duckdb.DuckDBPyConnection,
    relation: str,
    actions: ActionTable,
    others: Sequence[str] = (),
) -> bool:
    """Make the tables that `retrieval.event_formats.requests.linked` joins.

    ``named`` is the view of all records, with the shopper where it could be filled in; ``known``
    holds what is known by request and shopper; ``told`` what the store says of events whose query
    is not clear.

    Args:
        connection: of the store, inside the transaction of the import.
        relation: the events of all logs in the import, by ``shopper`` and ``client``.
        actions: what their actions mean.
        others: SELECTs of ``request_id``, ``shopper`` and ``session_id`` of its other events.

    Returns:
        Whether there is anything in ``told``.
    """
    named = f"SELECT *, NULL::VARCHAR AS user_fault FROM {relation}"
    if _find_owners(connection, relation, others):
        named = f"""SELECT c.* REPLACE (coalesce(c.shopper, CASE WHEN {_OWNED}
            THEN o.shopper END) AS shopper),
            CASE WHEN c.shopper IS NULL THEN {_UNOWNED} END AS user_fault
        FROM {relation} c LEFT JOIN owner o
            ON o.request_id = CASE WHEN c.shopper IS NULL THEN c.request_id END"""
    connection.execute(f"CREATE TEMP VIEW named AS {named}")
    _collect_facts(connection, actions)
    connection.execute(_KNOWN)
    is_told = _find_unclear(connection)
    connection.execute("DROP TABLE fact")
    connection.execute(
        f"""UPDATE event SET query = found.query FROM (
            SELECT e.rowid AS place, {text("e")} AS query FROM event e
            JOIN known k ON e.request_id = k.request_id AND e.shopper = k.shopper
            WHERE e.query IS NULL) found
        WHERE event.rowid = found.place AND found.query IS NOT NULL"""
    )
    return is_told


def text(row: str) -> str:
    """Return the SQL of a row's query by ``known k``; NULL where it is not clear.

    Args:
        row: alias of a relation with ``session_id``.
    """
    fits = "{0} IS NULL OR {1}.session_id IS NULL OR {0} = {1}.session_id"
    asked = f"""list_distinct(list_transform(list_filter(k.texts,
        lambda each: {fits.format("each.session_id", row)}), lambda each: each.query))"""
    return f"""CASE WHEN NOT k.several
            THEN CASE WHEN {fits.format("k.session_id", row)} THEN k.query END
        WHEN len({asked}) = 1 THEN {asked}[1] END"""


def at_hand(row: str, what: str) -> str:
    """Return the SQL that tells whether a row's request and session are among ``known k``.

    Args:
        row: alias of a relation with ``session_id``.
        what: ``searched`` or ``shown``.
    """
    return f"""coalesce(k.{what} AND (k.{what}_anywhere OR {row}.session_id IS NULL
        OR list_contains(k.{what}_in, {row}.session_id)), false)"""


def shopper(row: str) -> str:
    """Return the SQL of the shopper of a row as ``known`` has it."""
    return f"coalesce({row}.shopper, {_NO_ONE})"


_OWNED = """(o.shoppers = 1 AND (o.anywhere OR c.session_id IS NULL
    OR list_contains(o.sessions, c.session_id)))"""
_UNOWNED = f"""CASE WHEN o.shoppers > 1 THEN 'missing, and ' || o.shoppers
        || ' shoppers have request ' || c.request_id || ': log the shopper with it'
    WHEN o.shoppers = 1 AND NOT {_OWNED} THEN 'missing, and request ' || c.request_id
        || ' is of another session: log the shopper with it' END"""


def _find_owners(connection: duckdb.DuckDBPyConnection, files: str, others: Sequence[str]) -> bool:
    """Put the shoppers of requests with records that name none into ``owner``, if there are any."""
    stored = "SELECT request_id, shopper, session_id FROM event"
    connection.execute(
        f"""CREATE TEMP TABLE owner AS
        WITH nameless AS (SELECT DISTINCT request_id FROM {files}
            WHERE shopper IS NULL AND request_id IS NOT NULL)
        SELECT request_id, count(DISTINCT shopper) AS shoppers, min(shopper) AS shopper,
            bool_or(session_id IS NULL) AS anywhere, list(DISTINCT session_id) AS sessions
        FROM (SELECT request_id, shopper, session_id FROM {files}
                WHERE fault IS NULL
            UNION ALL {" UNION ALL ".join([stored, *others])})
        SEMI JOIN nameless USING (request_id) WHERE shopper IS NOT NULL GROUP BY request_id"""
    )
    return _any(connection, "owner")


def _collect_facts(connection: duckdb.DuckDBPyConnection, actions: ActionTable) -> None:
    """Put what each shopper's requests asked and showed into ``fact``.

    The text of an event counts only where no search of the request is known: it may be cut.
    """
    user = shopper("named")
    here = "FROM named WHERE fault IS NULL AND request_id IS NOT NULL"
    stored = f"FROM event WHERE request_id IN (SELECT request_id {here})"
    connection.execute(
        f"""CREATE TEMP TABLE fact AS
        SELECT request_id, {user} AS shopper, session_id, query, 'search' AS role
            {here} AND origin = 'query'
        UNION ALL SELECT request_id, shopper, session_id, query, 'search'
            {stored} AND kind = 'search'"""
    )
    if _any(connection, "named WHERE fault IS NULL AND origin = 'hits'"):
        connection.execute(
            f"""INSERT INTO fact SELECT DISTINCT * FROM (
            SELECT request_id, {user}, session_id, NULL, 'shown'
                {here} AND origin = 'event' AND {actions.kind("kind")} = 'impression'
            UNION ALL SELECT request_id, shopper, session_id, NULL, 'shown'
                {stored} AND kind = 'impression')"""
        )
    _join_clients(connection)
    connection.execute(
        f"""INSERT INTO fact SELECT request_id, shopper, session_id, query, 'text' FROM (
            SELECT request_id, {user} AS shopper, session_id, query
            {here} AND origin = 'event' AND query IS NOT NULL)
        ANTI JOIN (FROM fact WHERE role = 'search') USING (request_id, shopper)"""
    )


def _find_unclear(connection: duckdb.DuckDBPyConnection) -> bool:
    """Note all queries of requests that have several; fill ``told``, and say if there is any."""
    connection.execute(
        """UPDATE known SET texts = found.texts FROM (
            SELECT request_id, shopper,
                list({'session_id': session_id, 'query': query}) AS texts
            FROM fact SEMI JOIN (FROM known WHERE several) USING (request_id, shopper)
            WHERE query IS NOT NULL GROUP BY request_id, shopper) found
        WHERE known.request_id = found.request_id AND known.shopper = found.shopper"""
    )
    connection.execute(
        """CREATE TEMP TABLE told AS SELECT request_id, shopper, session_id, kind, "at", product_id,
            min(query) AS query
        FROM event SEMI JOIN (FROM known WHERE several) USING (request_id, shopper)
        WHERE kind <> 'search' AND query IS NOT NULL GROUP BY ALL HAVING min(query) = max(query)"""
    )
    return _any(connection, "told")


def _any(connection: duckdb.DuckDBPyConnection, relation: str) -> bool:
    return bool(connection.execute(f"SELECT EXISTS (FROM {relation})").fetchall()[0][0])


def _join_clients(connection: duckdb.DuckDBPyConnection) -> None:
    """Give users what was asked and shown at their clients, and the other way round."""
    connection.execute(
        """INSERT INTO client SELECT DISTINCT shopper, client FROM named
        WHERE fault IS NULL AND client <> shopper EXCEPT FROM client"""
    )
    connection.execute(
        """CREATE TEMP TABLE claim AS SELECT request_id, client, min(shopper) AS shopper FROM (
            SELECT request_id, client, shopper FROM named
                WHERE fault IS NULL AND request_id IS NOT NULL AND client <> shopper
            UNION ALL SELECT request_id, client, shopper FROM event JOIN client USING (shopper)
                WHERE request_id IN (SELECT request_id FROM named))
        GROUP BY request_id, client HAVING min(shopper) = max(shopper)"""
    )
    connection.execute(
        """INSERT INTO fact SELECT f.* REPLACE (c.shopper AS shopper) FROM fact f
            JOIN claim c ON f.request_id = c.request_id AND f.shopper = c.client
        UNION ALL SELECT f.* REPLACE (c.client AS shopper) FROM fact f
            JOIN claim c ON f.request_id = c.request_id AND f.shopper = c.shopper"""
    )
