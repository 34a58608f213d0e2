"""PostgreSQL through ADBC: addresses without passwords in messages, and connections.

The password stays where libpq looks for it (``PGPASSWORD``, ``~/.pgpass``, a service file), or in
the URL, and is in no message.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qs, urlsplit

from reranker.errors import ConfigError, DataError, StoreUnavailable

_SCHEMES = ("postgresql://", "postgres://")
_CONNECT_SECONDS = 5
_STATEMENT_SECONDS = 10
_REST_SECONDS = 3.0
"""After a failure nobody waits for the server again so soon."""

_Answer = TypeVar("_Answer")


def is_database(text: object) -> bool:
    """Tell whether something is a text that names a database, not a file."""
    return isinstance(text, str) and text.startswith(_SCHEMES)


@dataclass(frozen=True)
class Address:
    """A database, and what is named of it behind ``#``.

    Attributes:
        url: of the database, as libpq takes it.
        within: a schema, or a table; empty: nothing was named.
        name: for messages; nobody's account or password is in it.
    """

    url: str = field(repr=False)
    within: str
    name: str

    @classmethod
    def of(cls, text: str) -> "Address":
        """Return the address of ``postgresql://USER@HOST/DATABASE#WITHIN``."""
        url, _, within = text.partition("#")
        parts = urlsplit(url)
        host = parts.hostname or "".join(parse_qs(parts.query).get("host", [])) or "localhost"
        port = f":{parts.port}" if parts.port else ""
        return cls(url, within, f"postgresql://{host}{port}{parts.path}#{within}")

    @contextmanager
    def connected(self, failure: str) -> Iterator[Any]:
        """Lend a cursor whose work is kept as a whole or not at all.

        Args:
            failure: what a message says: that something cannot be read, or written.

        Raises:
            ConfigError: the driver is not installed.
            DataError: the database does not do what it is asked for.
        """
        dbapi, error_type = self._driver()
        try:
            with dbapi.connect(self.url) as connection, connection.cursor() as cursor:
                yield cursor
                connection.commit()
        except error_type as error:
            raise DataError(f"{self.name}: {failure} ({first_line(error)})") from error

    def connect(self) -> Any:
        """Return a connection for short questions, each a transaction of its own.

        Raises:
            ConfigError: the driver is not installed.
            adbc_driver_manager.Error: the database cannot be reached.
        """
        dbapi, _ = self._driver()
        mark = "&" if urlsplit(self.url).query else "?"
        limited = (
            "" if "connect_timeout" in self.url else f"{mark}connect_timeout={_CONNECT_SECONDS}"
        )
        connection = dbapi.connect(f"{self.url}{limited}", autocommit=True)
        with connection.cursor() as cursor:
            cursor.execute(f"SET statement_timeout = '{_STATEMENT_SECONDS}s'")
        return connection

    def _driver(self) -> tuple[Any, type[Exception]]:
        try:
            from adbc_driver_manager import Error
            from adbc_driver_postgresql import dbapi
        except ImportError as error:
            raise ConfigError(
                f"{self.name}: reading PostgreSQL needs its driver: "
                "uv pip install 'shelfwise[postgres]'"
            ) from error
        return dbapi, Error


class Connections:
    """Connections to one database that are used again. Thread-safe."""

    def __init__(self, address: Address) -> None:
        """Take the address; nobody is asked yet."""
        self._address = address
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._closed = False
        self._rests_until = 0.0

    def ask(self, question: Callable[[Any], _Answer]) -> _Answer:
        """Return the answer to a question, which is put again once over a fresh connection.

        Args:
            question: is given a cursor.

        Raises:
            ConfigError: the driver is not installed.
            StoreUnavailable: the database cannot be reached, or does not answer.
        """
        from adbc_driver_manager import Error

        if time.monotonic() < self._rests_until:
            raise StoreUnavailable(f"{self._address.name}: it could not be reached just now")
        try:
            try:
                return self._ask(self._taken(), question)
            except Error:
                self._drop()  # the server may have been started anew
                return self._ask(self._address.connect(), question)
        except Error as error:
            self._rests_until = time.monotonic() + _REST_SECONDS
            message = f"{self._address.name}: it cannot be asked ({first_line(error)})"
            raise StoreUnavailable(message) from error

    def _ask(self, connection: Any, question: Callable[[Any], _Answer]) -> _Answer:
        try:
            with connection.cursor() as cursor:
                answer = question(cursor)
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return answer
        connection.close()
        return answer

    def _taken(self) -> Any:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return self._address.connect()

    def _drop(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Let go of the database."""
        self._closed = True
        self._drop()


def first_line(error: BaseException) -> str:
    """Return what an error says, in one line."""
    return str(error).partition("\n")[0]
