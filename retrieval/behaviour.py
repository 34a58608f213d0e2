"""What shoppers did: one DuckDB table, imported in bulk, appended to live, read by shopper.

Rows lie in runs sorted by shopper and time, so that DuckDB's zone maps find one shopper's events
among ten million in milliseconds, without an index that every import would have to maintain.
Each import adds a run, live events trail behind; when lookups would have to visit too many runs,
an import merges them. Times are kept in UTC without a zone.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

import duckdb
import pyarrow as pa

from reranker.errors import DataError
from reranker.ports import Progress, no_progress
from reranker.schema import BehaviourEvent
from reranker.settings import CleaningSettings
from retrieval.behaviour_checks import Products
from retrieval.behaviour_import import KEY, ImportPlan, ImportReport, import_files
from retrieval.behaviour_quarantine import QuarantinedRow
from retrieval.behaviour_quarantine import read as read_quarantine
from retrieval.behaviour_schema import (
    EVENT_TABLE,
    HISTORY,
    KEY_PROBE,
    PAST,
    SCHEMA_VERSION,
    STORE_DDL,
)
from retrieval.behaviour_sql import COLUMNS
from retrieval.event_formats.reading import Reading

FILE_NAME = "behaviour.duckdb"
_MEMORY_LIMIT = "1200MB"
_ROW_GROUP = 122_880
_MOST_RUNS = 12


class PastEvent(NamedTuple):
    """One event as profiles read it; ``at_us`` is in microseconds since 1970, UTC."""

    kind: str
    at_us: int
    product_id: str | None
    query: str | None


class BehaviourStore:
    """The behaviour of all shoppers in one file. Thread-safe; one process at a time may write.

    Any number of processes may have it open read-only, as long as none writes.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        """Open the store of a folder; a missing one is created, or seen as empty if read-only.

        Raises:
            DataError: the file is in use elsewhere, corrupt, or of another schema version.
        """
        self._path = folder / FILE_NAME
        absent = read_only and not self._path.exists()
        self._read_only = read_only and not absent
        self._refuses_writes = read_only
        self._writing = threading.RLock()
        self._imports = 0
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        self._connection = _connect(self._path, read_only=self._read_only, absent=absent)
        try:
            self._check_schema()
            # Parsed once: profiles ask this for every request.
            (self._history,) = self._connection.extract_statements(HISTORY)
        except Exception:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    @property
    def generation(self) -> int:
        """Number of imports through this object: what is derived from bulk data may be kept."""
        return self._imports

    def import_events(
        self,
        paths: Sequence[Path | str],
        *,
        mapping: Mapping[str, str] | None = None,
        reading: Reading | None = None,
        cleaning: CleaningSettings | None = None,
        products: Products | None = None,
        max_rejected: float = 1.0,
        progress: Progress = no_progress,
    ) -> ImportReport:
        """Import event files, all of them or none.

        Args:
            paths: files (with `retrieval.event_formats.sql.EVENT_SUFFIXES`), folders, globs.
            mapping: field of `BehaviourEvent` to column, where the names differ; short for a
                ``reading`` that says only this.
            reading: how the files are to be taken; None tells their formats from their content.
            cleaning: what is repaired and refused; None takes the defaults.
            products: of the catalogue, to check events against.
            max_rejected: share of the events, 0 to 1, above which nothing is imported.
            progress: told what is being done.

        Returns:
            What became of every event. Refused rows are in the store as well: see `rejected`.

        Raises:
            ConfigError: the mapping names an unknown field.
            DataError: a file cannot be read or lacks a column, more events are refused than
                ``max_rejected`` allows, or the store is read-only.
        """
        reading = reading or Reading(mapping=mapping or {})
        plan = ImportPlan(reading, cleaning or CleaningSettings(), products, max_rejected)
        with self._transaction() as connection:
            report = import_files(
                connection,
                paths,
                plan=plan,
                progress=progress,
                folder=self._path.parent,
            )
            self._note_run(connection, 1.0 if report.imported else 0.0)
            self._imports += 1
        return report

    def rejected(self, limit: int | None = None) -> tuple[QuarantinedRow, ...]:
        """Return the rows that imports have refused and not taken since, by file and row."""
        with self._connection.cursor() as cursor:
            return read_quarantine(cursor, limit)

    def append(self, events: Sequence[BehaviourEvent]) -> int:
        """Add live events, visible to the next profile; return how many were new.

        An event that is identical in every field to a known one is not added again.

        Raises:
            DataError: the store is read-only.
        """
        if not events:
            return 0
        batch = _arrow(events)
        with self._transaction() as connection:
            connection.register("batch", batch)
            added = connection.execute(
                f"""INSERT INTO event SELECT {KEY}, * FROM (SELECT {COLUMNS} FROM batch
                EXCEPT SELECT {COLUMNS} FROM event
                WHERE user_key IN (SELECT {KEY} FROM batch)) ORDER BY 1, "at" """
            ).fetchall()[0][0]
            connection.unregister("batch")
            self._note_run(connection, added / _ROW_GROUP, merge=False)
        return int(added)

    def count(self) -> int:
        """Return the number of events."""
        return int(self._rows("SELECT count(*) FROM event")[0][0])

    def users(self) -> int:
        """Return the number of shoppers."""
        return int(self._rows("SELECT count(DISTINCT user_id) FROM event")[0][0])

    def busiest(self, k: int) -> tuple[str, ...]:
        """Return at most k shoppers, those with the most events first."""
        rows = self._rows(
            "SELECT user_id FROM event GROUP BY user_id ORDER BY count(*) DESC, user_id LIMIT $k",
            {"k": k},
        )
        return tuple(row[0] for row in rows)

    def time_range(self) -> tuple[datetime, datetime] | None:
        """Return the times of the first and the last event; None without any."""
        first, last = self._rows('SELECT min("at"), max("at") FROM event')[0]
        return None if first is None else (first.replace(tzinfo=UTC), last.replace(tzinfo=UTC))

    def history(self, user_id: str, as_of: datetime, *, limit: int) -> list[PastEvent]:
        """Return what a shopper did strictly before a moment, newest first.

        Impressions are left out: they tell what the shop did.
        """
        asked = {"user_id": user_id, "as_of": _utc(as_of), "limit": limit}
        rows = self._rows(self._history, asked)
        return [PastEvent(*row) for row in rows]

    def popular(self, as_of: datetime, *, days: int, k: int) -> tuple[str, ...]:
        """Return the products bought most often in the days before a moment, most first.

        Clicks, then views, decide between equals, and fill up where too little was bought.
        """
        start = _utc(as_of) - timedelta(days=days)
        rows = self._rows(
            f"""SELECT product_id FROM {PAST} WHERE "at" >= $start
            AND kind IN ('purchase', 'click', 'view') GROUP BY product_id
            ORDER BY count(*) FILTER (kind = 'purchase') DESC,
            count(*) FILTER (kind = 'click') DESC, count(*) DESC, product_id LIMIT $k""",
            {"as_of": _utc(as_of), "start": start, "k": k},
        )
        return tuple(row[0] for row in rows)

    def _rows(
        self, query: str | duckdb.Statement, parameters: dict[str, Any] | None = None
    ) -> list[Any]:
        # A cursor is a connection of its own: threads do not wait for each other.
        with self._connection.cursor() as cursor:
            return cursor.execute(query, parameters).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection whose work is kept as a whole or not at all."""
        if self._refuses_writes:
            raise DataError(f"{self._path}: opened read-only; open it for writing to add events")
        with self._writing, self._connection.cursor() as connection:
            connection.execute("SET TimeZone = 'UTC'; BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    def _note_run(
        self, connection: duckdb.DuckDBPyConnection, runs: float, *, merge: bool = True
    ) -> None:
        connection.execute("UPDATE meta SET runs = runs + ?", [runs])
        if merge and connection.execute("SELECT runs FROM meta").fetchall()[0][0] > _MOST_RUNS:
            _merge_runs(connection)

    def _check_schema(self) -> None:
        tables = {row[0] for row in self._rows("SELECT table_name FROM duckdb_tables()")}
        if not tables and not self._read_only:
            self._connection.execute(f"BEGIN; {STORE_DDL} COMMIT")
            return
        if not {"meta", "event"} <= tables:
            raise DataError(f"{self._path}: not a behaviour store; choose another store folder")
        version, same = self._rows(f"SELECT schema_version, key_probe = {KEY_PROBE} FROM meta")[0]
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{self._path}: has schema version {version}, and this program reads "
                f"{SCHEMA_VERSION}; import the events again into a new store"
            )
        if not same:
            self._renew_keys()

    def _renew_keys(self) -> None:
        """Compute the sort keys again, as this version of DuckDB hashes otherwise."""
        if self._read_only:
            raise DataError(
                f"{self._path}: written by a DuckDB with another hash; import anything into it "
                "once, which renews it"
            )
        with self._transaction() as connection:
            _merge_runs(connection)


def _merge_runs(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        f"""CREATE TABLE merged {EVENT_TABLE};
        INSERT INTO merged SELECT {KEY} AS user_key, {COLUMNS} FROM event ORDER BY user_key, "at";
        DROP TABLE event;
        ALTER TABLE merged RENAME TO event"""
    )
    connection.execute(f"UPDATE meta SET runs = 1, key_probe = {KEY_PROBE}")


def _connect(path: Path, *, read_only: bool, absent: bool) -> duckdb.DuckDBPyConnection:
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY_LIMIT,
        "temp_directory": f"{path}.tmp",
    }
    if read_only:
        # A look-up visits a few row groups: a second thread would only take a core from recall.
        config["threads"] = 1
    try:
        return duckdb.connect(":memory:" if absent else path, read_only=read_only, config=config)
    except duckdb.Error as error:
        message = str(error).splitlines()[0]
        if "lock" in message:
            remedy = "stop the other process, or open it read-only in both"
            raise DataError(f"{path}: in use by another process ({message}); {remedy}") from error
        if "different configuration" in message:
            raise DataError(f"{path}: already open in this process in the other mode") from error
        remedy = "move it away and import the events again"
        raise DataError(f"{path}: not a readable behaviour store ({message}); {remedy}") from error


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.TransactionException:
        return  # the import has rolled back already to look for the file at fault


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)


def _arrow(events: Sequence[BehaviourEvent]) -> Any:
    rows = [{**event.model_dump(mode="python"), "at": _utc(event.at)} for event in events]
    schema = pa.schema(
        [
            ("user_id", pa.string()),
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
        ]
    )
    return pa.Table.from_pylist(rows, schema=schema)
