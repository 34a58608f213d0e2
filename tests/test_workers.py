"""The work of requests takes turns, and deadlines hold where there is more than processors do."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import anyio
import pytest

from reranker.pipeline import _Finishing
from reranker.workers import in_worker


class _Gauge:
    def __init__(self) -> None:
        self._lock = Lock()
        self.now = self.most = 0

    def work(self, seconds: float) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(seconds)
        with self._lock:
            self.now -= 1


def test_no_more_work_at_a_time_than_processors() -> None:
    gauge = _Gauge()

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(in_worker, gauge.work, 0.01)

    anyio.run(run)
    assert 2 <= gauge.most <= max(os.cpu_count() or 1, 2)
    assert gauge.now == 0


def test_every_event_loop_has_its_own_turns() -> None:
    async def run() -> int:
        return await in_worker(sum, [1, 2])

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(lambda _: anyio.run(run), range(6))) == [3] * 6


def test_a_caller_that_gives_up_goes_on_at_once() -> None:
    async def run() -> float:
        started = time.monotonic()
        with anyio.move_on_after(0.02):
            await in_worker(time.sleep, 0.5, abandon_on_cancel=True)
        return time.monotonic() - started

    assert anyio.run(run) < 0.3


def test_an_error_reaches_the_caller() -> None:
    async def run() -> None:
        await in_worker(int, "no number")

    with pytest.raises(ValueError, match="no number"):
        anyio.run(run)


def test_the_time_kept_back_follows_what_finishing_takes_and_fades() -> None:
    finishing = _Finishing()
    assert finishing.seconds(None) == 0
    first = finishing.seconds(2000)
    finishing.ended(time.monotonic() + 1)
    assert finishing.seconds(2000) == first, "an answer before the end of the wait tells nothing"
    finishing.ended(time.monotonic() - 0.08)
    assert 0.08 <= finishing.seconds(2000) < 0.2
    assert finishing.seconds(100) == pytest.approx(0.025), "never more than a quarter of it"
    for _ in range(300):
        finishing.ended(time.monotonic() - 0.001)
    assert finishing.seconds(2000) < 0.02
