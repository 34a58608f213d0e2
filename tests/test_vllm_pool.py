"""The pool against small real HTTP servers that fail in every way."""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from typing import Any

import anyio
import pytest

from flaky_server import FlakyServer
from reranker.errors import ConfigError, ModelTimeout, ModelUnavailable, OutputError
from reranker.models.vllm.http import Refused, base_url
from reranker.models.vllm.pool import RealCall, ServerPool
from reranker.settings import ServerSettings

ASK = RealCall(path="/ask", body={"small": True})


@pytest.fixture
def start() -> Iterator[Callable[..., FlakyServer]]:
    with ExitStack() as running:
        yield lambda *args, **kw: running.enter_context(FlakyServer(*args, **kw))


def pool_of(*servers: FlakyServer, real_call: RealCall | None = ASK, **settings: Any) -> ServerPool:
    given = {"recovery_s": 0.1, "timeout_s": 5.0, **settings}
    return ServerPool(
        ServerSettings(urls=tuple(one.url for one in servers), **given), real_call=real_call
    )


def value(answer: Any) -> int:
    try:
        return int(answer["value"])
    except (TypeError, KeyError) as error:
        raise OutputError("no value", raw=str(answer)) from error


async def ask(pool: ServerPool, seconds: float = 10.0, affinity: str | None = None) -> int:
    return await pool.call("/ask", {"question": 1}, value, seconds=seconds, affinity=affinity)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.02)


@pytest.mark.parametrize("mode", ["500", "429", "garbage", "no object", "drops"])
def test_a_failure_is_made_good_by_another_server(start: Any, mode: str) -> None:
    bad, good = start(mode), start()
    pool = pool_of(bad, good)

    async def scenario() -> None:
        for _ in range(12):
            assert await ask(pool) == 1
        assert pool.servers[0].reason is not None
        assert pool.servers[1].reason is None
        assert [server.load for server in pool.servers] == [0, 0]
        seen = bad.asked["/ask"]
        assert await ask(pool) == 1
        bad.mode = "well"
        await until(lambda: pool.servers[0].reason is None)
        before = bad.asked["/ask"]
        for _ in range(12):
            assert await ask(pool) == 1
        assert bad.asked["/ask"] > before >= seen
        await pool.aclose()

    anyio.run(scenario)


@pytest.mark.parametrize(
    ("mode", "error", "said"),
    [
        ("500", ModelUnavailable, "HTTP 500: EngineCore is dead"),
        ("429", ModelUnavailable, "HTTP 429: slow down"),
        ("garbage", ModelUnavailable, "no JSON: '<html>"),
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
    slow, quick = start(seconds=1.0), start(seconds=0.05)
    pool = pool_of(slow, quick)

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(ask, pool)
            await until(lambda: sum(server.load for server in pool.servers) == 6)
            assert [server.load for server in pool.servers] == [3, 3]
            await until(lambda: pool.servers[1].load == 0)
            for _ in range(3):
                await ask(pool)
        assert slow.asked["/ask"] == 3
        assert quick.asked["/ask"] == 6
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


def test_too_little_time_is_no_failure_of_a_server_that_answers_others(start: Any) -> None:
    server = start(seconds=0.3)
    pool = pool_of(server, failures=1)

    async def hurried() -> None:
        await anyio.sleep(0.15)
        with pytest.raises(ModelTimeout):
            await ask(pool, seconds=0.25)

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(hurried)
            assert await ask(pool) == 1
        assert pool.servers[0].reason is None
        with pytest.raises(ModelTimeout):
            await ask(pool, seconds=0.1)
        assert pool.servers[0].reason is not None
        await pool.aclose()

    anyio.run(scenario)


def test_cancelling_hangs_up_and_counts_nothing(start: Any) -> None:
    server = start("hangs")
    pool = pool_of(server, failures=1, timeout_s=60)

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(ask, pool, 60.0)
            await until(lambda: server.asked["/ask"] == 10)
            assert pool.servers[0].load == 10
            group.cancel_scope.cancel()
        assert pool.servers[0].load == 0
        assert pool.servers[0].reason is None
        await until(lambda: server.gone == 10)
        await pool.aclose()

    anyio.run(scenario)


def test_a_caller_that_gives_up_at_the_deadline_counts_as_a_timeout(start: Any) -> None:
    server = start("hangs")
    pool = pool_of(server, failures=1, timeout_s=60)

    async def scenario() -> None:
        with suppress(ModelTimeout), anyio.move_on_after(0.3):
            # The time that the pool is told is a little shorter than the caller's patience.
            await ask(pool, seconds=0.3)
        assert pool.servers[0].reason is not None
        await pool.aclose()

    anyio.run(scenario)


def test_refusals_are_no_failures_and_tell_no_key(start: Any) -> None:
    server = start("400")
    pool = pool_of(server, failures=1, api_key="sesame")

    async def scenario() -> None:
        with pytest.raises(Refused, match=r"wrong, said Bearer \*\*\*") as caught:
            await ask(pool)
        assert caught.value.status == 400
        server.mode = "401"
        with pytest.raises(ConfigError, match=r"server\.api_key: http\S+ refuses it") as denied:
            await ask(pool)
        assert "sesame" not in f"{denied.value}{pool!r}{pool.servers!r}{vars(pool)}"
        assert pool.servers[0].reason is None
        await pool.aclose()

    anyio.run(scenario)


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


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host", "http://", ""])
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.urls"):
        base_url(url)


def test_addresses_are_brought_to_one_form() -> None:
    assert base_url("http://host:8000/v1/") == base_url("http://host:8000") == "http://host:8000"
    assert base_url("https://host/llm/v1") == "https://host/llm"
    with pytest.raises(ConfigError, match=r"at host holds a password.*server\.api_key") as caught:
        base_url("http://anna:secret@host")
    assert "secret" not in str(caught.value)
