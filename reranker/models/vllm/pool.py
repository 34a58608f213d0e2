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
from reranker.models.vllm.server import CONFIRM_S, Probe, Server
from reranker.schema import Value
from reranker.settings import ServerSettings

_MARGIN_S = 0.02
_USEFUL_S = 0.025  # what the margin leaves over is no time to ask another server
_LONGER = 2.0
_FADING = 0.8
_T = TypeVar("_T")
_BUSY = "it has more to do than it can in time"
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

    A failure is: no connection, no answer within ``server.timeout_s``, HTTP 5xx, 408 or 429, an API
    key that is refused, or an answer that makes no sense. A refusal (the other 4xx) is none. A call
    with less time than ``server.timeout_s`` that has no answer is no failure by itself, as its
    caller may be impatient; see `Server`. A call that is cancelled closes its connection, upon
    which vLLM stops computing.
    """

    def __init__(
        self, settings: ServerSettings, *, real_call: RealCall, compare: Probe | None = None
    ) -> None:
        """Take all servers to be well.

        Args:
            settings: addresses, API key, and limits.
            real_call: by which a server that failed shows that it is back.
            compare: raises an exception where a server that is back serves something else.

        Raises:
            ConfigError: an address is none.
        """
        self._settings = settings
        self._ticks = itertools.count()
        self._usual_s = 0.0
        urls = list(dict.fromkeys(map(base_url, settings.urls)))
        self.servers = tuple(
            Server(
                url,
                calls=settings.connections,
                failures=settings.failures,
                recovery_s=settings.recovery_s,
                probe=_prober(settings, real_call, settings.timeout_s, compare),
                confirm=_prober(settings, real_call, min(settings.timeout_s, CONFIRM_S)),
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
            ModelTimeout: no answer in time.
            ModelUnavailable: no server can be reached, all are left alone for the moment, have more
                to do than they can in time, or refuse the API key, or the pool is closed.
            OutputError: no server's answer made sense.
            Refused: the request is wrong.
        """
        deadline = time.monotonic() + seconds
        tried: list[Server] = []
        failure: ModelError | OutputError | None = None
        while able := self._able(tried):
            left = deadline - time.monotonic()
            if left < _USEFUL_S:
                raise failure or ModelTimeout("no time was left to ask a server")
            server = self._choose(able, affinity)
            share = self._share(left, others=len(able) > 1)
            try:
                return await self._ask(server, path, body, read, share)
            except LabelsMissing:
                raise
            except (ModelTimeout, ModelUnavailable, OutputError) as error:
                failure = error
                if isinstance(error, ModelTimeout) and len(able) == 1:
                    # Otherwise halves that are too short for any server would stay so.
                    self._took(min(share, self._settings.timeout_s))
            tried.append(server)
        raise failure or self._nobody()

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

    def _able(self, tried: Sequence[Server]) -> list[Server]:
        return [one for one in self.servers if one.reason is None and one not in tried]

    def _choose(self, able: Sequence[Server], affinity: str | None) -> Server:
        wish = str(next(self._ticks)) if affinity is None else affinity
        return min(able, key=lambda one: (one.suspected, one.load, _digest(wish, one.url)))

    def _share(self, left: float, *, others: bool) -> float:
        """Return the seconds that one server gets, the wait for its turn and its answer together.

        Half of what is left while another one could still make its failure good; but no less than
        twice what answers take of late, as a half that is too short for any server helps nobody.
        """
        # A little sooner than the caller gives up: the failure can then still be counted.
        share = left - min(_MARGIN_S, left / 10)
        if others:
            share = min(share, max(left / 2, _LONGER * self._usual_s))
        return share

    def _took(self, seconds: float) -> None:
        """Learn what answers take: the most of late, which fades."""
        self._usual_s = max(seconds, _FADING * self._usual_s)

    def _nobody(self) -> ModelError:
        reasons = "; ".join(f"{one.url}: {one.reason}" for one in self.servers)
        return ModelUnavailable(f"no server is healthy ({reasons})", retryable=True)

    async def _ask(
        self,
        server: Server,
        path: str,
        body: Mapping[str, Any] | None,
        read: Callable[[Any], _T],
        share: float,
    ) -> _T:
        client = await self._clients.get()
        asked = time.monotonic()
        if not await server.admission.enter(share):
            raise ModelUnavailable(f"{server.url}: {_BUSY}", retryable=True)
        started = time.monotonic()
        allowed = min(self._settings.timeout_s, share - (started - asked))
        try:
            with anyio.fail_after(allowed):
                response = await _send(client, server.url + path, body)
            answer = read(content(response))
        except TimeoutError as error:
            raise self._late(server, started, allowed) from error
        except anyio.get_cancelled_exc_class():
            if time.monotonic() - started >= allowed:
                self._late(server, started, allowed)
            raise
        except (LabelsMissing, Refused):  # it is well, and others would say the same
            server.answered()
            raise
        except (ModelUnavailable, OutputError) as error:
            server.failed(str(error))
            raise
        except Exception as error:
            failure = self._failure(server, error)
            server.failed(str(failure))
            raise failure from error
        finally:
            server.admission.leave()
        seconds = time.monotonic() - started
        server.answered()
        server.admission.in_time(seconds)
        self._took(seconds)
        return answer

    def _late(self, server: Server, started: float, allowed: float) -> ModelTimeout:
        message = f"{server.url}: no answer in {allowed:.3g} s"
        server.admission.too_late(started)
        server.timed_out(message, since=started, whole=allowed >= self._settings.timeout_s)
        return ModelTimeout(message)

    def _failure(self, server: Server, error: Exception) -> ModelUnavailable | OutputError:
        """Return what a call failed with as one of the errors that the port may raise."""
        if self._clients.closed:
            return ModelUnavailable("the model is closed")
        if isinstance(error, ConfigError):  # another server may take the key
            return ModelUnavailable(str(error))
        if isinstance(error, httpx.HTTPError):
            return ModelUnavailable(f"{server.url}: {_kind(error)}", retryable=True)
        kind = type(error).__name__
        return OutputError(f"{server.url}: its answer cannot be read ({kind})")


async def _send(
    client: httpx.AsyncClient, url: str, body: Mapping[str, Any] | None
) -> httpx.Response:
    method = "GET" if body is None else "POST"
    try:
        return await client.request(method, url, json=body)
    except _DROPPED:
        # A server may close an idle connection at the very moment at which it is used again.
        return await client.request(method, url, json=body)


def _prober(
    settings: ServerSettings, real_call: RealCall, patience_s: float, compare: Probe | None = None
) -> Probe:
    def probe(url: str) -> None:
        headers = authorization(settings)
        timeout = httpx.Timeout(CONNECT_S)
        with httpx.Client(headers=headers, timeout=timeout, trust_env=False) as client:
            if client.get(f"{url}/health").status_code >= 500:
                raise ModelUnavailable(f"{url}: /health says that it is not well")
            patience = httpx.Timeout(patience_s, connect=CONNECT_S)
            body = dict(real_call.body)
            answer = client.post(url + real_call.path, json=body, timeout=patience)
        # What it refuses is for the next request to report: the server itself is back.
        with suppress(Refused):
            if not isinstance(content(answer), Mapping):
                raise ModelUnavailable(f"{url}: it answers with something else than an object")
        if compare is not None:
            compare(url)

    return probe


def _kind(error: httpx.HTTPError) -> str:
    """Return what went wrong with a connection; httpx leaves some messages empty."""
    return f"{type(error).__name__}{f': {error}' if str(error) else ''}"


def _digest(wish: str, url: str) -> bytes:
    return hashlib.blake2b(f"{wish}\n{url}".encode(), digest_size=8).digest()
