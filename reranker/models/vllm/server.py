"""One server as the pool sees it: its load, and a circuit breaker with a look-out of its own.

After so many failures in a row a server is left alone: its circuit is open. A thread then looks
every few seconds whether the server is back, first at ``/health``, then by one small real call. So
no shopper's request has to try a server that failed, and recovery needs no request at all.
"""

import logging
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Lock, Thread

Probe = Callable[[str], None]
"""Tries the server of a base URL; raises an exception where it does not answer as it should."""

_log = logging.getLogger(__name__)


class Server:
    """The state of one server. Thread-safe: several event loops may ask it at once."""

    def __init__(self, url: str, *, failures: int, recovery_s: float, probe: Probe) -> None:
        """Take a server to be well.

        Args:
            url: its base URL.
            failures: failures in a row that open the circuit.
            recovery_s: seconds between looks whether it is back.
            probe: looks.
        """
        self.url = url
        self._limit = failures
        self._recovery_s = recovery_s
        self._probe = probe
        self._lock = Lock()
        self._stopped = Event()
        self._load = 0
        self._failures = 0
        self._reason: str | None = None
        self._last_answer = -1.0

    def __repr__(self) -> str:
        state = f"left alone: {self._reason}" if self._reason else "healthy"
        return f"Server({self.url}, {self._load} calls under way, {state})"

    @property
    def load(self) -> int:
        """Number of calls under way."""
        return self._load

    @property
    def reason(self) -> str | None:
        """Why the server is left alone; None while it is asked."""
        return self._reason

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call as under way, however it ends."""
        with self._lock:
            self._load += 1
        try:
            yield
        finally:
            with self._lock:
                self._load -= 1

    def answered(self) -> None:
        """Take note that a call was answered, be it with a refusal."""
        with self._lock:
            self._failures = 0
            self._last_answer = time.monotonic()

    def failed(self, reason: str) -> None:
        """Take note of a failure; the last of too many opens the circuit."""
        with self._lock:
            self._failures += 1
            if self._failures < self._limit:
                return
        self.leave_alone(reason)

    def leave_alone(self, reason: str) -> None:
        """Open the circuit, and look out for the server."""
        with self._lock:
            if self._reason or self._stopped.is_set():
                return
            self._reason = reason
        self._watch()

    def timed_out(self, reason: str, *, since: float) -> None:
        """Take note of a call without an answer in its time.

        A server that answered others meanwhile is well: the call was only given too little time.

        Args:
            reason: for people.
            since: moment of `time.monotonic` at which the call began.
        """
        if self._last_answer < since:
            self.failed(reason)

    def close(self) -> None:
        """End the look-out."""
        self._stopped.set()

    def recovered(self) -> bool:
        """Look whether the server is back, and ask it again if it is."""
        try:
            self._probe(self.url)
        except Exception as error:  # whatever is wrong with it, it is not back
            self._reason = str(error) or type(error).__name__
            return False
        with self._lock:
            self._failures = 0
            self._reason = None
        _log.warning("%s is back", self.url)
        return True

    def _watch(self) -> None:
        _log.warning("%s is left alone: %s", self.url, self._reason)
        # The thread holds no reference: a pool that nobody closed ends its look-out all the same.
        arguments = (weakref.ref(self), self._stopped, self._recovery_s)
        Thread(target=_look_out, args=arguments, name="shelfwise-look-out", daemon=True).start()


def _look_out(reference: "weakref.ref[Server]", stopped: Event, recovery_s: float) -> None:
    while not stopped.wait(recovery_s):
        server = reference()
        if server is None or server.recovered():
            return
        del server
