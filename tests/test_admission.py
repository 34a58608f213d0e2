"""How many calls a server is given: as many as end in time, the others in turn or not at all."""

import asyncio
import math
import time

import pytest

from reranker.models.vllm.admission import Admission

pytestmark = pytest.mark.alone


class _Server:
    """Shares its capacity, in calls a second, among all calls under way; so they all slow down."""

    def __init__(self, admission: Admission, capacity: float) -> None:
        self._admission = admission
        self._capacity = capacity
        self._busy = 0
        self.computed: list[float] = []

    async def call(self, seconds: float) -> bool:
        asked = time.monotonic()
        if not await self._admission.enter(seconds):
            return False
        started = time.monotonic()
        left = seconds - (started - asked)
        self._busy += 1
        try:
            async with asyncio.timeout(left):
                work = 1.0
                while work > 0:
                    await asyncio.sleep(0.005)
                    work -= 0.005 * self._capacity / self._busy
        except TimeoutError:
            self._admission.too_late(started)
            return False
        finally:
            self._busy -= 1
            self._admission.leave()
        self._admission.in_time(time.monotonic() - started)
        self.computed.append(time.monotonic())
        return True


async def _load(server: _Server, callers: int, seconds: float, deadline: float) -> None:
    end = time.monotonic() + seconds

    async def caller() -> None:
        while time.monotonic() < end:
            if not await server.call(deadline):
                await asyncio.sleep(0.01)

    await asyncio.gather(*(caller() for _ in range(callers)))


def test_an_overloaded_server_goes_on_answering() -> None:
    admission = Admission(64)
    server = _Server(admission, capacity=20.0)
    # Twenty at once would each take a second, and none would be in time.
    asyncio.run(_load(server, callers=20, seconds=3.0, deadline=0.3))

    late = [at for at in server.computed if at > server.computed[-1] - 1.5]
    assert len(late) >= 12, "at least 8 a second of the 20 that it can"
    assert 1 <= admission.limit <= 8
    assert admission.load == 0


def test_without_a_limit_the_same_load_gets_hardly_an_answer() -> None:
    class Open(Admission):
        @property
        def limit(self) -> int:
            return 10**6

    server = _Server(Open(64), capacity=20.0)
    asyncio.run(_load(server, callers=20, seconds=1.5, deadline=0.3))
    assert len(server.computed) <= 3


def test_the_limit_grows_where_answers_come_in_time() -> None:
    admission = Admission(40)
    server = _Server(admission, capacity=10_000.0)
    asyncio.run(_load(server, callers=60, seconds=1.5, deadline=1.0))
    assert admission.limit > 16


def test_the_limit_never_exceeds_the_most() -> None:
    admission = Admission(3)
    server = _Server(admission, capacity=1000.0)
    asyncio.run(_load(server, callers=10, seconds=0.3, deadline=math.inf))
    assert admission.limit == 3
    assert admission.load == 0


def test_calls_wait_in_turn() -> None:
    async def run() -> list[int]:
        admission, order = Admission(1), []

        async def caller(number: int) -> None:
            assert await admission.enter(math.inf)
            order.append(number)
            await asyncio.sleep(0.01)
            admission.leave()

        await asyncio.gather(*(caller(number) for number in range(5)))
        return order

    assert asyncio.run(run()) == [0, 1, 2, 3, 4]


def test_a_call_that_could_not_be_answered_in_time_is_turned_away_at_once() -> None:
    async def run() -> tuple[bool, float]:
        admission = Admission(1)
        admission.in_time(2.0)
        assert await admission.enter(math.inf)
        started = time.monotonic()
        entered = await admission.enter(1.0)
        return entered, time.monotonic() - started

    entered, seconds = asyncio.run(run())
    assert not entered
    assert seconds < 0.5


def test_a_call_waits_no_longer_than_its_answer_leaves_time_for() -> None:
    async def run() -> tuple[bool, float, int]:
        admission = Admission(1)
        admission.in_time(0.3)
        assert await admission.enter(math.inf)
        started = time.monotonic()
        entered = await admission.enter(0.5)
        return entered, time.monotonic() - started, admission.load

    entered, seconds, load = asyncio.run(run())
    assert not entered
    assert 0.15 < seconds < 0.45
    assert load == 1


@pytest.mark.parametrize("called_in", [False, True])
def test_a_cancelled_wait_keeps_no_turn(called_in: bool) -> None:
    async def run() -> int:
        admission = Admission(1)
        assert await admission.enter(math.inf)
        waiting = asyncio.create_task(admission.enter(math.inf))
        await asyncio.sleep(0.01)
        if called_in:
            admission.leave()
            waiting.cancel()
        else:
            waiting.cancel()
            await asyncio.sleep(0)
            admission.leave()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return admission.load

    assert asyncio.run(run()) == 0


def test_timeouts_of_one_moment_count_once() -> None:
    admission = Admission(64)
    before = admission.limit
    began = time.monotonic()
    for _ in range(10):
        admission.too_late(began)
    assert before * 0.4 < admission.limit < before
