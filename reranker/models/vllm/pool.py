"""Several servers of one model: which is asked, and what happens when one fails."""

import hashlib
import itertools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import anyio
import httpx

from reranker.errors import ConfigError, ModelError, ModelTimeout, ModelUnavailable, OutputError
from reranker.models.vllm.answers import LabelsMissing
from reranker.models.vllm.http import (
    CONNECT_S,
    LoopClients,
    Refused,
    authorization,
    base_url,
    content,
)
from reranker.models.vllm.server import Server
from reranker.schema import Value
from reranker.settings import ServerSettings

_MARGIN_S = 0.02
_T = TypeVar("_T")
_DROPPED = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)


class RealCall(Value):
    """A small call of the kind that the servers are there for.

    Attributes:
        path: such as ``/v1/completions``.
        body: JSON.
    """

    path: str
    body: Mapping[str, Any]


class ServerPool:
    """Asks the least-loaded healthy server, and another one where it fails. Under asyncio.

    A failure is: no connection, no answer in time, HTTP 5xx, 408 or 429, or an answer that makes
    no sense. A refusal (the other 4xx) is none. A call that is cancelled closes its connection,
    upon which vLLM stops computing.
    """

    def __init__(self, settings: ServerSettings, *, real_call: RealCall | None = None) -> None:
        """Take all servers to be well.

        Args:
            settings: addresses, API key, and limits.
            real_call: by which a server that failed shows that it is back; None: its health alone.

        Raises:
            ConfigError: an address is none.
        """
        self._settings = settings
        self._real_call = real_call
        self._ticks = itertools.count()
        urls = [base_url(url) for url in dict.fromkeys(settings.urls)]
        self.servers = tuple(
            Server(
                url,
                failures=settings.failures,
                recovery_s=settings.recovery_s,
                probe=_prober(settings, real_call),
            )
            for url in urls
        )
        self._clients = LoopClients(urls, settings)

    def __repr__(self) -> str:
        return f"ServerPool({', '.join(map(repr, self.servers))})"

    async def call(
        self,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], _T],
        *,
        seconds: float = math.inf,
        affinity: str | None = None,
    ) -> _T:
        """Send a request and return what ``read`` makes of the answer.

        Args:
            path: such as ``/v1/completions``.
            body: JSON of the request; None gets what is there.
            read: of the answer's JSON; an `OutputError` from it counts as a failure of the server.
            seconds: time left for the answer, over all servers.
            affinity: among equally loaded servers, calls of the same value prefer the same one,
                where the prompt's start may still be cached.

        Raises:
            ConfigError: a server wants another API key.
            ModelTimeout: no answer in time.
            ModelUnavailable: no server can be reached, or all are left alone for the moment.
            OutputError: no server's answer made sense.
            Refused: the request is wrong.
        """
        deadline = time.monotonic() + seconds
        tried: list[Server] = []
        failure: ModelError | OutputError | None = None
        while server := self._choose(tried, affinity):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            try:
                return await self._ask(server, path, body, read, left)
            except LabelsMissing:
                raise
            except (ModelTimeout, ModelUnavailable, OutputError) as error:
                failure = error
            tried.append(server)
        raise failure or self._nobody(deadline)

    def leave_alone(self, url: str, reason: str) -> None:
        """Ask a server only when the look-out has found that it is back."""
        root = base_url(url)
        for server in self.servers:
            if server.url == root:
                server.leave_alone(reason)

    async def aclose(self) -> None:
        """Close all connections and end looking out for servers."""
        for server in self.servers:
            server.close()
        await self._clients.aclose()

    def _choose(self, tried: Sequence[Server], affinity: str | None) -> Server | None:
        able = [one for one in self.servers if one.reason is None and one not in tried]
        wish = str(next(self._ticks)) if affinity is None else affinity
        return min(able, key=lambda one: (one.load, _digest(wish, one.url)), default=None)

    def _nobody(self, deadline: float) -> ModelError:
        if time.monotonic() >= deadline:
            return ModelTimeout("no time was left to ask a server")
        reasons = "; ".join(f"{one.url}: {one.reason}" for one in self.servers)
        return ModelUnavailable(f"no server is healthy ({reasons})", retryable=True)

    async def _ask(
        self,
        server: Server,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], _T],
        left: float,
    ) -> _T:
        client = await self._clients.get()
        # A little sooner than the caller gives up: the failure can then still be counted.
        allowed = min(self._settings.timeout_s, left - min(_MARGIN_S, left / 10))
        late = f"{server.url}: no answer in {allowed:.3g} s"
        started = time.monotonic()
        try:
            with server.call(), anyio.fail_after(allowed):
                response = await _send(client, server.url + path, body)
            answer = read(content(response))
        except TimeoutError as error:
            server.timed_out(late, since=started)
            raise ModelTimeout(late) from error
        except httpx.HTTPError as error:
            message = f"{server.url}: {_kind(error)}"
            server.failed(message)
            raise ModelUnavailable(message, retryable=True) from error
        except LabelsMissing:  # another server of the same kind would leave them out as well
            server.answered()
            raise
        except (ModelUnavailable, OutputError) as error:
            server.failed(str(error))
            raise
        except anyio.get_cancelled_exc_class():
            if time.monotonic() - started >= allowed:
                server.timed_out(late, since=started)
            raise
        except Exception:  # a refusal, or a defect in reading: the server has answered
            server.answered()
            raise
        server.answered()
        return answer


async def _send(
    client: httpx.AsyncClient, url: str, body: Mapping[str, Any] | None
) -> httpx.Response:
    method = "GET" if body is None else "POST"
    try:
        return await client.request(method, url, json=body)
    except _DROPPED:
        # A server may close an idle connection at the very moment at which it is used again.
        return await client.request(method, url, json=body)


def _prober(settings: ServerSettings, real_call: RealCall | None) -> Callable[[str], None]:
    def probe(url: str) -> None:
        headers = authorization(settings)
        timeout = httpx.Timeout(CONNECT_S)
        with httpx.Client(headers=headers, timeout=timeout, trust_env=False) as client:
            if client.get(f"{url}/health").status_code >= 500:
                raise ModelUnavailable(f"{url}: /health says that it is not well")
            if real_call is None:
                return
            patience = httpx.Timeout(settings.timeout_s, connect=CONNECT_S)
            body = dict(real_call.body)
            answer = client.post(url + real_call.path, json=body, timeout=patience)
            # What it refuses is for the next request to report: the server itself is back.
            with suppress(Refused, ConfigError):
                if not isinstance(content(answer), Mapping):
                    raise ModelUnavailable(f"{url}: it answers with something else than an object")

    return probe


def _kind(error: httpx.HTTPError) -> str:
    """Return what went wrong with a connection; httpx leaves some messages empty."""
    return f"{type(error).__name__}{f': {error}' if str(error) else ''}"


def _digest(wish: str, url: str) -> bytes:
    return hashlib.blake2b(f"{wish}\n{url}".encode(), digest_size=8).digest()
