"""Replaces what identifies shoppers before an import does anything else with its events.

Temporary tables hold what is replaced, each text once, however many events have it: ``pseudonym``
(``given``, ``user_id``: the same trimmed, ``shopper``), ``scrubbed`` (``query``, ``clean``), and
``own`` (``given``, ``query``, ``before``, ``clean``) of the queries that hold the user id of their
shopper, where ``before`` is what stores that are older than its removal have.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import duckdb
import pyarrow as pa

from reranker.schema import LONGEST_QUERY
from retrieval.behaviour.pseudonyms import Pseudonyms
from retrieval.behaviour.scrubbing import SUSPECT, Scrubber
from retrieval.event_formats.sql import SPACES, literal, trimmed
from retrieval.user_ids import COMPATIBLE, SHORTEST, Secret

_BATCH = 200_000
_BLANK = r"[\s\v\x{1c}-\x{1f}\x{85}\pZ]*"
"""Regular expression (RE2) of what `str.strip` leaves nothing of."""


class Replaced(NamedTuple):
    """Whether queries have to be replaced by ``scrubbed``, and by ``own``."""

    scrubbed: bool = False
    own: bool = False


def learn(
    connection: duckdb.DuckDBPyConnection,
    users: Sequence[str],
    queries: Sequence[str],
    pseudonyms: Pseudonyms,
    scrubber: Scrubber,
) -> Replaced:
    """Make the tables.

    Args:
        connection: of the store, inside the transaction of the import.
        users: SELECTs of one column with user ids, not yet trimmed.
        queries: SELECTs of user ids and queries, not yet trimmed; what is too long is cut.
        pseudonyms: of the store.
        scrubber: of queries.

    Returns:
        Which of them say of any query what it has to be replaced by.
    """
    _distinct(connection, users, f"NOT regexp_full_match(given, {literal(_BLANK)})")
    connection.execute("CREATE TEMP TABLE made (given VARCHAR, user_id VARCHAR, shopper UUID)")
    made = f"INSERT INTO made SELECT a, {trimmed('a')}, b::UUID"
    _replace(connection, pseudonyms.hexes, made)
    connection.execute(
        """CREATE TEMP TABLE pseudonym AS
            SELECT *, dense_rank() OVER (ORDER BY shopper)::UINTEGER AS place FROM made;
        DROP TABLE made;
        CREATE TEMP TABLE scrubbed (query VARCHAR, clean VARCHAR)"""
    )

    def clean(texts: Sequence[str]) -> list[str]:
        return [scrubber.clean(text.strip(SPACES)) for text in texts]

    texts = [f"SELECT query FROM ({select}) t(given, query)" for select in queries]
    long = f"strlen(given) > {LONGEST_QUERY} AND length(given) > {LONGEST_QUERY}"
    _distinct(connection, texts, f"{long} OR regexp_matches(given, {literal(SUSPECT)})")
    _replace(connection, clean, f"INSERT INTO scrubbed SELECT DISTINCT {trimmed('a')}, b")
    connection.execute("DELETE FROM scrubbed WHERE query = clean")
    _find_own(connection, queries, scrubber)
    found = connection.execute("SELECT EXISTS (FROM scrubbed), EXISTS (FROM own)").fetchall()[0]
    _renew(connection)
    return Replaced(*found)


def _find_own(
    connection: duckdb.DuckDBPyConnection, queries: Sequence[str], scrubber: Scrubber
) -> None:
    """Put the queries that hold the user id of their shopper into ``own``.

    A query that is logged with its client alone keeps the id of a user who is known there.
    """
    wide = "strlen({0}) > length({0}) AND regexp_matches({0}, {1})"
    rows = connection.execute(
        f"""SELECT DISTINCT given, {trimmed("query")}
        FROM ({" UNION ALL ".join(queries)}) t(given, query)
        WHERE query IS NOT NULL AND length(given) >= {SHORTEST}
        AND (contains(lower(query), lower({trimmed("given")}))
            OR ({wide.format("query", literal(COMPATIBLE))})
            OR ({wide.format("given", literal(COMPATIBLE))}))"""
    ).fetchall()
    found = [
        (given, query, _before(scrubber, query), scrubber.clean(query, given))
        for given, query in rows
        if query and Secret(given).occurs_in(query)
    ]
    names = ("given", "query", "before", "clean")
    schema = pa.schema([(name, "string") for name in names])
    connection.register(
        "batch",
        pa.Table.from_pylist([dict(zip(names, each, strict=True)) for each in found], schema),
    )
    connection.execute("CREATE TEMP TABLE own AS FROM batch")
    connection.unregister("batch")


def _before(scrubber: Scrubber, query: str) -> str:
    return query if len(query) > LONGEST_QUERY else scrubber.clean(query)


def _renew(connection: duckdb.DuckDBPyConnection) -> None:
    """Give events that were stored before such queries were replaced the ones of this import.

    Without it, the same files would add them again.
    """
    long = f"strlen(query) > {LONGEST_QUERY} AND length(query) > {LONGEST_QUERY}"
    for same, renewed in (
        (
            "event.shopper = r.shopper",
            "shopper, before, clean FROM own JOIN pseudonym USING (given)",
        ),
        ("true", f"query AS before, clean FROM scrubbed WHERE {long}"),
    ):
        if connection.execute(f"SELECT EXISTS (SELECT {renewed})").fetchall()[0][0]:
            connection.execute(
                f"""UPDATE event SET query = r.clean FROM (SELECT DISTINCT {renewed}) r
                WHERE {same} AND event.query = r.before AND r.before <> r.clean"""
            )


def protected(relation: str, *, scrubs: Replaced, client: bool = False) -> str:
    """Return a relation with ``shopper`` besides, trimmed ids, and queries that tell of nobody.

    ``place`` is a small number in the order of the shoppers: it sorts faster than they do.
    Where the session stands for a missing user, it would be the user id in clear: it is left out.

    Args:
        relation: with ``user_id``, not yet trimmed, ``session_id`` and ``query``.
        scrubs: what `learn` has returned.
        client: whether the relation has a ``client_id``, to be given as pseudonym ``client``.
    """
    replaced = ["p.user_id AS user_id", "nullif(c.session_id, p.user_id) AS session_id"]
    added = ["p.shopper", "p.place"]
    joins = ["LEFT JOIN pseudonym p ON c.user_id = p.given"]
    if scrubs.own:
        joins.append("LEFT JOIN own o ON c.user_id = o.given AND c.query = o.query")
    if scrubs.scrubbed:
        joins.append("LEFT JOIN scrubbed s ON c.query = s.query")
    if any(scrubs):
        clean = ("o.clean, " if scrubs.own else "") + ("s.clean, " if scrubs.scrubbed else "")
        replaced.append(f"coalesce({clean}c.query) AS query")
    if client:
        added.append("k.shopper AS client")
        joins.append("LEFT JOIN pseudonym k ON c.client_id = k.given")
    return f"""SELECT c.* REPLACE ({", ".join(replaced)}), {", ".join(added)}
        FROM {relation} c {" ".join(joins)}"""


def _distinct(
    connection: duckdb.DuckDBPyConnection, selects: Sequence[str], condition: str
) -> None:
    """Number the distinct texts that meet a condition in ``numbered``."""
    # In two steps, or DuckDB would ask the condition of every event, not of every text.
    connection.execute(
        f"""CREATE TEMP TABLE given_text AS
            SELECT DISTINCT given FROM ({" UNION ALL ".join(selects)}) t(given);
        CREATE TEMP TABLE numbered AS SELECT given, row_number() OVER () AS number
            FROM given_text WHERE {condition};
        DROP TABLE given_text"""
    )


def _replace(
    connection: duckdb.DuckDBPyConnection,
    make: Callable[[Sequence[str]], list[str]],
    insert: str,
) -> None:
    """Insert what is made of each text in ``numbered``, in batches that fit into memory.

    Args:
        connection: with that table, which is dropped.
        make: of texts as many others.
        insert: up to its source, which has a text in ``a`` and what was made of it in ``b``.
    """
    (count,) = connection.execute("SELECT count(*) FROM numbered").fetchall()[0]
    for first in range(1, count + 1, _BATCH):
        rows = connection.execute(
            f"SELECT given FROM numbered WHERE number BETWEEN {first} AND {first + _BATCH - 1}"
        ).fetchall()
        texts = [text for (text,) in rows]
        connection.register("batch", pa.table({"a": texts, "b": make(texts)}))
        connection.execute(f"{insert} FROM batch")
        connection.unregister("batch")
    connection.execute("DROP TABLE numbered")
