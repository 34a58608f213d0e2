"""HTTP to model servers: addresses, keys, and one pooled client for each event loop."""

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable, Sequence
from threading import Lock
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx

from reranker.errors import ConfigError, ModelUnavailable, OutputError
from reranker.models.vllm.complaints import complaint, show
from reranker.settings import ServerSettings

CONNECT_S = 2.0
"""Seconds that a server may take to accept a connection."""

_KEEP_ALIVE_S = 4.0  # vLLM closes idle connections after 5


class Refused(Exception):  # noqa: N818 - between modules of this package only
    """A server said no: the request is wrong, the server is well.

    Attributes:
        status: of HTTP, 400 to 499.
        message: what may be repeated of its words; see `complaint`.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"HTTP {status}{f': {message}' if message else ''}")
        self.status = status
        self.message = message


def base_url(url: str) -> str:
    """Return the root of a server in its plainest form; a ``/v1`` at the end is taken off.

    Raises:
        ConfigError: it is no address of a server, or holds a password.
    """
    parts = _split(url.strip())
    if parts.username or parts.password:
        host = parts.hostname
        raise ConfigError(f"server.urls: the one at {host} holds a password: use server.api_key")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(':')}{path}"


def _split(url: str) -> SplitResult:
    shown = url.rpartition("@")[2]  # a password in front of it is nobody's to read
    try:
        parts = urlsplit(url)
        sound = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        reason = f"server.urls: {shown!r} is no address such as http://127.0.0.1:8000"
        raise ConfigError(f"{reason} ({type(error).__name__})") from None
    if not sound or any(map(str.isspace, url)):
        raise ConfigError(f"server.urls: {shown!r} is no address such as http://127.0.0.1:8000")
    if "?" in url or "#" in url:
        raise ConfigError(f"server.urls: {shown!r} holds a query: leave out what follows the path")
    return parts


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
        OutputError: it answered with JSON that nobody could read.
        Refused: it refused the request.
    """
    status = response.status_code
    if status < 400:
        return _json(response)
    if status in {401, 403}:
        raise ConfigError(
            f"server.api_key: {_root(response)} refuses it (HTTP {status}): set the server's key, "
            "best by SHELFWISE_SERVER__API_KEY"
        )
    said = complaint(response)
    if status >= 500 or status in {408, 429}:
        message = f"{_root(response)}: HTTP {status}{f': {said}' if said else ''}"
        raise ModelUnavailable(message, retryable=True)
    raise Refused(status, said)


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError:
        show(response)
        kind = response.headers.get("content-type", "of no content type")
        message = f"{_root(response)}: it answered with no JSON ({kind[:60]})"
        raise ModelUnavailable(message, retryable=True) from None
    except RecursionError:
        message = f"{_root(response)}: it answered with JSON that is nested too deeply"
        raise OutputError(message, raw=response.text[:500]) from None


def _root(response: httpx.Response) -> str:
    url = response.request.url
    return f"{url.scheme}://{url.netloc.decode()}"


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

    @property
    def closed(self) -> bool:
        """Whether all connections have been closed, so that no call can succeed any more."""
        return self._closed

    async def get(self) -> httpx.AsyncClient:
        """Return the client of the running loop.

        Raises:
            ModelUnavailable: the clients are closed.
        """
        loop = asyncio.get_running_loop()
        with self._lock:
            if self._closed:
                raise ModelUnavailable("the model is closed")
            held = self._held.get(loop)
            if held is None:
                # A loop that was closed without finishing its generators leaves its client here.
                for gone in [known for known in self._held if known.is_closed()]:
                    del self._held[gone]
                held = self._held[loop] = _Held(self._client())
        await held.start(lambda: self._forget(loop))
        return held.client

    async def aclose(self) -> None:
        """Close the clients of all loops that run."""
        with self._lock:
            self._closed = True
            held, self._held = dict(self._held), {}
        for loop, one in held.items():
            if loop is asyncio.get_running_loop():
                await one.client.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(one.client.aclose(), loop)

    def _forget(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            self._held.pop(loop, None)

    def _client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(
            max_connections=self._settings.connections,
            max_keepalive_connections=self._settings.connections,
            keepalive_expiry=_KEEP_ALIVE_S,
        )
        # One transport a server, so that a hanging one cannot take all connections.
        transports = {
            url: httpx.AsyncHTTPTransport(limits=limits, verify=_verification(url))
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


def _verification(url: str) -> ssl.SSLContext | bool:
    """Return how certificates are verified, which is never turned off.

    Where no https is spoken, no certificates are loaded, which takes longer than a call: such a
    context trusts nobody.
    """
    return True if url.startswith("https:") else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class _Held:
    """A client, and the generator that closes it with its loop."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self._generator: AsyncGenerator[None, None] | None = None

    async def start(self, ended: Callable[[], object]) -> None:
        if self._generator is None:
            self._generator = self._hold(ended)
            await anext(self._generator)

    async def _hold(self, ended: Callable[[], object]) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            ended()
            await self.client.aclose()
