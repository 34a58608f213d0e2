"""Opens the file of a behaviour store, and says what is wrong with it in terms of what to do."""

from pathlib import Path

import duckdb

from reranker.errors import DataError
from reranker.settings import PrivacySettings
from retrieval.behaviour.keys import KeyRing
from retrieval.behaviour.pseudonyms import Pseudonyms
from retrieval.behaviour.schema import SCHEMA_VERSION, store_ddl

FILE_NAME = "behaviour.duckdb"
MEMORY_LIMIT = "1200MB"


def connect(path: Path, *, read_only: bool, absent: bool = False) -> duckdb.DuckDBPyConnection:
    """Open a database file.

    Args:
        path: of the file.
        read_only: share it with other readers; else no other process can open it.
        absent: open an empty store in memory in its place.

    Raises:
        DataError: the file is in use elsewhere, or corrupt.
    """
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": MEMORY_LIMIT,
        "temp_directory": str(temp_folder(path)),
    }
    if read_only:
        # A look-up visits a few row groups: a second thread would only take a core from recall.
        config["threads"] = 1
    try:
        return duckdb.connect(":memory:" if absent else path, read_only=read_only, config=config)
    except duckdb.Error as error:
        message = str(error).splitlines()[0]
        if "Could not set lock" in message:
            remedy = "stop the other process, or open it read-only in both"
            raise DataError(f"{path}: in use by another process ({message}); {remedy}") from error
        if "different configuration" in message:
            raise DataError(f"{path}: already open in this process in the other mode") from error
        if "Read-only file system" in message or "Permission denied" in message:
            raise DataError(f"{path}: cannot be written ({message}); let this user") from error
        raise not_readable(path, error) from error


def not_readable(path: Path, error: duckdb.Error) -> DataError:
    """Return the error for a file that is damaged, or no behaviour store at all."""
    message = str(error).splitlines()[0]
    remedy = "move it away and import the events again"
    return DataError(f"{path}: not a readable behaviour store ({message}); {remedy}")


def temp_folder(path: Path) -> Path:
    """Return where DuckDB puts what does not fit into memory."""
    return path.with_name(f"{path.name}.tmp")


def check_schema(
    connection: duckdb.DuckDBPyConnection, path: Path, privacy: PrivacySettings, *, read_only: bool
) -> Pseudonyms:
    """Make the tables of a new store, or check those of another; return its pseudonyms.

    Raises:
        ConfigError: the key of the pseudonyms cannot be read.
        DataError: this is no behaviour store, or one of another schema version or key.
    """
    rows = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    tables = {row[0] for row in rows}
    if not tables and not read_only:
        ring = KeyRing.load(privacy, create=True)
        pseudonyms = Pseudonyms(ring, len(ring.keys))
        connection.execute(f"BEGIN; {store_ddl(pseudonyms.fingerprint)} COMMIT")
        return pseudonyms
    if not {"meta", "event"} <= tables:
        raise DataError(f"{path}: not a behaviour store; choose another store folder")
    return checked_pseudonyms(connection, path, privacy)


def checked_pseudonyms(
    connection: duckdb.DuckDBPyConnection, path: Path, privacy: PrivacySettings
) -> Pseudonyms:
    """Return the pseudonyms of a store whose tables are there.

    Raises:
        ConfigError: the key of the pseudonyms cannot be read.
        DataError: it is of another schema version or key.
    """
    (version,) = connection.execute("SELECT schema_version FROM meta").fetchall()[0]
    if version != SCHEMA_VERSION:
        raise DataError(
            f"{path}: has schema version {version}, and this program reads {SCHEMA_VERSION}; move "
            "it away and import the events again"
        )
    return _pseudonyms(connection, path, privacy)


def _pseudonyms(
    connection: duckdb.DuckDBPyConnection, path: Path, privacy: PrivacySettings
) -> Pseudonyms:
    (fingerprint,) = connection.execute("SELECT key_fingerprint FROM meta").fetchall()[0]
    ring = KeyRing.load(privacy)
    generation = ring.generation(fingerprint)
    if generation is None:
        held = "there is none" if not ring.keys else "it holds another one"
        raise DataError(
            f"{path}: its pseudonyms were made with the key of fingerprint {fingerprint[:12]}, "
            f"which is not in {ring.place}: {held}; put the right key there (settings "
            "privacy.key_file, privacy.key), or move the store away and import the events again"
        )
    return Pseudonyms(ring, generation)
