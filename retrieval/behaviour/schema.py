"""The tables of the behaviour store, and the questions for what shoppers did in the past."""

from collections.abc import Collection
from typing import NamedTuple, Self

from reranker.schema import BehaviourEvent, EventKind
from reranker.settings import Purpose
from retrieval.event_formats.sql import literal, quoted

SCHEMA_VERSION = "2"
FIELDS = ("shopper", *(name for name in BehaviourEvent.model_fields if name != "user_id"))
"""Columns of ``event``: the fields of an event, with a pseudonym in place of the user id."""
COLUMNS = ", ".join(map(quoted, FIELDS))
# DuckDB's own choice for product ids is a dictionary, of which every look-up would unpack a whole
# one: 0.7 of 1.6 ms at ten million events. This way the file grows by a tenth.
_EVENT = """(shopper UUID NOT NULL, kind event_kind NOT NULL, "at" TIMESTAMP NOT NULL,
    product_id VARCHAR USING COMPRESSION zstd, query VARCHAR, session_id VARCHAR,
    request_id VARCHAR, position INTEGER, dwell_ms BIGINT, quantity DOUBLE, value DOUBLE,
    discount DOUBLE)"""
_QUARANTINE = """(file VARCHAR NOT NULL, row BIGINT NOT NULL, "check" VARCHAR NOT NULL,
    field VARCHAR NOT NULL, reason VARCHAR NOT NULL, events BIGINT NOT NULL, shopper UUID,
    data VARCHAR, imported_at TIMESTAMP NOT NULL)"""
TABLES = {
    "event": _EVENT,
    "client": "(shopper UUID NOT NULL, client UUID NOT NULL)",
    "quarantine": _QUARANTINE,
    "consent": """(shopper UUID NOT NULL, purpose VARCHAR NOT NULL, granted BOOLEAN NOT NULL,
    "at" TIMESTAMP NOT NULL)""",
    "publication": '("at" TIMESTAMP NOT NULL, what VARCHAR NOT NULL, epsilon DOUBLE NOT NULL)',
    "meta": "(schema_version VARCHAR, key_fingerprint VARCHAR, runs DOUBLE)",
}
"""Name to columns. All that names a shopper does so in columns of the type UUID."""
PSEUDONYM = "'pseudonym:' || replace(shopper::VARCHAR, '-', '')"
"""SQL of a shopper as text; see `retrieval.behaviour.pseudonyms.Pseudonym`."""
SORTED_BY = {"event": 'shopper, "at"', "quarantine": "file, row"}


_KINDS = ", ".join(literal(kind) for kind in EventKind)
KINDS_DDL = f"CREATE TYPE event_kind AS ENUM ({_KINDS});"
"""The kinds of events; later ones are stronger deeds."""


def store_ddl(fingerprint: str, schema: str = "main") -> str:
    """Return the statements that make an empty store.

    Args:
        fingerprint: of the key behind its pseudonyms; hexadecimal.
        schema: where to make it.
    """
    tables = " ".join(
        f"CREATE TABLE {schema}.{name} {columns.replace('event_kind', f'{schema}.event_kind')};"
        for name, columns in TABLES.items()
    )
    return f"""CREATE TYPE {schema}.event_kind AS ENUM ({_KINDS}); {tables}
        INSERT INTO {schema}.meta VALUES ('{SCHEMA_VERSION}', {literal(fingerprint)}, 0);"""


def past(
    purpose: Purpose,
    default: Collection[Purpose],
    events: str = "event",
    *,
    shopper: str | None = None,
) -> str:
    """Return the relation of the events before ``$as_of`` that may be used for a purpose.

    The only door from events to whatever is derived of them: nothing at or after the moment asked
    for, and nothing of a shopper without consent, comes through.

    Args:
        purpose: what for.
        default: the purposes that a shopper without a record consents to.
        events: relation of the events.
        shopper: expression of the one whose events they are; None: of all. For one, consent is
            looked up once and not joined to every event.
    """
    said = f"""FROM consent AS said
        WHERE said.shopper = {shopper or "e.shopper"} AND said.purpose = {literal(purpose)}"""
    if shopper is None:
        answer = "NOT said.granted" if purpose in default else "said.granted"
        allowed = f"EXISTS (SELECT 1 {said} AND {answer})"
        allowed = f"NOT {allowed}" if purpose in default else allowed
        return f'(SELECT * FROM {events} AS e WHERE "at" < $as_of AND {allowed})'
    # The same as one value, for `EXISTS` becomes a join, which takes half as long again.
    if purpose in default:
        allowed = f"(SELECT bool_and(said.granted) {said}) IS DISTINCT FROM FALSE"
    else:
        allowed = f"(SELECT bool_or(said.granted) {said}) IS NOT DISTINCT FROM TRUE"
    return f"""(SELECT * FROM {events} AS e
        WHERE e.shopper = {shopper} AND "at" < $as_of AND {allowed})"""


class HistoryQuestions(NamedTuple):
    """The questions for the past of the shopper ``$shopper``; see `past`.

    Attributes:
        some: at most ``$limit`` events in any order, in two thirds of the time. Whoever has more
            than are wanted (`profile.max_events`, 2,000) is asked about again.
        newest: the newest ``$limit`` events, newest first.
    """

    some: str
    newest: str

    @classmethod
    def over(cls, default: Collection[Purpose], events: str = "event") -> Self:
        """Return the questions over a relation of events."""
        some = f"""SELECT kind::VARCHAR, epoch_us("at"), product_id, query, discount
            FROM {past("personalisation", default, events, shopper="$shopper")} AS past
            WHERE kind <> 'impression'"""
        order = 'past."at" DESC, past.kind DESC, product_id, query'
        return cls(f"{some} LIMIT $limit", f"{some} ORDER BY {order} LIMIT $limit")
