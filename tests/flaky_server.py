"""A small HTTP server that misbehaves on demand, in a thread of its own."""

import asyncio
from collections import Counter
from threading import Thread
from types import TracebackType
from typing import Self

_ANSWERS: dict[str, tuple[int, bytes]] = {
    "well": (200, b'{"value": 1}'),
    "500": (500, b'{"error": {"message": "EngineCore died of anna\'s tea", "type": "Internal"}}'),
    "429": (429, b"slow down, anna"),
    "400": (
        400,
        b'{"error": {"type": "Bad Request", "message": "1 validation error: body.prompt: anna, '
        b'likes tea, with Bearer sesame: maximum context length is 12 tokens"}}',
    ),
    "422": (422, b'{"detail": [{"type": "missing", "input": {"prompt": "anna likes tea"}}]}'),
    "garbage": (200, b"<html>It works!</html>"),
    "no object": (200, b"[1, 2]"),
    "deep": (200, b"[" * 200_000),
    "401": (401, b'{"error": "Unauthorized"}'),
}


class FlakyServer:
    """Answers, or fails in one of several ways.

    Attributes:
        mode: how it behaves from the next request on. Of a deaf engine only /health answers.
        answers: status and body by path, where it is well.
        asked: number of requests by path.
        bodies: of the requests, by path.
        gone: number of requests whose client hung up while they were answered.
    """

    def __init__(self, mode: str = "well", *, seconds: float = 0.0) -> None:
        self.mode = mode
        self.seconds = seconds
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.asked: Counter[str] = Counter()
        self.bodies: dict[str, list[bytes]] = {}
        self.gone = 0
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.down()
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def listen(self) -> None:
        """Come up, at the same port as before."""

        async def start() -> None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
            self.port = self._server.sockets[0].getsockname()[1]

        asyncio.run_coroutine_threadsafe(start(), self._loop).result(10)

    def down(self) -> None:
        """Go away, with all connections."""

        async def stop() -> None:
            if self._server is not None:
                self._server.close()
                self._server = None
            for writer in list(self._open):
                writer.transport.abort()

        asyncio.run_coroutine_threadsafe(stop(), self._loop).result(10)

    async def _end(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._open.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        path = head.split()[1]
        for line in head.lower().splitlines():
            if line.startswith("content-length:"):
                body = await reader.readexactly(int(line.split(":")[1]))
                self.bodies.setdefault(path, []).append(body)
        self.asked[path] += 1
        if self.mode == "drops next":
            self.mode = "well"
            return False
        if self.mode == "drops":
            return False
        if self.mode == "hangs" or (self.mode == "deaf engine" and path != "/health"):
            await reader.read()  # until the client hangs up
            self.gone += 1
            return False
        await asyncio.sleep(self.seconds)
        healthy = path == "/health" and self.mode == "deaf engine"
        status, body = (200, b"{}") if healthy else _ANSWERS[self.mode]
        if self.mode == "well":
            status, body = self.answers.get(path, (status, body))
        answer = f"HTTP/1.1 {status} Said\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        writer.write(answer + body)
        await writer.drain()
        return True
