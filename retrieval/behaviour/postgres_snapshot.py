"""A store's behaviour in PostgreSQL, for services that have a database in common, not a disk.

As with Parquet files (`retrieval.behaviour.snapshot`) a generation is written beside the one that
is read, in a schema of its own and in one transaction, and then a table names it, at which readers
look before each question. What a search asks for (a shopper's history, what is popular) PostgreSQL
answers, by the same SQL as DuckDB; what goes over everything (labels, training, exports) reads the
generation into DuckDB first.
"""

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb

from reranker.errors import DataError
from reranker.ports import Progress, no_progress
from reranker.settings import PrivacySettings
from retrieval.behaviour.opening import checked_pseudonyms
from retrieval.behaviour.postgres import Address, Connections
from retrieval.behaviour.pseudonyms import Pseudonym, Pseudonyms
from retrieval.behaviour.schema import KINDS_DDL, SORTED_BY, TABLES, history
from retrieval.behaviour.snapshot import NO_SNAPSHOT, Snapshot, memory_connection
from retrieval.behaviour.store import BehaviourStore
from retrieval.event_formats.sql import quoted

_SCHEMA = "shelfwise"
_POINTER = "current"
_STAGE = "writing the snapshot"
_BATCH = 100_000
_TEXT = 'text COLLATE "C"'  # in the order of bytes, as DuckDB sorts
_TYPES = {
    "UUID": _TEXT,
    "VARCHAR": _TEXT,
    "TIMESTAMP": "timestamp",
    "INTEGER": "integer",
    "BIGINT": "bigint",
    "DOUBLE": "double precision",
    "BOOLEAN": "boolean",
}
_EPOCH_US = """CREATE FUNCTION epoch_us(timestamp) RETURNS bigint LANGUAGE sql IMMUTABLE
    PARALLEL SAFE AS 'SELECT (extract(epoch FROM $1) * 1000000)::bigint'"""
"""DuckDB's function of this name."""
_PARAMETER = re.compile(r"\$([a-z_]+)")
_INDEXED = {"event": '(shopper, "at")', "consent": "(purpose, shopper)"}


def write_postgres_snapshot(
    store: BehaviourStore, address: Address, *, progress: Progress = no_progress
) -> Snapshot:
    """Write a new generation, and drop the one before.

    Killed or failing on the way it leaves all as it was. The account needs the right to make
    schemas in the database; readers need its rights, or its role.

    Args:
        store: of the behaviour.
        address: of the database; behind ``#`` the schema that names the generation, ``shelfwise``
            if none is named.
        progress: told what is being done.

    Raises:
        ConfigError: the driver is not installed.
        DataError: the database cannot be reached, or refuses.
    """
    schema, generation = address.within or _SCHEMA, secrets.token_hex(8)
    pointer = f"{quoted(schema)}.{_POINTER}"
    with (
        address.connected("the snapshot cannot be written") as cursor,
        store.reading() as connection,
    ):
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
        cursor.execute(f"CREATE TABLE IF NOT EXISTS {pointer} (generation text NOT NULL)")
        cursor.execute(f"LOCK TABLE {pointer} IN SHARE ROW EXCLUSIVE MODE")  # one writer at a time
        cursor.execute(f"SELECT generation FROM {pointer}")
        earlier = [row[0] for row in cursor.fetchall()]
        cursor.execute(f"CREATE SCHEMA {quoted(generation)}")
        cursor.execute(f"SET LOCAL search_path TO {quoted(generation)}")
        cursor.execute(KINDS_DDL)
        cursor.execute(_EPOCH_US)
        connection.execute("BEGIN")  # all tables as they are at one moment
        for done, name in enumerate(TABLES):
            progress(_STAGE, done, len(TABLES))
            _copy(connection, cursor, name, generation)
        connection.execute("COMMIT")
        cursor.execute(f"DELETE FROM {pointer}")
        cursor.execute(f"INSERT INTO {pointer} VALUES ('{generation}')")
        for name in earlier:
            cursor.execute(f"DROP SCHEMA IF EXISTS {quoted(name)} CASCADE")
    progress(_STAGE, len(TABLES), len(TABLES))
    return Snapshot(place=address.name, generation=generation, events=store.count())


def _copy(connection: duckdb.DuckDBPyConnection, cursor: Any, name: str, generation: str) -> None:
    """Make a table as it is in DuckDB, with its rows and the index that look-ups use."""
    columns = [row[:2] for row in connection.execute(f"DESCRIBE {name}").fetchall()]
    made = ", ".join(f"{quoted(column)} {_type(kind)}" for column, kind in columns)
    cursor.execute(f"CREATE TABLE {name} ({made})")
    taken = ", ".join(_as_sent(column, kind) for column, kind in columns)
    order = f"ORDER BY {SORTED_BY[name]}" if name in SORTED_BY else ""
    rows = connection.sql(f"SELECT {taken} FROM {name} {order}").to_arrow_reader(_BATCH)
    cursor.adbc_ingest(name, rows, mode="append", db_schema_name=generation)
    if name in _INDEXED:
        cursor.execute(f"CREATE INDEX ON {name} {_INDEXED[name]}")
    cursor.execute(f"ANALYZE {name}")


def _type(kind: str) -> str:
    return "event_kind" if kind.startswith("ENUM") else _TYPES[kind]


def _as_sent(column: str, kind: str) -> str:
    name = quoted(column)
    if kind == "VARCHAR":
        return f"replace({name}, chr(0), '') AS {name}"  # which PostgreSQL's texts cannot hold
    return f"{name}::VARCHAR AS {name}" if _type(kind) in ("event_kind", _TEXT) else name


class PostgresSnapshot(BehaviourStore):
    """Reads what `write_postgres_snapshot` has written, always the newest. Thread-safe."""

    def __init__(self, address: Address, *, privacy: PrivacySettings | None = None) -> None:
        """Open the snapshot at an address.

        Raises:
            ConfigError: the key of the pseudonyms cannot be read, or the driver is not installed.
            DataError: there is no snapshot, or it is of another schema version or key.
            StoreUnavailable: the database cannot be reached.
        """
        self._address = address
        self._pointer = f"{quoted(address.within or _SCHEMA)}.{_POINTER}"
        self._server = Connections(address)
        self._shown, self._read = "", ""
        try:
            super().__init__(Path(address.name), read_only=True, privacy=privacy)
        except BaseException:
            self._server.close()
            raise
        self._question = history(self.past("personalisation"))

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if not self._server.ask(self._is_there):
            raise DataError(f"{self._address.name}: {NO_SNAPSHOT}")
        connection = memory_connection()
        connection.execute(KINDS_DDL)
        self._shown = self._server.ask(self._newest)
        self._fetch(connection, "meta")
        return connection

    def _pseudonyms_of(self, connection: duckdb.DuckDBPyConnection) -> Pseudonyms:
        return checked_pseudonyms(connection, Path(self._address.name), self._privacy)

    def close(self) -> None:
        """Let go of the database."""
        super().close()
        self._server.close()

    def pseudonym(self, user_id: str) -> Pseudonym:
        """Return what stands for a shopper in the newest generation."""
        self._follow()
        return super().pseudonym(user_id)

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection to a copy of the newest generation, made when it is first asked for."""
        self._follow()
        with self._writing:
            if self._read != self._shown:
                for name in TABLES:
                    self._fetch(self._connection, name)
                self._read = self._shown
        with super().reading() as connection:
            yield connection

    def _history_of(self, shopper: Pseudonym) -> str:
        return self._question

    def _rows(
        self, query: str | duckdb.Statement, parameters: dict[str, Any] | None = None
    ) -> list[Any]:
        given = parameters or {}
        text = query if isinstance(query, str) else query.query
        names = list(dict.fromkeys(_PARAMETER.findall(text)))
        numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text)
        values = [_sent(given[name]) for name in names]

        def ask(cursor: Any) -> list[Any]:
            cursor.execute(f"SET search_path TO {quoted(self._newest(cursor))}")
            cursor.execute(numbered, values or None)
            rows: list[Any] = cursor.fetchall()
            return rows

        return self._server.ask(ask)

    def _refuse_if_read_only(self) -> None:
        name = self._address.name
        raise DataError(f"{name}: a snapshot is read-only; change the store that it is made of")

    def _is_there(self, cursor: Any) -> bool:
        cursor.execute("SELECT to_regclass($1) IS NOT NULL", [self._pointer])
        return bool(cursor.fetchall()[0][0])

    def _newest(self, cursor: Any) -> str:
        cursor.execute(f"SELECT generation FROM {self._pointer}")
        return str(cursor.fetchall()[0][0])

    def _follow(self) -> None:
        if self._server.ask(self._newest) == self._shown:
            return
        with self._writing:
            newest = self._server.ask(self._newest)
            if newest != self._shown:
                self._shown = newest
                self._fetch(self._connection, "meta")
                self._pseudonyms = self._pseudonyms_of(self._connection)
                self._changes += 1

    def _fetch(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        """Copy a table of the generation that is shown into DuckDB."""
        with self._address.connected("the snapshot cannot be read") as cursor:
            cursor.execute(f"SELECT * FROM {quoted(self._shown)}.{name}")
            connection.register("fetched", cursor.fetch_record_batch())
            connection.execute(
                f"""CREATE OR REPLACE TABLE {name} {TABLES[name]};
                INSERT INTO {name} SELECT * FROM fetched"""
            )
            connection.unregister("fetched")


def _sent(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value
