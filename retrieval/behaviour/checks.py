"""What only shows when all rows of an import are seen together: bots, orphans, impossible dates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb
import pyarrow as pa

from reranker.schema import Value
from reranker.settings import CleaningSettings
from retrieval.behaviour.rules import Rule
from retrieval.event_formats.sql import literal
from retrieval.product_table import ProductTable

NOMINEE = 'hash(shopper, kind, "at", product_id, query)'
"""Rows with the same are probably, rows with another are certainly not the same event."""
_ACTIVE = "kind IN ('search', 'view', 'click') AND shopper IS NOT NULL"
_MINUTE = 'epoch_us("at") // 60000000'
_BUSY = f"(hash(shopper, {_MINUTE}) >> 32)::UINTEGER"
_FEWEST_BUCKETS = 1 << 16
_SURVEY = f"""SELECT CASE WHEN good THEN {NOMINEE} END AS nominee,
    CASE WHEN {_ACTIVE} THEN {_BUSY} END AS busy,
    CASE WHEN kind IN ('click', 'impression') AND request_id IS NOT NULL
        THEN hash(request_id, product_id) END AS shown,
    kind, good, ignored, naive, repaired FROM incoming"""


class Finding(Value):
    """One thing that an import found, and what it did about it.

    Attributes:
        check: such as ``duplicate``, ``clock``, ``bot``.
        outcome: ``not checked`` where the import has no means to.
        events: how many events it is about; 0 where it was not checked.
        detail: what exactly, for people.
    """

    check: str
    outcome: str
    events: int
    detail: str


@dataclass(frozen=True)
class Products:
    """What an import needs to know of the catalogue. Build it with `products_of`.

    Attributes:
        table: Arrow table with ``product_id`` and ``attributes`` (JSON objects as text).
        date_attribute: in which a product's first day stands; empty where there is none.
    """

    table: Any
    date_attribute: str = ""


def products_of(table: ProductTable, date_attribute: str = "") -> Products:
    """Return what a catalogue tells of its products.

    Args:
        table: the catalogue.
        date_attribute: in which each product's first day stands, as ISO 8601; or empty.
    """
    columns = {name: table.column(name) for name in ("product_id", "attributes")}
    return Products(pa.table(columns), date_attribute)


def survey(connection: duckdb.DuckDBPyConnection, products: Products | None) -> None:
    """Put what the checks need of every row of ``incoming``, as numbers, into ``survey``.

    The files are read once for all checks. Two texts share a hash too rarely to matter to a count.
    """
    columns = "" if products is None else "hash(product_id) AS product, "
    query = _SURVEY.replace("SELECT ", f"SELECT {columns}", 1)
    connection.execute(f"CREATE TEMP TABLE survey AS {query}")


def late_rules(
    connection: duckdb.DuckDBPyConnection, cleaning: CleaningSettings, products: Products | None
) -> tuple[Rule, ...]:
    """Look at all rows together; return what else makes one of them bad.

    Reads ``incoming`` and its `survey`. Leaves the temporary tables that the rules refer to:
    ``bot`` and ``known_product``.
    """
    found = []
    if cleaning.bot_events_per_minute and _find_bots(connection, cleaning.bot_events_per_minute):
        found.append(
            Rule(
                "bot",
                "user_id",
                "shopper IN (SELECT shopper FROM bot)",
                f"""'a bot: more than {cleaning.bot_events_per_minute} searches, views and clicks '
                || 'in a minute and no dwell time; see cleaning.bot_events_per_minute'""",
            )
        )
    if products is None:
        return tuple(found)
    if _take_products(connection, products):
        since = "(SELECT max(since) FROM known_product k WHERE k.product_id = i.product_id)"
        found.append(
            Rule(
                "before the product",
                "at",
                f'"at" < {since}',
                f"'the product exists only since ' || {since}",
            )
        )
    if cleaning.orphans == "reject":
        found.append(
            Rule(
                "orphan",
                "product_id",
                ORPHAN,
                "'not in the catalogue: ' || product_id || '; see cleaning.orphans'",
            )
        )
    return tuple(found)


def _take_products(connection: duckdb.DuckDBPyConnection, products: Products) -> bool:
    """Put the catalogue into ``known_product``; tell whether any product has a date."""
    since = "NULL"
    if products.date_attribute:
        pointer = literal(f'$."{products.date_attribute}"')
        since = f"TRY_CAST(json_extract_string(attributes, {pointer}) AS TIMESTAMP)"
    connection.register("catalogue_products", products.table)
    connection.execute(
        f"""CREATE TEMP TABLE known_product AS
        SELECT product_id::VARCHAR AS product_id, {since}::TIMESTAMP AS since
        FROM catalogue_products"""
    )
    connection.unregister("catalogue_products")
    return _is_dated(connection)


def _is_dated(connection: duckdb.DuckDBPyConnection) -> bool:
    query = "SELECT EXISTS (FROM known_product WHERE since IS NOT NULL)"
    return bool(connection.execute(query).fetchall()[0][0])


ORPHAN = "product_id NOT IN (SELECT product_id FROM known_product)"
"""SQL that tells a product without a catalogue entry; needs the table of `late_rules`."""


def _find_bots(connection: duckdb.DuckDBPyConnection, limit: int) -> bool:
    """Put shoppers who do more than a person can into ``bot``; tell whether there are any.

    Hash buckets of shopper and minute only nominate: to count every minute of every shopper would
    take far more memory. Events of one and the same moment are no sign of haste but of a log that
    is written at the end of a visit, or knows days only.
    """
    rows = _number(connection, "SELECT count(busy) FROM survey")
    buckets = max(_FEWEST_BUCKETS, 1 << (rows // 8).bit_length())
    connection.execute(
        f"""CREATE TEMP TABLE crowded AS SELECT busy % {buckets} AS bucket FROM survey
        WHERE busy IS NOT NULL GROUP BY bucket HAVING count(*) > {limit}"""
    )
    if not _number(connection, "SELECT count(*) FROM crowded"):
        return False
    connection.execute(
        f"""CREATE TEMP TABLE bot AS
        SELECT DISTINCT shopper FROM (SELECT shopper FROM incoming
            WHERE {_ACTIVE} AND {_BUSY} % {buckets} IN (FROM crowded)
            GROUP BY shopper, {_MINUTE}
            HAVING count(DISTINCT {NOMINEE}) > {limit} AND min("at") < max("at"))
        WHERE shopper NOT IN (SELECT shopper FROM incoming WHERE dwell_ms > 0
            AND shopper IS NOT NULL)"""
    )
    return bool(_number(connection, "SELECT count(*) FROM bot"))


def counted_only(
    connection: duckdb.DuckDBPyConnection, products: Products | None, cleaning: CleaningSettings
) -> list[Finding]:
    """Return what is only counted among the rows of a `survey`, and what could not be checked."""
    found = []
    if products is not None and cleaning.orphans == "keep":
        count = _number(
            connection,
            """SELECT count(*) FROM survey WHERE good AND product <> hash(NULL::VARCHAR)
            AND product NOT IN (SELECT hash(product_id) FROM known_product)""",
        )
        found.append(
            Finding(
                check="orphan",
                outcome="counted",
                events=count,
                detail="products that the catalogue does not have",
            )
        )
    clicks = _number(
        connection,
        """SELECT count(*) FROM (SELECT shown FROM survey WHERE kind = 'click'
            AND shown IS NOT NULL) clicked
        WHERE NOT EXISTS (SELECT 1 FROM survey WHERE survey.kind = 'impression'
            AND survey.shown = clicked.shown)""",
    )
    found.append(
        Finding(
            check="click without impression",
            outcome="counted",
            events=clicks,
            detail="clicks with a request of which these files do not show that product",
        )
    )
    return [finding for finding in found if finding.events] + _not_checked(connection, products)


def _not_checked(connection: duckdb.DuckDBPyConnection, products: Products | None) -> list[Finding]:
    """Return what the import had no means to check, and what would give it the means."""
    if products is None:
        detail = "there is no catalogue yet: neither orphans nor events before their product"
    elif not products.date_attribute:
        detail = "events before their product: cleaning.product_date names no attribute"
    elif not _is_dated(connection):
        name = products.date_attribute
        detail = f"events before their product: no product has a day in its attribute {name!r}"
    else:
        return []
    return [Finding(check="catalogue", outcome="not checked", events=0, detail=detail)]


def judged(late: Sequence[Rule]) -> str:
    """Return the SELECT of ``incoming`` with ``kept``, telling the rows that are imported."""
    if not late:
        return "SELECT *, good AS kept FROM incoming i"
    bad = " OR ".join(f"coalesce({rule.when}, false)" for rule in late)
    return f"SELECT *, good AND NOT ({bad}) AS kept FROM incoming i"


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])
