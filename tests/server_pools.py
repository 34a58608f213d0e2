"""Pools of small real HTTP servers, and a question to ask them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from flaky_server import FlakyServer
from reranker.errors import OutputError
from reranker.models.vllm.pool import RealCall, ServerPool
from reranker.models.vllm.server import Server
from reranker.settings import ServerSettings

ASK = RealCall(path="/ask", body={"small": True})


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


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.02)


@asynccontextmanager
async def busy(server: Server) -> AsyncIterator[None]:
    """Have one call under way at a server."""
    assert await server.admission.enter(60)
    yield
    server.admission.leave()
