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
_PATIENCE_S = 10.0


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
        cut_short: answers whose recall was cut short for want of time: whole, but of what the words
            alone recall.
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
    cut_short: int
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
    """What became of the searches that began in a phase."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.times_ms: list[float] = []
        self.failed = 0
        self.incomplete = 0
        self.cut_short = 0
        self.by_model_at: list[float] = []
        self.under_way: set[float] = set()
        self.recovery_s: float | None = None

    def add(self, result: RerankResult | None, started: float, *, whole: bool) -> None:
        now = time.monotonic()
        self.times_ms.append((now - started) * 1000)
        self.failed += result is None
        self.incomplete += not whole
        self.cut_short += result is not None and _is_cut_short(result)
        if result is not None and result.outcome != "fallback":
            self.by_model_at.append(now)

    def back_after(self, moment: float) -> float | None:
        """Return how long after a moment the model first had a part in an answer, in seconds."""
        return min((at - moment for at in self.by_model_at if at >= moment), default=None)


class _Load:
    """Searches without a pause and writes down what becomes of them."""

    def __init__(self, shelf: Reranker, requests: Sequence[SearchRequest]) -> None:
        self._shelf = shelf
        self._turn = cycle(requests)
        self._sizes = {request.request_id: len(shelf.recall(request)) for request in requests}
        self._stopped = False
        self.logs: list[_Log] = []

    def turn_page(self, name: str) -> _Log:
        """Begin a new log; searches that are under way still go into the old one."""
        self.logs.append(_Log(name))
        return self.logs[-1]

    async def search_until_stopped(self) -> None:
        while not self._stopped:
            request, log = next(self._turn), self.logs[-1]
            started = time.monotonic()
            log.under_way.add(started)
            try:
                result = await self._shelf.asearch(request)
            except Exception:  # a search that fails, in whatever way, is what is looked for
                log.add(None, started, whole=False)
                await anyio.sleep(0.05)
            else:
                log.add(result, started, whole=_whole(result, self._sizes[request.request_id]))
            log.under_way.discard(started)

    async def stop(self, patience_s: float) -> None:
        """Begin no more searches, and wait; what never comes back has failed."""
        self._stopped = True
        with anyio.move_on_after(patience_s):
            while any(log.under_way for log in self.logs):
                await anyio.sleep(0.05)
        for log in self.logs:
            for started in log.under_way:
                log.add(None, started, whole=False)


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
        requests: taken in turn; each has the same deadline. The first are searched by a process
            that has done nothing yet, and have a phase of their own.
        faults: each begins, lasts, and is mended; the mending, and the time after it until the
            model answers again, are a phase of their own. A search belongs to the phase in which
            it began.
        seconds: length of a phase at least.
        concurrency: searches under way at a time.
        progress: told of the phases.
    """
    load = _Load(shelf, requests)
    deadline_ms = float(requests[0].deadline_ms or 0)
    stages = 2 + 2 * len(faults)
    async with anyio.create_task_group() as group:
        load.turn_page("start")
        for _ in range(concurrency):
            group.start_soon(load.search_until_stopped)
        progress("start", 0, stages)
        await anyio.sleep(seconds)
        load.turn_page("healthy")
        progress("healthy", 1, stages)
        await anyio.sleep(seconds)
        for number, fault in enumerate(faults):
            progress(fault.name, 2 + 2 * number, stages)
            load.turn_page(fault.name)
            await fault.begin()
            await anyio.sleep(seconds)
            progress(f"after: {fault.name}", 3 + 2 * number, stages)
            log = load.turn_page(f"after: {fault.name}")
            await fault.end()
            log.recovery_s = await _recovered(log, seconds)
        await load.stop(deadline_ms / 1000 + _PATIENCE_S)
        group.cancel_scope.cancel()
    progress("done", stages, stages)
    return tuple(_phase(log, deadline_ms) for log in load.logs)


async def _recovered(log: _Log, seconds: float) -> float | None:
    """Wait a phase, and on until the model answers; return when it first did, in seconds."""
    mended = time.monotonic()
    await anyio.sleep(seconds)
    with anyio.move_on_after(_RECOVERY_LIMIT_S):
        while log.back_after(mended) is None:
            await anyio.sleep(0.05)
    return log.back_after(mended)


def _whole(result: RerankResult, size: int) -> bool:
    """Tell whether an answer holds each candidate once, and all that recall finds in peace."""
    ids = [item.product.product_id for item in result.items]
    ranks = [item.rank for item in result.items]
    each_once = 0 < len(ids) == len(set(ids)) and ranks == list(range(1, len(ids) + 1))
    return each_once and (len(ids) == size or _is_cut_short(result))


def _is_cut_short(result: RerankResult) -> bool:
    return any(issue.code == "look_up_cut" for issue in result.issues)


def _phase(log: _Log, deadline_ms: float) -> FaultPhase:
    times = sorted(log.times_ms) or [0.0]
    return FaultPhase(
        name=log.name,
        searches=len(log.times_ms),
        failed=log.failed,
        incomplete=log.incomplete,
        cut_short=log.cut_short,
        by_model=len(log.by_model_at),
        p50_ms=times[len(times) // 2],
        latest_ms=times[-1] - deadline_ms,
        recovery_s=log.recovery_s,
    )
