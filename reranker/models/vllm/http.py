"""HTTP to model servers: addresses, keys, and one pooled client for each event loop."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

import httpx

from reranker.errors import ConfigError, ModelUnavailable
from reranker.settings import ServerSettings

CONNECT_S = 2.0
"""Seconds that a server may take to accept a connection."""

_KEEP_ALIVE_S = 4.0  # vLLM closes idle connections after 5


class Refused(Exception):  # noqa: N818 - between modules of this package only
    """A server said no: the request is wrong, the server is well.

    Attributes:
        status: of HTTP, 400 to 499.
        message: what the server said.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def base_url(url: str) -> str:
    """Return the root of a server; a ``/v1`` at the end is taken off.

    Raises:
        ConfigError: it is no address of a server, or holds a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"server.urls: {url!r} is no address such as http://127.0.0.1:8000")
    if parts.username or parts.password:
        host = parts.hostname
        raise ConfigError(f"server.urls: the one at {host} holds a password: use server.api_key")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def authorization(settings: ServerSettings) -> dict[str, str]:
    """Return the headers that show the API key."""
    if settings.api_key is None:
        return {}
    return {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"}


def content(response: httpx.Response) -> Any:
    """Return the JSON that a server answered with.

    Raises:
        ConfigError: the server wants another API key.
        ModelUnavailable: it failed for the moment, or answered with no JSON.
        Refused: it refused the request.
    """
    status = response.status_code
    if status < 400:
        try:
            return response.json()
        except ValueError as error:
            said = response.text[:80]
            message = f"{_root(response)}: it answered with no JSON: {said!r}"
            raise ModelUnavailable(message, retryable=True) from error
    if status in {401, 403}:
        raise ConfigError(
            f"server.api_key: {_root(response)} refuses it (HTTP {status}): set the server's key, "
            "best by SHELFWISE_SERVER__API_KEY"
        )
    said = _said(response)
    if status >= 500 or status in {408, 429}:
        raise ModelUnavailable(f"{_root(response)}: HTTP {status}: {said}", retryable=True)
    raise Refused(status, said)


def _root(response: httpx.Response) -> str:
    url = response.request.url
    return f"{url.scheme}://{url.netloc.decode()}"


def _said(response: httpx.Response) -> str:
    """Return the message of an error, without the key that some servers echo."""
    try:
        body = response.json()
        error = body.get("error", body)
        said = str(error.get("message", error) if isinstance(error, Mapping) else error)
    except (ValueError, AttributeError):
        said = response.text
    key = response.request.headers.get("Authorization", "").removeprefix("Bearer ")
    return (said.replace(key, "***") if key else said)[:500] or "without a word"


class LoopClients:
    """One `httpx.AsyncClient` for each running event loop, as they cannot be shared.

    A loop that ends closes its client: the client is held by an asynchronous generator, which
    ``asyncio.run`` and anyio finish at the end of a loop.
    """

    def __init__(self, urls: Sequence[str], settings: ServerSettings) -> None:
        self._urls = tuple(urls)
        self._settings = settings
        self._lock = Lock()
        self._held: dict[asyncio.AbstractEventLoop, _Held] = {}
        self._closed = False

    async def get(self) -> httpx.AsyncClient:
        """Return the client of the running loop.

        Raises:
            ModelUnavailable: the clients are closed.
        """
        loop = asyncio.get_running_loop()
        held = self._held.get(loop)
        if held is not None:
            return held.client
        if self._closed:
            raise ModelUnavailable("the model is closed")
        held = _Held(self._client())
        with self._lock:
            # A loop that was closed without its generators being finished leaves its client here.
            for gone in [known for known in self._held if known.is_closed()]:
                del self._held[gone]
            self._held[loop] = held
        await held.start(lambda: self._held.pop(loop, None))
        return held.client

    async def aclose(self) -> None:
        """Close the clients of all loops that run."""
        self._closed = True
        with self._lock:
            held, self._held = dict(self._held), {}
        for loop, one in held.items():
            if loop is asyncio.get_running_loop():
                await one.client.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(one.client.aclose(), loop)

    def _client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(
            max_connections=self._settings.connections,
            max_keepalive_connections=self._settings.connections,
            keepalive_expiry=_KEEP_ALIVE_S,
        )
        # One transport a server, so that a hanging one cannot take all connections.
        transports = {
            # Without https no certificates are loaded, which takes longer than a call.
            url: httpx.AsyncHTTPTransport(limits=limits, verify=url.startswith("https"))
            for url in self._urls
        }
        return httpx.AsyncClient(
            transport=transports[self._urls[0]],
            mounts=transports,
            headers=authorization(self._settings),
            # The pool bounds the whole call; see `ServerPool.call`.
            timeout=httpx.Timeout(None, connect=CONNECT_S),
            trust_env=False,
        )


class _Held:
    """A client, and the generator that closes it with its loop."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self._generator: AsyncGenerator[None, None] | None = None

    async def start(self, ended: Any) -> None:
        if self._generator is None:
            self._generator = self._hold(ended)
            await anext(self._generator)

    async def _hold(self, ended: Any) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            ended()
            await self.client.aclose()
