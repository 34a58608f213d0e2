"""The pool against servers that hang, and callers who have little time."""

import time
from contextlib import suppress
from typing import Any

import anyio
import pytest

from reranker.errors import ModelTimeout, ModelUnavailable
from server_pools import ask, busy, pool_of, until

pytestmark = pytest.mark.alone


def test_a_hanging_server_costs_no_more_than_its_time(start: Any) -> None:
    hangs, good = start("hangs"), start()
    pool = pool_of(hangs, good, timeout_s=0.3, failures=2)

    async def scenario() -> None:
        for _ in range(8):
            assert await ask(pool, seconds=20) == 1
        assert pool.servers[0].reason is not None
        started = time.monotonic()
        hangs_only = pool_of(hangs, timeout_s=30)
        with pytest.raises(ModelTimeout):
            await ask(hangs_only, seconds=0.3)
        assert time.monotonic() - started < 5
        await hangs_only.aclose()
        await pool.aclose()

    anyio.run(scenario)


def test_impatient_callers_do_not_open_the_circuit(start: Any) -> None:
    server = start(seconds=0.3)
    pool = pool_of(server, failures=3)
    (state,) = pool.servers

    async def scenario() -> None:
        for _ in range(3):
            with pytest.raises(ModelTimeout):
                await ask(pool, seconds=0.1)
        await until(lambda: not state.suspected)
        assert state.reason is None
        assert server.asked["/health"] == 1  # it was looked at before it was trusted
        assert await ask(pool) == 1
        await pool.aclose()

    anyio.run(scenario)


@pytest.mark.parametrize("mode", ["hangs", "deaf engine"])
def test_a_hung_server_is_found_out_by_hurried_calls(start: Any, mode: str) -> None:
    pool = pool_of(start(mode), failures=3, timeout_s=60)
    errors: list[str] = []

    async def scenario() -> None:
        started = time.monotonic()
        while not errors or errors[-1] == "ModelTimeout":
            assert time.monotonic() - started < 30, "its circuit stays closed"
            try:
                await ask(pool, seconds=0.5)
            except (ModelTimeout, ModelUnavailable) as error:
                errors.append(type(error).__name__)
        assert errors[-1] == "ModelUnavailable"
        assert errors.count("ModelTimeout") >= 3
        assert "a small call failed (" in str(pool.servers[0].reason)
        await pool.aclose()

    anyio.run(scenario)


def test_a_hanging_server_does_not_take_a_healthy_one_down(start: Any) -> None:
    hangs, good = start("hangs"), start(seconds=0.1)
    pool = pool_of(hangs, good, failures=2, timeout_s=60)

    async def scenario() -> None:
        # Within the deadline of each call there is time to ask the other server.
        while pool.servers[0].reason is None:
            assert await ask(pool, seconds=3.0) == 1
        assert pool.servers[1].reason is None
        for _ in range(5):
            assert await ask(pool, seconds=3.0) == 1
        await pool.aclose()

    anyio.run(scenario)


def test_halves_that_are_too_short_for_any_server_are_given_up(start: Any) -> None:
    pool = pool_of(start(seconds=1.5), start(seconds=1.5), failures=9, timeout_s=60)

    async def scenario() -> None:
        with pytest.raises(ModelTimeout):
            await ask(pool, seconds=2.5)
        assert await ask(pool, seconds=2.5) == 1
        await pool.aclose()

    anyio.run(scenario)


def test_what_is_left_over_is_no_time_to_ask_another_server(start: Any) -> None:
    hangs, good = start("hangs"), start(seconds=0.2)
    pool = pool_of(hangs, good, failures=1, timeout_s=60)

    async def scenario() -> None:
        async with busy(pool.servers[0]):
            assert await ask(pool) == 1
        pool._usual_s = 9.0  # as after a long answer: the first server asked gets all the time
        async with busy(pool.servers[1]):
            with pytest.raises(ModelTimeout):
                await ask(pool, seconds=0.5)
        await anyio.sleep(0.2)
        assert hangs.asked["/ask"] == 1
        assert good.asked["/ask"] == 1
        await pool.aclose()

    anyio.run(scenario)


def test_cancelling_hangs_up_and_counts_nothing(start: Any) -> None:
    server = start("hangs")
    pool = pool_of(server, failures=1, timeout_s=60)

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask, pool, 60.0)
            (one,) = pool.servers
            given = one.admission.limit
            await until(lambda: server.asked["/ask"] == given)
            assert one.load == 10, "the others wait in turn"
            group.cancel_scope.cancel()
        assert one.load == 0
        assert one.reason is None
        await until(lambda: server.gone == given)
        await pool.aclose()

    anyio.run(scenario)


def test_a_caller_that_gives_up_at_the_deadline_counts_as_a_timeout(start: Any) -> None:
    server = start("hangs")
    pool = pool_of(server, failures=1, timeout_s=60)

    async def scenario() -> None:
        with suppress(ModelTimeout), anyio.move_on_after(0.3):
            # The time that the pool is told is a little shorter than the caller's patience.
            await ask(pool, seconds=0.3)
        await until(lambda: pool.servers[0].reason is not None)
        assert "no answer" in str(pool.servers[0].reason)
        await pool.aclose()

    anyio.run(scenario)
