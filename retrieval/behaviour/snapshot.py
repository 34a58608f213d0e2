"""A store's behaviour as a folder of Parquet files, which any number of processes read.

The behaviour file takes one writing process or many reading ones. A snapshot locks nobody out: a
new generation is written beside the one that is read, and then a small file names it, which
readers look at before each question. So an import does not stop serving, many machines can share
the folder, and other engines read it as well. What derives profiles, labels and counts is the same.
"""

import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb
from filelock import FileLock
from pydantic import Field

from reranker.errors import DataError
from reranker.ports import Progress, no_progress
from reranker.schema import Value
from reranker.settings import PrivacySettings
from retrieval.behaviour.opening import MEMORY_LIMIT, checked_pseudonyms
from retrieval.behaviour.pseudonyms import Pseudonym, Pseudonyms
from retrieval.behaviour.schema import KINDS_DDL, SORTED_BY, TABLES
from retrieval.behaviour.store import Asked, BehaviourStore
from retrieval.event_formats.sql import literal, source
from retrieval.files import replacing

CURRENT = "current"
"""File of a snapshot that names its generation."""
_GENERATION = re.compile("[0-9a-f]{16}")
_UNFINISHED = f"{CURRENT}.*.tmp"
"""What `replacing` leaves of a `CURRENT` whose writer was killed."""
NO_SNAPSHOT = "holds no snapshot: run shelfwise behaviour snapshot"
_ROW_GROUP = 30_720
"""Small: a look-up unpacks whole ones."""
_STAGE = "writing the snapshot"
_PARTS = "0123456789abcdef"
"""The events are in a file for each first digit of a pseudonym: a look-up opens one."""
_REMEMBERED = frozenset(TABLES) - {"event", "quarantine"}
"""Small tables that are read once a generation."""


class Snapshot(Value):
    """What was written.

    Attributes:
        place: folder or database to read from.
        generation: what is read there; of a folder, one in it with a folder for each table.
    """

    place: str
    generation: str
    events: int = Field(ge=0)


def write_snapshot(
    store: BehaviourStore, folder: Path, *, progress: Progress = no_progress
) -> Snapshot:
    """Write a new generation, and remove all others with their bytes.

    Killed before it is whole, readers go on with the one before; the next call clears up.

    Args:
        store: of the behaviour.
        folder: of the snapshot; nothing else may be in it before the first one.
        progress: told what is being done.

    Raises:
        DataError: the folder cannot be written, or holds something else.
    """
    generation = secrets.token_hex(8)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _refuse_others(folder)
        with FileLock(folder / "lock"):
            _write(store, folder / generation, progress)
            with replacing(folder / CURRENT) as temporary:
                temporary.write_text(generation, encoding="utf-8")
            _clear_up(folder, generation)
    except (OSError, duckdb.IOException) as error:
        raise DataError(f"{folder}: the snapshot cannot be written ({error})") from error
    return Snapshot(place=str(folder), generation=generation, events=store.count())


def _refuse_others(folder: Path) -> None:
    """Refuse a folder that is no snapshot yet and holds anything but what a killed writer left."""
    ours = {"lock", *(file.name for file in folder.glob(_UNFINISHED))}
    if not (folder / CURRENT).exists() and not all(
        each.name in ours or _is_generation(each) for each in folder.iterdir()
    ):
        raise DataError(f"{folder}: holds other files; name a folder of the snapshot's own")


def _clear_up(folder: Path, kept: str) -> None:
    for unfinished in folder.glob(_UNFINISHED):
        unfinished.unlink()
    for each in folder.iterdir():
        if each.name != kept and _is_generation(each):
            shutil.rmtree(each)


def _is_generation(folder: Path) -> bool:
    """Tell what `_write` has made, whole or in part, from what is not ours to remove."""
    if not _GENERATION.fullmatch(folder.name) or folder.is_symlink() or not folder.is_dir():
        return False
    inside = {each.name for each in folder.iterdir()}
    return "meta" in inside or inside <= TABLES.keys()


def _write(store: BehaviourStore, folder: Path, progress: Progress) -> None:
    with store.reading() as connection:
        connection.execute("BEGIN")  # all tables as they are at one moment
        for done, name in enumerate(TABLES):
            progress(_STAGE, done, len(TABLES))
            (folder / name).mkdir(parents=True)
            order = f"ORDER BY {SORTED_BY[name]}" if name in SORTED_BY else ""
            for part in _PARTS if name == "event" else _PARTS[0]:
                rows = f"FROM {name} {_within(part) if name == 'event' else ''} {order}"
                connection.execute(
                    f"""COPY ({rows}) TO {literal(folder / name / f"{part}.parquet")}
                    (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP})"""
                )
        connection.execute("COMMIT")
    progress(_STAGE, len(TABLES), len(TABLES))


def _within(part: str) -> str:
    first, last = UUID(hex=f"{part:0<32}"), UUID(hex=f"{part:f<32}")
    return f"WHERE shopper BETWEEN '{first}'::UUID AND '{last}'::UUID"


def memory_connection() -> duckdb.DuckDBPyConnection:
    """Open a database in memory, of which what is too much goes to the temporary folder."""
    spilled = Path(tempfile.gettempdir()) / f"shelfwise-{os.getpid()}-{secrets.token_hex(4)}"
    return duckdb.connect(config={"memory_limit": MEMORY_LIMIT, "temp_directory": str(spilled)})


class BehaviourSnapshot(BehaviourStore):
    """Reads what `write_snapshot` has written, always the newest. Thread-safe."""

    def __init__(self, folder: Path, *, privacy: PrivacySettings | None = None) -> None:
        """Open the snapshot in a folder.

        Raises:
            ConfigError: the key of the pseudonyms cannot be read.
            DataError: there is no snapshot, or it is of another schema version or key.
        """
        self._folder = folder
        self._shown = ""
        super().__init__(folder, read_only=True, privacy=privacy)

    def _open(self) -> None:
        super()._open()
        self._asked_of_part = {part: self._parsed(f"event_{part}") for part in _PARTS}

    def _history_of(self, shopper: Pseudonym) -> Asked:
        return self._asked_of_part[shopper.hex[0]]

    def _connected(self) -> duckdb.DuckDBPyConnection:
        connection = memory_connection()
        try:
            connection.execute(f"SET parquet_metadata_cache = true; {KINDS_DDL}")
            newest = self._newest()
            self._show(connection, newest)
        except BaseException:
            connection.close()
            raise
        self._shown = newest
        return connection

    def _pseudonyms_of(self, connection: duckdb.DuckDBPyConnection) -> Pseudonyms:
        return checked_pseudonyms(connection, self._folder, self._privacy)

    def pseudonym(self, user_id: str) -> Pseudonym:
        """Return what stands for a shopper in the newest generation."""
        self._follow()
        return super().pseudonym(user_id)

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection of its own that sees the newest generation."""
        self._follow()
        with super().reading() as connection:
            yield connection

    def _rows(
        self, query: str | duckdb.Statement, parameters: dict[str, Any] | None = None
    ) -> list[Any]:
        try:
            return super()._rows(query, parameters)
        except duckdb.IOException:
            # Its files went away meanwhile; another thread may have followed already.
            return super()._rows(query, parameters)

    def _follow(self) -> None:
        if self._newest() == self._shown:
            return
        with self._writing:
            newest = self._newest()
            if newest != self._shown:
                self._show(self._connection, newest)
                self._pseudonyms = self._pseudonyms_of(self._connection)
                self._changes += 1
                self._shown = newest  # last: whoever sees it takes the rest without a lock

    def _newest(self) -> str:
        try:
            return (self._folder / CURRENT).read_text(encoding="utf-8").strip()
        except FileNotFoundError as error:
            raise DataError(f"{self._folder}: {NO_SNAPSHOT}") from error

    def _show(self, connection: duckdb.DuckDBPyConnection, generation: str) -> None:
        with connection.cursor() as sink:  # closed on the way, it leaves no transaction open
            sink.execute("BEGIN")  # no question meets tables of two generations
            for name in TABLES:
                rows = self._rows_of(generation, name, "*")
                kind = "TABLE" if name in _REMEMBERED else "VIEW"
                sink.execute(f"CREATE OR REPLACE {kind} {name} AS {rows}")
            for part in _PARTS:
                rows = self._rows_of(generation, "event", part)
                sink.execute(f"CREATE OR REPLACE VIEW event_{part} AS {rows}")
            sink.execute("COMMIT")

    def _rows_of(self, generation: str, table: str, part: str) -> str:
        taken = "* REPLACE (kind::event_kind AS kind)" if table == "event" else "*"
        files = source(self._folder / generation / table).removesuffix("'") + f"/{part}.parquet'"
        return f"SELECT {taken} FROM read_parquet({files})"
