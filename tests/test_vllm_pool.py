"""The pool against small real HTTP servers that fail in every way."""

import asyncio
import gc
import logging
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from threading import Lock
from typing import Any

import anyio
import pytest

from flaky_server import FlakyServer
from reranker.errors import ConfigError, ModelTimeout, ModelUnavailable, OutputError
from reranker.models.rendering import RenderedPrompt
from reranker.models.vllm.answers import (
    chat_label_logprobs,
    label_logprobs,
    texts,
    verdict_logprobs,
)
from reranker.models.vllm.http import LoopClients, Refused, _verification, base_url
from reranker.models.vllm.pool import RealCall, ServerPool
from reranker.models.vllm.server import Server
from reranker.settings import ServerSettings

ASK = RealCall(path="/ask", body={"small": True})


@pytest.fixture
def start() -> Iterator[Callable[..., FlakyServer]]:
    with ExitStack() as running:
        yield lambda *args, **kw: running.enter_context(FlakyServer(*args, **kw))


def pool_of(*servers: FlakyServer, real_call: RealCall = ASK, **settings: Any) -> ServerPool:
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


@asynccontextmanager
async def _busy(server: Server) -> AsyncIterator[None]:
    """Have one call under way at a server."""
    assert await server.admission.enter(60)
    yield
    server.admission.leave()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.02)


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
        async with _busy(pool.servers[0]):
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
        async with _busy(pool.servers[0]):
            assert await ask(pool) == 1
        pool._usual_s = 9.0  # as after a long answer: the first server asked gets all the time
        async with _busy(pool.servers[1]):
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


ENDLESS = {"choices": [{"index": float("inf")}]}
PROMPT = RenderedPrompt(token_ids=(1, 2), label_ids=(7,), verdict_positions=(1,))


def choice(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **fields}]}


@pytest.mark.parametrize("logprob", [1000.0, 0.1, float("nan"), float("inf"), "anna", None])
def test_what_is_no_log_probability_is_refused(logprob: Any) -> None:
    labels = choice(logprobs={"top_logprobs": [{"token_id:7": logprob}]})
    verdicts = choice(prompt_logprobs=[None, {"2": {"logprob": logprob}}])
    chat = choice(logprobs={"content": [{"top_logprobs": [{"token": "A", "logprob": logprob}]}]})
    for read in (
        lambda: label_logprobs(labels, [PROMPT], ["A"]),
        lambda: verdict_logprobs(verdicts, [PROMPT]),
        lambda: chat_label_logprobs(chat, ["A"]),
    ):
        with pytest.raises(OutputError) as caught:
            read()
        assert "anna" not in str(caught.value)


def test_an_endless_index_is_refused() -> None:
    for read in (
        lambda: label_logprobs(ENDLESS, [PROMPT], ["A"]),
        lambda: verdict_logprobs(ENDLESS, [PROMPT]),
        lambda: texts(ENDLESS, 1),
    ):
        with pytest.raises(OutputError, match=r"unknown form \(OverflowError"):
            read()


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


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8000",
        "ftp://host",
        "http://",
        "",
        "http://[x",
        "http://host:99999",
        "http://host:0",
        "http://host:8a",
        "http://ho st",
        "http://host?key=1",
        "http://host/v1?",
        "http://host#top",
        "http://anna:secret@host:99999",
    ],
)
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(ConfigError, match=r"server\.urls") as caught:
        base_url(url)
    assert "secret" not in str(caught.value)


def test_addresses_are_brought_to_one_form() -> None:
    assert base_url("http://host:8000/v1/") == base_url("http://host:8000") == "http://host:8000"
    assert base_url("https://host/llm/v1") == "https://host/llm"
    assert base_url("HTTPS://Host:443/LLM") == "https://host:443/LLM"
    assert base_url(" http://host:8000\n") == "http://host:8000"
    assert base_url("http://[::1]:8000/v1") == "http://[::1]:8000"
    with pytest.raises(ConfigError, match=r"at host holds a password.*server\.api_key") as caught:
        base_url("http://anna:secret@host")
    assert "secret" not in str(caught.value)


def test_two_forms_of_an_address_are_one_server() -> None:
    pool = ServerPool(ServerSettings(urls=("http://Host:1/v1", "http://host:1")), real_call=ASK)
    assert [one.url for one in pool.servers] == ["http://host:1"]


def test_certificates_are_always_verified() -> None:
    assert _verification(base_url("HTTPS://host")) is True
    plain = _verification("http://host")
    assert isinstance(plain, ssl.SSLContext)
    assert plain.verify_mode is ssl.CERT_REQUIRED
    assert plain.check_hostname
