"""Threads for the work of requests, no more at a time than the machine has processors.

The interpreter runs one thread at a time: twenty requests that compute side by side all end when
the last one does, and the event loop gets a twentieth of the time, so that deadlines pass unseen.
In turn, half of them are done in half of the time.
"""

import os
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple, Unpack

import anyio.to_thread
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar

_T = TypeVar("_T")
_Given = TypeVarTuple("_Given")
_MOST = 8
_limiters: RunVar[CapacityLimiter] = RunVar("shelfwise_workers")


async def in_worker(
    act: Callable[[Unpack[_Given]], _T], *given: *_Given, abandon_on_cancel: bool = False
) -> _T:
    """Run a function in a thread when it is its turn, and return what it returns.

    Args:
        act: the function.
        given: its arguments.
        abandon_on_cancel: whether a caller that is cancelled goes on at once; the function runs to
            its end all the same, and its thread counts until then.
    """
    return await anyio.to_thread.run_sync(
        act, *given, abandon_on_cancel=abandon_on_cancel, limiter=_limiter()
    )


def _limiter() -> CapacityLimiter:
    """Return the limiter of the running event loop."""
    try:
        return _limiters.get()
    except LookupError:
        limiter = CapacityLimiter(min(max(os.cpu_count() or 1, 2), _MOST))
        _limiters.set(limiter)
        return limiter
