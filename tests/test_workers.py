"""The work of requests takes turns: what has begun goes first, and nobody waits past his time."""

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Lock

import anyio
import pytest

from reranker.workers import TooLate, in_turn, in_worker, while_waiting

pytestmark = pytest.mark.alone


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


async def _with_all_turns_taken(then: Callable[[], object]) -> object:
    """Await something while as many new requests as there are processors do not end."""
    release = Event()
    try:
        async with anyio.create_task_group() as group:
            for _ in range(max(os.cpu_count() or 1, 2)):
                group.start_soon(in_turn, release.wait)
            await anyio.sleep(0.05)
            found = await then()
            release.set()
    finally:
        release.set()
    return found


@pytest.mark.parametrize("way", [in_worker, in_turn])
def test_no_more_work_at_a_time_than_processors(way: Callable[..., object]) -> None:
    gauge = _Gauge()

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(way, gauge.work, 0.01)

    anyio.run(run)
    assert 1 <= gauge.most <= max(os.cpu_count() or 1, 2)
    assert gauge.now == 0


def test_all_event_loops_share_them() -> None:
    gauge = _Gauge()

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(in_worker, gauge.work, 0.01)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: anyio.run(run), range(8)))
    assert gauge.most <= max(os.cpu_count() or 1, 2)


def test_a_caller_that_gives_up_goes_on_while_the_work_does() -> None:
    ended = Event()

    def work() -> None:
        time.sleep(0.3)
        ended.set()

    async def run() -> bool:
        with anyio.move_on_after(0.02):
            await in_worker(work)
        return ended.is_set()

    assert not anyio.run(run)
    assert ended.wait(5)


def test_an_error_reaches_the_caller() -> None:
    async def run(way: Callable[..., object]) -> None:
        await way(int, "no number")

    for way in (in_worker, in_turn):
        with pytest.raises(ValueError, match="no number"):
            anyio.run(run, way)


def test_a_step_does_not_wait_for_the_turns_of_new_requests() -> None:
    assert anyio.run(_with_all_turns_taken, lambda: in_worker(sum, [1, 2])) == 3


def test_what_has_no_turn_in_time_is_never_begun() -> None:
    begun = Event()

    async def late() -> str:
        try:
            await in_turn(begun.set, begin_within=0.02, end_within=9.0)
        except TooLate:
            return "too late"
        return "done"

    assert anyio.run(_with_all_turns_taken, late) == "too late"
    assert anyio.run(in_turn, sum, [2, 3]) == 5, "the turns are free again"
    assert not begun.is_set()


def test_what_has_begun_is_waited_for_until_its_end_is_due() -> None:
    release = Event()

    async def both() -> bool:
        await in_turn(sum, [])  # a thread is there
        for begin_within in (0.1, math.inf):
            with pytest.raises(TooLate):
                await in_turn(release.wait, 0.5, begin_within=begin_within, end_within=0.2)
        return await in_turn(lambda: release.wait(0.2), begin_within=0.1, end_within=30.0)

    assert anyio.run(both) is False, "the wait itself came to its end"


def test_a_cancelled_wait_for_a_turn_gives_it_up() -> None:
    begun = Event()

    async def cancelled() -> None:
        with anyio.move_on_after(0.02):
            await in_turn(begun.set)

    anyio.run(_with_all_turns_taken, cancelled)
    assert anyio.run(in_turn, sum, [1]) == 1
    assert not begun.is_set()


def test_work_for_the_time_of_waiting_begins_when_the_task_waits() -> None:
    begun = Event()

    async def task() -> bool:
        with while_waiting(begun.set):
            time.sleep(0.05)
            before = begun.is_set()
            await anyio.sleep(0.2)
        return before

    assert anyio.run(task) is False
    assert begun.is_set()


def test_work_for_the_time_of_waiting_is_given_up_when_nobody_waits_any_more() -> None:
    begun, release = Event(), Event()

    async def task() -> None:
        with while_waiting(begun.set):
            pass  # it does not wait at all
        async with anyio.create_task_group() as group:
            for _ in range(max(os.cpu_count() or 1, 2)):
                group.start_soon(in_worker, release.wait)
            await anyio.sleep(0.05)
            with while_waiting(begun.set):
                await anyio.sleep(0.05)  # all threads are busy
            release.set()
        await in_worker(sum, [])

    anyio.run(task)
    assert not begun.is_set()
