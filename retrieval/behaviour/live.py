"""Events that come one by one while the shop is open."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import duckdb
import pyarrow as pa

from reranker.schema import BehaviourEvent
from retrieval.behaviour.pseudonyms import Pseudonyms
from retrieval.behaviour.schema import COLUMNS, FIELDS
from retrieval.behaviour.scrubbing import Scrubber

_SCHEMA = pa.schema(
    [
        ("shopper", pa.string()),
        ("kind", pa.string()),
        ("at", pa.timestamp("us")),
        ("product_id", pa.string()),
        ("query", pa.string()),
        ("session_id", pa.string()),
        ("request_id", pa.string()),
        ("position", pa.int32()),
        ("dwell_ms", pa.int64()),
        ("quantity", pa.float64()),
        ("value", pa.float64()),
        ("discount", pa.float64()),
    ]
)
_TYPED = ", ".join(["shopper::UUID AS shopper", *(f'"{name}"' for name in FIELDS[1:])])


def append(
    connection: duckdb.DuckDBPyConnection,
    events: Sequence[BehaviourEvent],
    pseudonyms: Pseudonyms,
    scrubber: Scrubber,
) -> int:
    """Insert events that are not there yet; return their number."""
    rows = [_row(event, pseudonyms, scrubber) for event in events]
    connection.register("batch", pa.Table.from_pylist(rows, schema=_SCHEMA))
    (added,) = connection.execute(
        f"""INSERT INTO event SELECT {COLUMNS} FROM (SELECT {_TYPED} FROM batch
        EXCEPT SELECT {COLUMNS} FROM event
        WHERE shopper IN (SELECT shopper::UUID FROM batch)) ORDER BY shopper, "at" """
    ).fetchall()[0]
    connection.unregister("batch")
    return int(added)


def utc(moment: datetime) -> datetime:
    """Return a moment as the store keeps it: in UTC, without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _row(event: BehaviourEvent, pseudonyms: Pseudonyms, scrubber: Scrubber) -> dict[str, Any]:
    # As `retrieval.behaviour.identities.protected` does it for imports.
    return {
        **event.model_dump(mode="python", exclude={"user_id"}),
        "shopper": pseudonyms.of(event.user_id).hex,
        "at": utc(event.at),
        "query": event.query and scrubber.clean(event.query, event.user_id),
        "session_id": None if event.session_id == event.user_id else event.session_id,
    }
