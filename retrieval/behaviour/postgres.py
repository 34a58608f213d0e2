"""PostgreSQL through ADBC: connections, what is asked over them, and what their errors mean.

The password stays where libpq looks for it (``PGPASSWORD``, ``~/.pgpass``, a service file), or in
the URL, and is in no message.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from reranker.errors import ConfigError, DataError, StoreUnavailable
from reranker.settings import Database

_LIMITS = {
    "connect_timeout": 3,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}
"""libpq's: a host that is silent is given up, also by whoever waits for rows."""
_REST_SECONDS = 3.0
"""After the database could not be reached nobody waits for it again so soon."""

_Answer = TypeVar("_Answer")
Question = Callable[[Any], _Answer]
"""Is given a cursor, in a transaction of which nothing is kept."""


@contextmanager
def connected(database: Database, failure: str) -> Iterator[Any]:
    """Lend a cursor whose work is kept as a whole or not at all.

    Args:
        database: to connect to.
        failure: what a message says: that something cannot be read, or written.

    Raises:
        ConfigError: the driver is not installed.
        StoreUnavailable: the database cannot be reached, or went away.
        DataError: it does not do what it is asked for.
    """
    driver = _Driver(database)
    try:
        with driver.connect() as connection, connection.cursor() as cursor:
            yield cursor
            connection.commit()
    except driver.errors.Error as error:
        raise driver.meaning(error, failure) from error


class _Driver:
    """ADBC, if it is installed."""

    def __init__(self, database: Database) -> None:
        try:
            import adbc_driver_manager
            from adbc_driver_postgresql import dbapi
        except ImportError as error:
            raise ConfigError(
                f"{database.name}: reading PostgreSQL needs its driver: "
                "uv pip install 'shelfwise[postgres]'"
            ) from error
        self.errors: Any = adbc_driver_manager
        self._dbapi: Any = dbapi
        self._database = database

    def connect(self) -> Any:
        url = self._database.url
        added = "&".join(f"{name}={value}" for name, value in _LIMITS.items() if name not in url)
        return self._dbapi.connect(f"{url}{'&' if '?' in url else '?'}{added}")

    def meaning(self, error: Exception, failure: str) -> DataError:
        """Return what is to be raised in place of a driver's error."""
        kind = StoreUnavailable if isinstance(error, self.errors.OperationalError) else DataError
        first = str(error).partition("\n")[0]
        return kind(f"{self._database.name}: {failure} ({first})")


class Connections:
    """Connections to one database that are used again. Thread-safe."""

    def __init__(self, database: Database) -> None:
        """Take the address; nobody is asked yet.

        Raises:
            ConfigError: the driver is not installed.
        """
        self._driver = _Driver(database)
        self._name = database.name
        self._idle: list[Any] = []
        self._lock = threading.Lock()
        self._closed = False
        self._rests_until = 0.0

    def ask(self, question: Question[_Answer], *, seconds: float) -> _Answer:
        """Return the answer to a question, put again where an idle connection turned out dead.

        Args:
            question: what to ask.
            seconds: after which nobody waits any more, whatever the network does.

        Raises:
            StoreUnavailable: the database cannot be reached, or does not answer in time.
            DataError: it refuses the question.
        """
        if time.monotonic() < self._rests_until:
            raise StoreUnavailable(f"{self._name}: it could not be reached just now")
        answer: Future[_Answer] = Future()
        # A thread that waits for a dead peer cannot be stopped, only left alone.
        threading.Thread(target=self._answer, args=(answer, question), daemon=True).start()
        try:
            return answer.result(timeout=seconds)
        except self._driver.errors.OperationalError as error:
            self._rests_until = time.monotonic() + _REST_SECONDS
            raise self._driver.meaning(error, "it does not answer") from error
        except self._driver.errors.Error as error:
            raise self._driver.meaning(error, "it refuses to answer") from error
        except TimeoutError as error:
            answer.cancel()
            self._rests_until = time.monotonic() + max(_REST_SECONDS, 2 * seconds)
            message = f"{self._name}: it has not answered within {seconds:g} seconds"
            raise StoreUnavailable(message) from error

    def _answer(self, answer: "Future[_Answer]", question: Question[_Answer]) -> None:
        try:
            idle = self._taken()
            try:
                found = self._ask(idle or self._driver.connect(), question)
            except self._driver.errors.OperationalError:
                if idle is None:
                    raise
                self._drop()  # the server may have been started anew
                found = self._ask(self._driver.connect(), question)
        except BaseException as error:
            if answer.set_running_or_notify_cancel():
                answer.set_exception(error)
            return
        if answer.set_running_or_notify_cancel():
            answer.set_result(found)

    def _ask(self, connection: Any, question: Question[_Answer]) -> _Answer:
        try:
            with connection.cursor() as cursor:
                answer = question(cursor)
            connection.rollback()
        except BaseException:
            with suppress(self._driver.errors.Error):
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
            return self._idle.pop() if self._idle else None

    def _drop(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            with suppress(self._driver.errors.Error):
                connection.close()

    def close(self) -> None:
        """Let go of the database."""
        self._closed = True
        self._drop()
