"""One server as the pool sees it: its load, and a circuit breaker with a look-out of its own.

After so many failures in a row a server is left alone: its circuit is open. A thread then looks
every few seconds whether the server is back, first at ``/health``, then by one small real call. So
no shopper's request has to try a server that failed, and recovery needs no request at all.

A call that had less than the server's full time and ran out of it tells little: its caller may only
be impatient. After so many of them in a row a thread asks the server the small call as well, and
the circuit opens only if that has no answer either, nor any other call meanwhile.
"""

import logging
import time
import weakref
from collections.abc import Callable
from threading import Event, Lock, Thread

from reranker.models.vllm.admission import Admission

Probe = Callable[[str], None]
"""Tries the server of a base URL; raises an exception where it does not answer as it should."""

CONFIRM_S = 3.0
"""Seconds that a suspected server has for one small call: far more than one token takes, and few
enough that a server that hangs is soon left alone."""

_log = logging.getLogger(__name__)


class Server:
    """The state of one server. Thread-safe: several event loops may ask it at once."""

    def __init__(
        self,
        url: str,
        *,
        calls: int,
        failures: int,
        recovery_s: float,
        probe: Probe,
        confirm: Probe,
    ) -> None:
        """Take a server to be well.

        Args:
            url: its base URL.
            calls: most calls under way at a time.
            failures: failures in a row that open the circuit; or hurried calls without an answer
                that raise a suspicion.
            recovery_s: seconds between looks whether it is back, or between suspicions.
            probe: looks whether it is back.
            confirm: looks, within a few seconds, whether a suspected one answers at all.
        """
        self.url = url
        self.admission = Admission(calls)
        self._limit = failures
        self._recovery_s = recovery_s
        self._probe = probe
        self._confirm = confirm
        self._lock = Lock()
        self._stopped = Event()
        self._failures = 0
        self._hurried = 0
        self._suspected = False
        self._trusted_until = -1.0
        self._reason: str | None = None
        self._last_answer = -1.0

    def __repr__(self) -> str:
        state = f"left alone: {self._reason}" if self._reason else "healthy"
        return f"Server({self.url}, {self.load} calls under way, {state})"

    @property
    def load(self) -> int:
        """Number of calls under way and waiting."""
        return self.admission.load

    @property
    def reason(self) -> str | None:
        """Why the server is left alone; None while it is asked."""
        return self._reason

    @property
    def suspected(self) -> bool:
        """Whether it is being looked at because hurried calls had no answer."""
        return self._suspected

    def answered(self) -> None:
        """Take note that a call was answered, be it with a refusal."""
        with self._lock:
            self._failures = self._hurried = 0
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

    def timed_out(self, reason: str, *, since: float, whole: bool) -> None:
        """Take note of a call without an answer in its time.

        A server that answered others meanwhile is well: the call was only given too little time.

        Args:
            reason: for people.
            since: moment of `time.monotonic` at which the call began.
            whole: whether it had all the time that any call has, so that this is a failure; else
                it counts as hurried.
        """
        if self._last_answer >= since:
            return
        if whole:
            self.failed(reason)
            return
        with self._lock:
            self._hurried += 1
            idle = self._suspected or self._reason or self._stopped.is_set()
            if idle or self._hurried < self._limit or time.monotonic() < self._trusted_until:
                return
            self._suspected = True
        arguments = (weakref.ref(self), reason)
        Thread(target=_suspect, args=arguments, name="shelfwise-suspicion", daemon=True).start()

    def confirm(self, reason: str) -> None:
        """Look whether a suspected server answers at all; open the circuit if it does not.

        Args:
            reason: of the suspicion, for people.
        """
        started = time.monotonic()
        try:
            self._confirm(self.url)
        except Exception as error:  # whatever is wrong with it, it does not answer
            if self._last_answer < started:
                self.leave_alone(f"{reason}, and a small call failed ({_told(error)})")
        else:
            self.answered()
        self._trusted_until = time.monotonic() + self._recovery_s
        self._suspected = False

    def close(self) -> None:
        """End the look-out."""
        self._stopped.set()

    def recovered(self) -> bool:
        """Look whether the server is back, and ask it again if it is."""
        try:
            self._probe(self.url)
        except Exception as error:  # whatever is wrong with it, it is not back
            self._reason = _told(error)
            return False
        with self._lock:
            self._failures = self._hurried = 0
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


def _suspect(reference: "weakref.ref[Server]", reason: str) -> None:
    server = reference()
    if server is not None:
        server.confirm(reason)


def _told(error: Exception) -> str:
    return str(error) or type(error).__name__
