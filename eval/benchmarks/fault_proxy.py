"""A proxy in front of a real server that makes it fail in known ways."""

import asyncio
import contextlib
import json
from types import TracebackType
from typing import Literal, Self

Fault = Literal["garbage", "error", "slow", "refuse"]
_SLOW_S = 5.0
_BODIES: dict[str, tuple[str, bytes]] = {
    "garbage": ("200 OK", b"<html>the quick brown fox [1] > [2]</html>"),
    "error": ("500 Internal Server Error", json.dumps({"error": {"message": "engine"}}).encode()),
}


class FaultProxy:
    """Passes bytes on, or fails: an asynchronous context manager that listens on a free port.

    A change of `fault` breaks the connections that are open, as a failing server would, so that
    kept ones cannot get round it.

    Attributes:
        fault: ``garbage`` answers with a page, ``error`` with status 500, ``slow`` after five
            seconds, ``refuse`` drops the connection; None passes everything on.
    """

    def __init__(self, host: str, port: int) -> None:
        """Take the address of the server behind it."""
        self.fault: Fault | None = None
        self._target = (host, port)
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        """Base URL to use in place of the server's."""
        if self._server is None:
            raise RuntimeError("the proxy is not open")
        host, port, *_ = self._server.sockets[0].getsockname()
        return f"http://{host}:{port}"

    def set(self, fault: Fault | None) -> None:
        """Change the fault, breaking what is under way."""
        self.fault = fault
        for connection in self._connections:
            connection.cancel()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.set(None)
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        fault = self.fault
        if fault == "refuse":
            writer.transport.abort()
        elif fault in _BODIES:
            await reader.read(65_536)
            status, body = _BODIES[fault]
            head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            writer.write(head.encode() + body)
            await writer.drain()
        else:
            await self._pass(reader, writer, delay=_SLOW_S if fault == "slow" else 0.0)

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delay: float
    ) -> None:
        behind, ahead = await asyncio.open_connection(*self._target)
        try:
            asked = asyncio.create_task(_pipe(reader, ahead, 0.0))
            told = asyncio.create_task(_pipe(behind, writer, delay))
            try:
                await asyncio.wait({asked, told}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                told.cancel()
        finally:
            ahead.close()


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter, delay: float) -> None:
    with contextlib.suppress(OSError):
        while data := await source.read(65_536):
            await asyncio.sleep(delay)
            target.write(data)
            await target.drain()
