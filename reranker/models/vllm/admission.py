"""How many calls one server is given at a time, so that those it is given end in time.

A server that computes more requests than it can finish by their deadlines finishes none of them.
The limit is found as TCP finds a connection's (additive increase, multiplicative decrease; Chiu and
Jain 1989): it grows by one for each round of answers that filled it, and shrinks when a call runs
out of time; until that has happened first, it doubles each round. A call beyond the limit waits in
turn, as long as its time allows.
"""

import asyncio
import math
import time
from collections import deque
from concurrent.futures import Future
from threading import Lock

_FIRST = 4.0
_SHRINK = 0.6
_FADING = 0.9
_HOPELESS = 0.5


class Admission:
    """The calls under way at one server. Thread-safe: several event loops may call it at once."""

    def __init__(self, most: int) -> None:
        """Begin without calls.

        Args:
            most: calls under way at a time, however well the server does.
        """
        self._most = most
        self._limit = min(_FIRST, float(most))
        self._under_way = 0
        self._waiting: deque[Future[None]] = deque()
        self._lock = Lock()
        self._shrunk_at = -1.0
        self._usual_s = 0.0

    @property
    def load(self) -> int:
        """Number of calls under way and waiting."""
        return self._under_way + len(self._waiting)

    @property
    def limit(self) -> int:
        """Number of calls that may be under way."""
        return max(int(self._limit), 1)

    async def enter(self, seconds: float) -> bool:
        """Wait for a turn; the caller then has to call `leave`.

        Args:
            seconds: that the call has, its wait and its answer together.

        Returns:
            Whether it is the caller's turn. It is not when the answer, taking as long as others of
            late, would come too late, or when the server is full and so much time has gone by.
        """
        with self._lock:
            if seconds < _HOPELESS * self._usual_s:
                # What was usual fades, lest a server that has recovered be never tried again.
                self._usual_s *= _FADING
                return False
            if self._under_way < self.limit:
                self._under_way += 1
                return True
            patience = seconds - self._usual_s
            if patience <= 0:
                return False
            turn: Future[None] = Future()
            self._waiting.append(turn)
        try:
            async with asyncio.timeout(None if math.isinf(patience) else patience):
                await asyncio.wrap_future(turn)
        except TimeoutError:
            return self._gave_up(turn)
        except asyncio.CancelledError:
            if self._gave_up(turn):
                self.leave()
            raise
        return True

    def leave(self) -> None:
        """End a call, however it ended; the next one that waits has its turn."""
        with self._lock:
            self._under_way -= 1
            self._call_in()

    def in_time(self, seconds: float) -> None:
        """Take note that a call was answered after so many seconds."""
        with self._lock:
            self._usual_s = max(seconds, _FADING * self._usual_s)
            if self._under_way >= self.limit or self._waiting:
                step = 1.0 if self._shrunk_at < 0 else 1 / self._limit
                self._limit = min(self._limit + step, self._most)
                self._call_in()

    def too_late(self, since: float) -> None:
        """Take note that a call that began at a moment of `time.monotonic` ran out of time.

        Calls that were under way together run out of time together: they count once.
        """
        with self._lock:
            if since > self._shrunk_at:
                self._limit = max(self._limit * _SHRINK, 1.0)
                self._shrunk_at = time.monotonic()

    def _call_in(self) -> None:
        while self._waiting and self._under_way < self.limit:
            turn = self._waiting.popleft()
            if turn.set_running_or_notify_cancel():
                self._under_way += 1
                turn.set_result(None)

    def _gave_up(self, turn: "Future[None]") -> bool:
        """Withdraw from the queue; tell whether the turn had come all the same."""
        with self._lock:
            if turn in self._waiting:
                self._waiting.remove(turn)
            return turn.done() and not turn.cancelled()
