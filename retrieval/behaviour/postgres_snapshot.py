"""A store's behaviour in PostgreSQL, for services that have a database in common, not a disk.

As with Parquet files (`retrieval.behaviour.snapshot`) a generation is written beside the one that
is read, in a schema of its own and in one transaction, and then a table names it, at which readers
look before each question. What a search asks for (a shopper's history, what is popular) PostgreSQL
answers, by the same SQL as DuckDB; what goes over everything (labels, training, exports) reads the
generation into DuckDB first.
"""

import re
import secrets
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import duckdb

from reranker.errors import DataError, StoreUnavailable
from reranker.ports import Progress, no_progress
from reranker.settings import Database, PrivacySettings
from retrieval.behaviour.opening import checked_pseudonyms
from retrieval.behaviour.postgres import Connections, connected
from retrieval.behaviour.pseudonyms import Pseudonym, Pseudonyms
from retrieval.behaviour.schema import KINDS_DDL, SORTED_BY, TABLES, HistoryQuestions
from retrieval.behaviour.snapshot import NO_SNAPSHOT, Snapshot, memory_connection
from retrieval.behaviour.store import BehaviourStore
from retrieval.event_formats.sql import literal, quoted

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
_INDEXED = {
    "event": ('(shopper, "at")', '("at")'),
    "consent": ("(shopper, purpose)",),
}
_PARAMETER = re.compile(r"\$([a-z_]+)")
_LOOK_UP_SECONDS, _COUNT_SECONDS = 2.0, 30.0
_DROP_TRIES, _DROP_SECONDS = 30, 2
_READERS = """SELECT DISTINCT quote_ident(rolname) FROM pg_namespace AS n,
    aclexplode(n.nspacl) AS a JOIN pg_roles ON pg_roles.oid = a.grantee
    WHERE n.nspname = $1 AND a.privilege_type = 'USAGE' AND a.grantee <> n.nspowner"""
_EARLIER = """SELECT nspname::text FROM pg_namespace
    WHERE obj_description(oid, 'pg_namespace') = $1 AND nspname <> $2"""

_Answer = TypeVar("_Answer")


def write_postgres_snapshot(
    store: BehaviourStore, database: Database, *, progress: Progress = no_progress
) -> Snapshot:
    """Write a new generation, let readers have it, and drop the one before.

    Killed or failing on the way to the new generation it leaves all as it was. The account needs
    the right to make schemas in the database. Roles with USAGE on the schema that names the
    generation may read it.

    Args:
        store: of the behaviour.
        database: with that schema behind ``#``, ``shelfwise`` if none is named.
        progress: told what is being done.

    Raises:
        ConfigError: the driver is not installed.
        StoreUnavailable: the database cannot be reached.
        DataError: it refuses; or readers of the generation before do not let it go.
    """
    schema, generation = database.within or _SCHEMA, secrets.token_hex(8)
    with (
        connected(database, "the snapshot cannot be written") as cursor,
        store.reading() as connection,
    ):
        _make_room(cursor, schema, generation)
        connection.execute("BEGIN")  # all tables as they are at one moment
        for done, name in enumerate(TABLES):
            progress(_STAGE, done, len(TABLES))
            _copy(connection, cursor, name, generation)
        (events,) = connection.execute("SELECT count(*) FROM event").fetchall()[0]
        connection.execute("COMMIT")
        _admit_readers(cursor, schema, generation)
        cursor.execute(f"DELETE FROM {_pointer(schema)}")
        cursor.execute(f"INSERT INTO {_pointer(schema)} VALUES ('{generation}')")
    _drop_earlier(database, schema, generation)
    progress(_STAGE, len(TABLES), len(TABLES))
    return Snapshot(place=database.name, generation=generation, events=events)


def _pointer(schema: str) -> str:
    return f"{quoted(schema)}.{_POINTER}"


def _mark(schema: str) -> str:
    """Return what is noted on a generation, so that nothing else is ever dropped."""
    return f"generation of {schema}, by shelfwise"


def _make_room(cursor: Any, schema: str, generation: str) -> None:
    cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    cursor.execute(f"CREATE TABLE IF NOT EXISTS {_pointer(schema)} (generation text NOT NULL)")
    # One writer at a time.
    cursor.execute(f"LOCK TABLE {_pointer(schema)} IN SHARE ROW EXCLUSIVE MODE")
    cursor.execute(f"CREATE SCHEMA {quoted(generation)}")
    cursor.execute(f"COMMENT ON SCHEMA {quoted(generation)} IS {literal(_mark(schema))}")
    cursor.execute(f"SET LOCAL search_path TO {quoted(generation)}")
    cursor.execute(KINDS_DDL)
    cursor.execute(_EPOCH_US)


def _copy(connection: duckdb.DuckDBPyConnection, cursor: Any, name: str, generation: str) -> None:
    """Make a table as it is in DuckDB, with its rows and the indexes that look-ups use."""
    columns = [row[:2] for row in connection.execute(f"DESCRIBE {name}").fetchall()]
    made = ", ".join(f"{quoted(column)} {_type(kind)}" for column, kind in columns)
    cursor.execute(f"CREATE TABLE {name} ({made})")
    taken = ", ".join(_as_sent(column, kind) for column, kind in columns)
    order = f"ORDER BY {SORTED_BY[name]}" if name in SORTED_BY else ""
    rows = connection.sql(f"SELECT {taken} FROM {name} {order}").to_arrow_reader(_BATCH)
    cursor.adbc_ingest(name, rows, mode="append", db_schema_name=generation)
    for columns_of_index in _INDEXED.get(name, ()):
        cursor.execute(f"CREATE INDEX ON {name} {columns_of_index}")
    cursor.execute(f"ANALYZE {name}")


def _type(kind: str) -> str:
    return "event_kind" if kind.startswith("ENUM") else _TYPES[kind]


def _as_sent(column: str, kind: str) -> str:
    name = quoted(column)
    if kind == "VARCHAR":
        return f"replace({name}, chr(0), '') AS {name}"  # which PostgreSQL's texts cannot hold
    return f"{name}::VARCHAR AS {name}" if _type(kind) in ("event_kind", _TEXT) else name


def _admit_readers(cursor: Any, schema: str, generation: str) -> None:
    cursor.execute(_READERS, [schema])
    for (role,) in cursor.fetchall():
        cursor.execute(f"GRANT USAGE ON SCHEMA {quoted(generation)} TO {role}")
        cursor.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {quoted(generation)} TO {role}")
        cursor.execute(f"GRANT SELECT ON {_pointer(schema)} TO {role}")


def _drop_earlier(database: Database, schema: str, generation: str) -> None:
    """Drop all other generations, never holding up those who still read one for long."""
    failure = (
        "the new snapshot is read from now on, but an earlier one cannot be dropped while somebody "
        "reads all of it: run shelfwise behaviour snapshot again"
    )
    for tries_left in reversed(range(_DROP_TRIES)):
        try:
            with connected(database, failure) as cursor:
                cursor.execute(f"SET LOCAL lock_timeout = '{_DROP_SECONDS}s'")
                cursor.execute(_EARLIER, [_mark(schema), generation])
                for (name,) in cursor.fetchall():
                    cursor.execute(f"DROP SCHEMA {quoted(name)} CASCADE")
            return
        except DataError as error:
            if not tries_left or "lock timeout" not in str(error):
                raise


class PostgresSnapshot(BehaviourStore):
    """Reads what `write_postgres_snapshot` has written, always the newest. Thread-safe."""

    def __init__(self, database: Database, *, privacy: PrivacySettings | None = None) -> None:
        """Open the snapshot in a database.

        Raises:
            ConfigError: the key of the pseudonyms cannot be read, or the driver is not installed.
            DataError: there is no snapshot, or it is of another schema version or key.
            StoreUnavailable: the database cannot be reached.
        """
        self._database = database
        self._schema = database.within or _SCHEMA
        self._server = Connections(database)
        self._shown, self._copied = "", ""
        try:
            super().__init__(Path(database.name), read_only=True, privacy=privacy)
        except BaseException:
            self._server.close()
            raise

    @classmethod
    def is_in(cls, database: Database) -> bool:
        """Tell whether a snapshot has been written to a database.

        Raises:
            ConfigError: the driver is not installed.
            StoreUnavailable: the database cannot be reached.
        """
        with connected(database, "cannot be read") as cursor:
            cursor.execute(
                "SELECT to_regclass($1) IS NOT NULL", [_pointer(database.within or _SCHEMA)]
            )
            return bool(cursor.fetchall()[0][0])

    def _connected(self) -> duckdb.DuckDBPyConnection:
        if not self.is_in(self._database):
            raise DataError(f"{self._database.name}: {NO_SNAPSHOT}")
        connection = memory_connection()
        try:
            connection.execute(KINDS_DDL)
            self._shown = self._copy(connection, ["meta"])
        except BaseException:
            connection.close()
            raise
        return connection

    def _pseudonyms_of(self, connection: duckdb.DuckDBPyConnection) -> Pseudonyms:
        return checked_pseudonyms(connection, Path(self._database.name), self._privacy)

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
            if self._copied != self._shown:
                self._copied = self._copy(self._connection, TABLES)
        with super().reading() as connection:
            yield connection

    def _parsed(self, events: str) -> HistoryQuestions:
        return HistoryQuestions.over(self._privacy.default_consent, events)

    def _rows(
        self, query: str | duckdb.Statement, parameters: dict[str, Any] | None = None
    ) -> list[Any]:
        given, text = parameters or {}, str(query)
        names = list(dict.fromkeys(_PARAMETER.findall(text)))
        numbered = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", text)
        values = [_sent(given[name]) for name in names]
        seconds = _LOOK_UP_SECONDS if text in self._asked else _COUNT_SECONDS

        def ask(cursor: Any) -> list[Any]:
            cursor.execute(
                f"""SELECT set_config('search_path', quote_ident(generation), true),
                set_config('statement_timeout', '{seconds * 1000:.0f}', true)
                FROM {_pointer(self._schema)}"""
            )
            cursor.fetchall()
            cursor.execute(numbered, values or None)
            rows: list[Any] = cursor.fetchall()
            return rows

        return _once_more(lambda: self._server.ask(ask, seconds=seconds))

    def _refuse_if_read_only(self) -> None:
        name = self._database.name
        raise DataError(f"{name}: a snapshot is read-only; change the store that it is made of")

    def _follow(self) -> None:
        if self._server.ask(self._newest, seconds=_LOOK_UP_SECONDS) == self._shown:
            return
        with self._writing:
            if self._server.ask(self._newest, seconds=_LOOK_UP_SECONDS) == self._shown:
                return
            generation = self._copy(self._connection, ["meta"])
            self._pseudonyms = self._pseudonyms_of(self._connection)
            self._changes += 1
            self._shown = generation  # last: whoever sees it takes the rest without a lock

    def _newest(self, cursor: Any) -> str:
        cursor.execute(f"SELECT generation FROM {_pointer(self._schema)}")
        rows = cursor.fetchall()
        if not rows:
            raise DataError(f"{self._database.name}: {NO_SNAPSHOT}")
        return str(rows[0][0])

    def _copy(self, connection: duckdb.DuckDBPyConnection, tables: Collection[str]) -> str:
        """Copy tables of the newest generation into DuckDB, all or none; return its name."""

        def copy() -> str:
            with (
                connected(self._database, "the snapshot cannot be read") as cursor,
                connection.cursor() as sink,
            ):
                generation = self._newest(cursor)
                sink.execute("BEGIN")
                for name in tables:
                    cursor.execute(f"SELECT * FROM {quoted(generation)}.{name}")
                    sink.register("fetched", cursor.fetch_record_batch())
                    sink.execute(f"CREATE OR REPLACE TABLE {name} {TABLES[name]}")
                    sink.execute(f"INSERT INTO {name} SELECT * FROM fetched")
                    sink.unregister("fetched")
                sink.execute("COMMIT")
                return generation

        return _once_more(copy)


def _once_more(act: Callable[[], _Answer]) -> _Answer:
    """Do something, again if it fails: the generation may have been dropped on the way."""
    try:
        return act()
    except StoreUnavailable:
        raise
    except DataError:
        return act()


def _sent(value: Any) -> Any:
    return str(value) if isinstance(value, UUID) else value
