"""Threads for the work of requests, no more at a time than the machine has processors.

The interpreter runs one thread at a time: twenty requests that compute side by side all end when
the last one does, and the event loop gets a twentieth of the time, so that deadlines pass unseen.
In turn, half of them are done in half of the time. New requests wait for a turn of their own kind,
so that they do not hold up those that have begun. The threads serve all event loops of the process.
"""

import asyncio
import math
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from threading import Condition
from types import TracebackType
from typing import TypeVar, TypeVarTuple, Unpack

from reranker.errors import ShelfwiseError

_T = TypeVar("_T")
_Given = TypeVarTuple("_Given")
_MOST = 8


class TooLate(Exception):  # noqa: N818 - for the caller to go another way, never for a user
    """The function had not begun, or not ended, when it had to."""


async def in_worker(act: Callable[[Unpack[_Given]], _T], *given: *_Given) -> _T:
    """Run a step of a request that has begun in a thread, and return what it returns.

    A caller that is cancelled goes on at once; a function that has begun runs to its end all the
    same, and its thread counts until then.
    """
    return await _within(_submit("step", act, *given), math.inf, math.inf)


async def in_spare_thread(
    act: Callable[[Unpack[_Given]], _T], *given: *_Given, end_within: float
) -> _T:
    """Run what may take longer than anybody waits, where it holds up no step of other requests.

    Args:
        act: the function.
        given: its arguments.
        end_within: seconds after which it is no longer waited for.

    Raises:
        TooLate: it was given up.
    """
    return await _within(_submit("spare", act, *given), end_within, end_within)


@contextmanager
def while_waiting(act: Callable[[], object] | None) -> Iterator[None]:
    """Have a thread do something for what follows the block, once the block waits.

    Whether it was done is not sure: when the block ends, what has not begun is given up.

    Args:
        act: the function; None does nothing.
    """
    jobs: list[Future[object]] = []
    begin = None
    if act is not None:
        begin = asyncio.get_running_loop().call_soon(lambda: jobs.append(_submit("step", act)))
    try:
        yield
    finally:
        if begin is not None:
            begin.cancel()
        for job in jobs:
            job.cancel()


async def in_turn(
    act: Callable[[Unpack[_Given]], _T],
    *given: *_Given,
    begin_within: float = math.inf,
    end_within: float = math.inf,
) -> _T:
    """Run what a new request begins with in a thread when it is its turn; else see `in_worker`.

    Args:
        act: the function.
        given: its arguments.
        begin_within: seconds after which a function that has not begun is given up.
        end_within: seconds after which it is no longer waited for.

    Raises:
        TooLate: it was given up.
    """
    return await _within(_submit("turn", act, *given), begin_within, end_within)


class UnderWay:
    """Counts who is inside, over all threads."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._count = 0
        self._ended = False

    def __enter__(self) -> None:
        with self._changed:
            if self._ended:
                raise ShelfwiseError("the store was closed before the look-up began")
            self._count += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def end(self) -> None:
        """Let nobody in any more, and wait until nobody is inside."""
        with self._changed:
            self._ended = True
            self._changed.wait_for(lambda: not self._count)


async def _within(job: "Future[_T]", begin_within: float, end_within: float) -> _T:
    started = time.monotonic()
    answer = asyncio.wrap_future(job)
    try:
        await asyncio.wait((answer,), timeout=_timeout(min(begin_within, end_within)))
        if not answer.done():
            if job.cancel():
                raise TooLate
            gone = time.monotonic() - started
            await asyncio.wait((answer,), timeout=_timeout(end_within - gone))
            if not answer.done():
                raise TooLate
        return answer.result()
    finally:
        job.cancel()  # at once: the event loop would tell the thread a little later
        answer.cancel()  # nobody is left to take an error


def _timeout(seconds: float) -> float | None:
    return None if math.isinf(seconds) else max(seconds, 0.0)


def _submit(kind: str, act: Callable[[Unpack[_Given]], _T], *given: *_Given) -> "Future[_T]":
    context = copy_context()
    return _threads(kind).submit(lambda: context.run(act, *given))


@cache
def _threads(kind: str) -> ThreadPoolExecutor:
    count = min(max(os.cpu_count() or 1, 2), _MOST)
    return ThreadPoolExecutor(count, thread_name_prefix=f"shelfwise-{kind}")


if hasattr(os, "register_at_fork"):  # a fork has none of the threads
    os.register_at_fork(after_in_child=_threads.cache_clear)
