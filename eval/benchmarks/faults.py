"""Searches under load while the model's server fails: is every answer there, in time and whole?"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import cycle

import anyio

from reranker.pipeline import Reranker
from reranker.ports import Progress, no_progress
from reranker.schema import RerankResult, SearchRequest, Value

_RECOVERY_LIMIT_S = 180.0


@dataclass(frozen=True)
class ServerFault:
    """A way of failing, and its end. Either may take its time.

    Attributes:
        begin: makes the server fail.
        end: mends it.
    """

    name: str
    begin: Callable[[], Awaitable[None]]
    end: Callable[[], Awaitable[None]]


class FaultPhase(Value):
    """The searches that were under way during one phase.

    Attributes:
        failed: searches that raised an error.
        incomplete: answers that do not hold every candidate exactly once.
        by_model: answers in whose order the model had a part.
        p50_ms: median time of a search, in milliseconds.
        latest_ms: by how much the latest answer missed its deadline, in milliseconds; below 0 if
            all were in time.
        recovery_s: seconds from the end of the fault to the model's next answer; None without a
            fault, or when it did not come back.
    """

    name: str
    searches: int
    failed: int
    incomplete: int
    by_model: int
    p50_ms: float
    latest_ms: float
    recovery_s: float | None


class FaultRun(Value):
    """The phases of one run, in the order of time."""

    deadline_ms: int
    concurrency: int
    phases: tuple[FaultPhase, ...]


class _Log:
    """What became of the searches of a phase."""

    def __init__(self) -> None:
        self.times_ms: list[float] = []
        self.failed = 0
        self.incomplete = 0
        self.by_model = 0
        self.by_model_at: float | None = None

    def add(self, result: RerankResult | None, started: float, whole: bool) -> None:
        now = time.monotonic()
        self.times_ms.append((now - started) * 1000)
        self.failed += result is None
        self.incomplete += not whole
        if result is not None and result.outcome != "fallback":
            self.by_model += 1
            self.by_model_at = self.by_model_at or now


class _Load:
    """Searches without a pause and writes down what becomes of them."""

    def __init__(self, shelf: Reranker, requests: Sequence[SearchRequest]) -> None:
        self._shelf = shelf
        self._turn = cycle(requests)
        self._sizes = {request.request_id: len(shelf.recall(request)) for request in requests}
        self.log = _Log()

    def turn_page(self) -> _Log:
        """Begin a new log; searches that are under way still go into the old one."""
        self.log = _Log()
        return self.log

    async def search_forever(self) -> None:
        while True:
            request, log = next(self._turn), self.log
            started = time.monotonic()
            try:
                result = await self._shelf.asearch(request)
            except Exception:  # a search that fails, in whatever way, is what is looked for
                log.add(None, started, whole=False)
                await anyio.sleep(0.05)
            else:
                log.add(result, started, whole=_whole(result, self._sizes[request.request_id]))


async def fault_run(
    shelf: Reranker,
    requests: Sequence[SearchRequest],
    faults: Sequence[ServerFault],
    *,
    seconds: float = 8.0,
    concurrency: int = 20,
    progress: Progress = no_progress,
) -> tuple[FaultPhase, ...]:
    """Search without a pause, so many at a time, while one fault after the other comes and goes.

    Args:
        shelf: over the server that fails.
        requests: taken in turn; each has the same deadline.
        faults: each begins, lasts, and ends; the time after its end until the model answers again
            is a phase of its own.
        seconds: length of a phase at least.
        concurrency: searches under way at a time.
        progress: told of the phases.
    """
    load = _Load(shelf, requests)
    deadline_ms = float(requests[0].deadline_ms or 0)
    stages = 1 + 2 * len(faults)
    phases: list[FaultPhase] = []
    async with anyio.create_task_group() as group:
        for _ in range(concurrency):
            group.start_soon(load.search_forever)
        progress("healthy", 0, stages)
        await anyio.sleep(seconds)
        phases.append(_phase("healthy", load.log, deadline_ms, None))
        for fault in faults:
            progress(fault.name, len(phases), stages)
            log = load.turn_page()
            await fault.begin()
            await anyio.sleep(seconds)
            phases.append(_phase(fault.name, log, deadline_ms, None))
            progress(f"after: {fault.name}", len(phases), stages)
            await fault.end()
            log = load.turn_page()
            recovery = await _recovered(log, seconds)
            phases.append(_phase(f"after: {fault.name}", log, deadline_ms, recovery))
        group.cancel_scope.cancel()
    progress("done", stages, stages)
    return tuple(phases)


async def _recovered(log: _Log, seconds: float) -> float | None:
    """Wait a phase, and on until the model answers; return when it first did, in seconds."""
    started = time.monotonic()
    await anyio.sleep(seconds)
    with anyio.move_on_after(_RECOVERY_LIMIT_S):
        while log.by_model_at is None:
            await anyio.sleep(0.05)
    return None if log.by_model_at is None else log.by_model_at - started


def _whole(result: RerankResult, size: int) -> bool:
    ids = [item.product.product_id for item in result.items]
    ranks = [item.rank for item in result.items]
    return len(ids) == len(set(ids)) == size and ranks == list(range(1, size + 1))


def _phase(name: str, log: _Log, deadline_ms: float, recovery: float | None) -> FaultPhase:
    times = sorted(log.times_ms) or [0.0]
    return FaultPhase(
        name=name,
        searches=len(log.times_ms),
        failed=log.failed,
        incomplete=log.incomplete,
        by_model=log.by_model,
        p50_ms=times[len(times) // 2],
        latest_ms=times[-1] - deadline_ms,
        recovery_s=recovery,
    )
