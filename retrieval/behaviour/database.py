"""The file of a behaviour store: opened with its key, changed as a whole or not at all."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import duckdb
import pyarrow as pa
from pydantic import SecretStr

from reranker.errors import DataError
from reranker.ports import Progress, no_progress
from reranker.settings import PrivacySettings
from retrieval.behaviour.opening import FILE_NAME, check_schema, connect, not_readable
from retrieval.behaviour.pseudonyms import Pseudonym, Pseudonyms
from retrieval.behaviour.rewriting import remove_leftovers, rewrite

_NOBODYS_KEY = SecretStr("of the store in which nobody is")


class BehaviourFile:
    """What `retrieval.behaviour.BehaviourStore` rests on. Thread-safe, but for `rewrite`."""

    def __init__(
        self, folder: Path, *, read_only: bool = False, privacy: PrivacySettings | None = None
    ) -> None:
        """Open the store of a folder; a missing one is created, or seen as empty if read-only.

        Args:
            folder: of the shop's data.
            read_only: refuse writes, and share the file with other readers.
            privacy: None takes the defaults, so that the key is in the user's configuration folder.

        Raises:
            ConfigError: the key of the pseudonyms cannot be read, or a setting is wrong.
            DataError: the file is in use elsewhere, corrupt, or of another schema version or key.
        """
        self._path = folder / FILE_NAME
        self._privacy = privacy or PrivacySettings()
        self._absent = read_only and not self._path.exists()
        self._refuses_writes = read_only
        self._writing = threading.RLock()
        self._changes = 0
        if not read_only:
            folder.mkdir(parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        self._connection = self._connected()
        try:
            self._pseudonyms = self._pseudonyms_of(self._connection)
        except duckdb.Error as error:
            self.close()
            raise not_readable(self._path, error) from error
        except BaseException:
            self.close()
            raise

    def _connected(self) -> duckdb.DuckDBPyConnection:
        return connect(self._path, read_only=self._reads_file, absent=self._absent)

    def _pseudonyms_of(self, connection: duckdb.DuckDBPyConnection) -> Pseudonyms:
        privacy = self._privacy
        if self._absent:  # an empty store in memory: nobody is in it, whatever the key
            privacy = PrivacySettings(key=_NOBODYS_KEY)
        return check_schema(connection, self._path, privacy, read_only=self._reads_file)

    @property
    def _reads_file(self) -> bool:
        return self._refuses_writes and not self._absent

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    @property
    def generation(self) -> int:
        """Number of bulk changes through this object; what is derived holds until it grows."""
        return self._changes

    @property
    def pseudonyms(self) -> Pseudonyms:
        """What makes the pseudonyms of this store."""
        return self._pseudonyms

    @property
    def fingerprint(self) -> str:
        """What tells the key of these pseudonyms from others; hexadecimal."""
        return self._pseudonyms.fingerprint

    def pseudonym(self, user_id: str) -> Pseudonym:
        """Return what stands for a shopper in this store."""
        return self._pseudonyms.of(user_id)

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection of its own for queries, so that threads do not wait for each other."""
        with self._connection.cursor() as connection:
            yield connection

    def rewrite(
        self,
        kept: Mapping[str, str],
        *,
        tables: Mapping[str, pa.Table] | None = None,
        pseudonyms: Pseudonyms | None = None,
        progress: Progress = no_progress,
    ) -> None:
        """Write the file anew with only some rows, so that no byte of the others is left in it.

        No other object of this process may have the store open.

        Args:
            kept: table to SELECT of the rows that stay; of the others all do.
            tables: that the SELECTs read besides, by name.
            pseudonyms: that the SELECTs give; None: they are as before.
            progress: told what is being done.

        Raises:
            DataError: the store is read-only, or open elsewhere in this process, or there is no
                room to write it anew.
        """
        self._refuse_if_read_only()
        made = pseudonyms or self._pseudonyms
        with self._writing:
            for name, table in (tables or {}).items():
                self._connection.register(name, table)
            try:
                rewrite(self._connection, self._path, kept, made.fingerprint, progress)
            finally:
                self._reopen()
            self._changes += 1

    def _reopen(self) -> None:
        self.close()
        try:
            # In one process DuckDB opens a file once: the old one, if anybody still has that.
            connect(self._path, read_only=True).close()
        except DataError as error:
            raise DataError(
                f"{self._path}: another object of this process still has the store open as it was; "
                "close it, and open the store again"
            ) from error
        remove_leftovers(self._path)
        self._open()

    def _rows(
        self, query: str | duckdb.Statement, parameters: dict[str, Any] | None = None
    ) -> list[Any]:
        with self.reading() as connection:
            return connection.execute(query, parameters).fetchall()

    def _refuse_if_read_only(self) -> None:
        if self._refuses_writes:
            raise DataError(f"{self._path}: opened read-only; open it for writing to change it")

    @contextmanager
    def changing(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """Lend a connection whose work is kept as a whole or not at all.

        Raises:
            DataError: the store is read-only.
        """
        self._refuse_if_read_only()
        with self._writing, self._connection.cursor() as connection:
            connection.execute("SET TimeZone = 'UTC'; BEGIN")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.TransactionException:
        return  # the import has rolled back already to look for the file at fault
