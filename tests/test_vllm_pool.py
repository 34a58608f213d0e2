"""The pool against small real HTTP servers that fail in every way."""

import asyncio
import gc
import logging
from threading import Lock
from typing import Any

import anyio
import pytest

from reranker.errors import ModelTimeout, ModelUnavailable, OutputError
from reranker.models.vllm.http import LoopClients, Refused
from reranker.settings import ServerSettings
from server_pools import ask, busy, pool_of, until

pytestmark = pytest.mark.alone


@pytest.mark.parametrize("mode", ["500", "429", "401", "garbage", "deep", "no object", "drops"])
def test_a_failure_is_made_good_by_another_server(start: Any, mode: str) -> None:
    bad, good = start(mode), start()
    pool = pool_of(bad, good)

    async def scenario() -> None:
        with anyio.fail_after(20):  # which of the two is asked is as good as drawn
            while pool.servers[0].reason is None:
                assert await ask(pool) == 1
        assert pool.servers[1].reason is None
        assert [server.load for server in pool.servers] == [0, 0]
        seen = bad.asked["/ask"]
        assert await ask(pool) == 1
        bad.mode = "well"
        await until(lambda: pool.servers[0].reason is None)
        before = bad.asked["/ask"]
        assert before >= seen
        with anyio.fail_after(20):
            while bad.asked["/ask"] == before:
                assert await ask(pool) == 1
        await pool.aclose()

    anyio.run(scenario)


@pytest.mark.parametrize(
    ("mode", "error", "said"),
    [
        ("500", ModelUnavailable, "HTTP 500: Internal: EngineCore$"),
        ("429", ModelUnavailable, "HTTP 429$"),
        ("garbage", ModelUnavailable, "no JSON"),
        ("deep", OutputError, "nested too deeply"),
        ("no object", OutputError, "no value"),
        ("drops", ModelUnavailable, "RemoteProtocolError|ReadError"),
    ],
)
def test_with_one_server_the_failure_is_told(
    start: Any, mode: str, error: type[Exception], said: str
) -> None:
    pool = pool_of(start(mode))

    async def scenario() -> None:
        with pytest.raises(error, match=said) as caught:
            await ask(pool)
        assert getattr(caught.value, "retryable", True)
        await pool.aclose()

    anyio.run(scenario)


def test_an_open_circuit_fails_at_once_and_closes_by_itself(start: Any) -> None:
    server = start("deaf engine")
    pool = pool_of(server, failures=2, timeout_s=0.3)

    async def scenario() -> None:
        for _ in range(2):
            with pytest.raises(ModelTimeout, match=r"no answer in 0\.3 s"):
                await ask(pool)
        asked = server.asked["/ask"]
        with pytest.raises(ModelUnavailable, match=r"no server is healthy .*no answer") as caught:
            await ask(pool, seconds=60)
        assert caught.value.retryable
        # Health alone does not count: the small real call that is tried has no answer either.
        await until(lambda: server.asked["/health"] >= 2)
        assert pool.servers[0].reason is not None
        assert server.asked["/ask"] > asked
        server.mode = "well"
        await until(lambda: pool.servers[0].reason is None)
        assert await ask(pool) == 1
        await pool.aclose()

    anyio.run(scenario)


def test_a_server_that_went_away_is_found_again(start: Any) -> None:
    server = start()
    pool = pool_of(server, failures=2)

    async def scenario() -> None:
        assert await ask(pool) == 1
        server.down()
        for _ in range(2):
            with pytest.raises(ModelUnavailable):
                await ask(pool)
        assert pool.servers[0].reason is not None
        server.listen()
        await until(lambda: pool.servers[0].reason is None)
        assert await ask(pool) == 1
        await pool.aclose()

    anyio.run(scenario)


def test_a_kept_connection_that_was_closed_is_no_failure(start: Any) -> None:
    server = start()
    pool = pool_of(server, failures=1)

    async def scenario() -> None:
        assert await ask(pool) == 1
        server.mode = "drops next"
        assert await ask(pool) == 1
        assert server.asked["/ask"] == 3
        assert pool.servers[0].reason is None
        await pool.aclose()

    anyio.run(scenario)


def test_the_least_loaded_server_is_asked(start: Any) -> None:
    first, second = start("hangs"), start("hangs")
    pool = pool_of(first, second, timeout_s=60)

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(ask, pool, 600.0)
            await until(lambda: first.asked["/ask"] + second.asked["/ask"] == 6)
            assert [server.load for server in pool.servers] == [3, 3]
            group.cancel_scope.cancel()
        second.mode = "well"
        async with busy(pool.servers[0]):
            for _ in range(10):
                await ask(pool)
        assert first.asked["/ask"] == 3
        assert second.asked["/ask"] == 13
        await pool.aclose()

    anyio.run(scenario)


def test_a_shopper_comes_back_to_the_same_server(start: Any) -> None:
    servers = [start() for _ in range(3)]
    pool = pool_of(*servers)

    async def scenario() -> None:
        homes = []
        for shopper in "abcdefghij":
            for server in servers:
                server.asked.clear()
            for _ in range(3):
                await ask(pool, affinity=shopper)
            counts = [server.asked["/ask"] for server in servers]
            assert sorted(counts) == [0, 0, 3]
            homes.append(counts.index(3))
        assert len(set(homes)) > 1
        await pool.aclose()

    anyio.run(scenario)


@pytest.mark.parametrize("mode", ["400", "422"])
def test_refusals_are_no_failures_and_repeat_nothing(
    start: Any, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    pool = pool_of(start(mode), failures=1, api_key="sesame")

    async def scenario() -> str:
        with pytest.raises(Refused) as caught:
            await ask(pool)
        assert caught.value.status == int(mode)
        assert pool.servers[0].reason is None
        return str(caught.value)

    caplog.set_level(logging.INFO)
    said = anyio.run(scenario)
    assert (
        said
        == {
            "400": "HTTP 400: Bad Request: maximum context length is 12 tokens",
            "422": "HTTP 422",
        }[mode]
    )
    assert "anna" not in caplog.text
    caplog.set_level(logging.DEBUG, "reranker")
    anyio.run(scenario)
    assert "anna" in caplog.text
    assert "sesame" not in caplog.text
    anyio.run(pool.aclose)


def test_a_failure_repeats_nothing_in_the_log(start: Any, caplog: pytest.LogCaptureFixture) -> None:
    pool = pool_of(start("500"), failures=1)

    async def scenario() -> None:
        with pytest.raises(ModelUnavailable) as caught:
            await ask(pool)
        assert "anna" not in f"{caught.value}{pool.servers[0].reason}"
        await pool.aclose()

    caplog.set_level(logging.INFO)
    anyio.run(scenario)
    assert "is left alone" in caplog.text
    assert "anna" not in caplog.text


def test_a_refused_key_is_a_failure_that_names_it(start: Any) -> None:
    server = start("401")
    pool = pool_of(server, failures=2, api_key="sesame")

    async def scenario() -> None:
        for _ in range(2):
            with pytest.raises(ModelUnavailable, match=r"server\.api_key: http\S+ refuses") as told:
                await ask(pool)
            assert "sesame" not in f"{told.value}{pool!r}{pool.servers!r}{vars(pool)}"
        assert "server.api_key" in str(pool.servers[0].reason)
        looked = server.asked["/ask"]
        await until(lambda: server.asked["/ask"] >= looked + 2)
        assert pool.servers[0].reason is not None  # it does not come back as long as it refuses
        await pool.aclose()

    anyio.run(scenario)


@pytest.mark.parametrize("error", [RecursionError, ArithmeticError, LookupError])
def test_whatever_reading_fails_with_is_a_failure(start: Any, error: type[Exception]) -> None:
    pool = pool_of(start(), failures=1)

    def read(_answer: Any) -> int:
        raise error("anna likes tea")

    async def scenario() -> None:
        with pytest.raises(OutputError, match=rf"cannot be read \({error.__name__}\)$"):
            await pool.call("/ask", {}, read)
        assert pool.servers[0].reason is not None
        await pool.aclose()

    anyio.run(scenario)


def test_closing_ends_calls_under_way_with_a_typed_error(start: Any) -> None:
    server = start("hangs")
    pool = pool_of(server, server, timeout_s=60)
    told: list[str] = []

    async def one() -> None:
        with pytest.raises(ModelUnavailable, match="the model is closed") as caught:
            await ask(pool, 60.0)
        told.append(str(caught.value))

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(one)
            await until(lambda: server.asked["/ask"] == 3)
            await pool.aclose()
        await one()

    anyio.run(scenario)
    assert len(told) == 4


def test_each_event_loop_has_its_own_connections(start: Any) -> None:
    server = start()
    pool = pool_of(server)
    for _ in range(3):
        assert asyncio.run(ask(pool)) == 1
        assert not pool._clients._held
    gc.collect()  # a transport that was left open would warn here, and warnings are errors
    anyio.run(pool.aclose)
    with pytest.raises(ModelUnavailable, match="closed"):
        asyncio.run(ask(pool))


def test_many_calls_wait_for_a_free_connection(start: Any) -> None:
    server = start(seconds=0.02)
    pool = pool_of(server, connections=2)

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask, pool)
            await until(lambda: server.asked["/ask"] > 3)
            assert len(server._open) <= 2
        assert server.asked["/ask"] == 20
        await pool.aclose()

    anyio.run(scenario)


def test_clients_are_forgotten_under_the_lock() -> None:
    clients = LoopClients(["http://127.0.0.1:9"], ServerSettings())
    locked: list[bool] = []

    class Watched(dict[Any, Any]):
        def pop(self, *args: Any) -> Any:
            locked.append(lock.locked())
            return super().pop(*args)

    lock = clients._lock = Lock()
    clients._held = Watched()
    asyncio.run(clients.get())
    assert locked == [True]
    assert not clients._held
