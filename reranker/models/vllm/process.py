"""A vLLM server as a child: started, watched until it answers, and ended with all that is its."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import httpx

from reranker.errors import ConfigError, ModelUnavailable
from reranker.models.vllm import guard
from reranker.models.vllm.http import authorization
from reranker.models.vllm.launch import (
    ServeOptions,
    command,
    environment,
    niceness,
    this_machine,
)
from reranker.models.weights import resolve
from reranker.ports import Progress, no_progress
from reranker.settings import ServerSettings

_TAIL_LINES = 40
_POLL_S = 0.5
_REMEDIES = (
    ("out of memory", "lower --context-length, take a smaller model, or give it more memory"),
    ("kv cache", "raise --kv-cache-gib, or lower --context-length"),
    ("larger than the available", "lower --kv-cache-gib, or lower --context-length"),
    ("libnuma", "install the system's libnuma"),
    ("unrecognized arguments", "correct the arguments behind --"),
)


class RunningServer:
    """A server that answers.

    Attributes:
        url: its base URL.
        name: by which its model is asked for.
    """

    def __init__(self, process: "subprocess.Popen[str]", url: str, options: ServeOptions) -> None:
        """Watch over a guard process; see `start_server`."""
        self.url = url
        self.name = options.served_name
        self._api_key = options.api_key
        self.echo: Callable[[str], None] | None = None
        self._process = process
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._reader = Thread(target=self._read, name="shelfwise-llm-log", daemon=True)
        self._reader.start()

    @property
    def pids(self) -> list[int]:
        """Ids of vLLM's processes, the API server's first."""
        return guard.descendants(self._process.pid)

    @property
    def last_lines(self) -> list[str]:
        """The end of vLLM's log."""
        return list(self._tail)

    @property
    def exit_code(self) -> int | None:
        """How vLLM ended; None while it runs."""
        return self._process.poll()

    def settings(self, **others: Any) -> ServerSettings:
        """Return the settings by which a model asks this server.

        Args:
            others: further settings of the section ``server``.
        """
        return ServerSettings(urls=(self.url,), api_key=self._api_key, **others)

    def wait(self) -> int:
        """Wait until vLLM ends by itself or by a signal, and return its exit code."""
        return self._process.wait()

    def signal(self, number: int) -> None:
        """Pass a signal on to vLLM's process group."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def stop(self) -> int:
        """End vLLM and every process of its own, by force where it must be."""
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        code = self._process.wait()
        self._reader.join(timeout=5)
        if self._process.stdout:
            self._process.stdout.close()
        return code

    def _read(self) -> None:
        with suppress(ValueError):  # closed while it was read
            for line in self._process.stdout or ():
                self._tail.append(line.rstrip())
                if self.echo is not None:
                    self.echo(line.rstrip())


@contextmanager
def start_server(
    options: ServeOptions, *, progress: Progress = no_progress, patience_s: float = 900.0
) -> Iterator[RunningServer]:
    """Start vLLM, wait until it answers a first request, and end it afterwards.

    Args:
        options: model, address and flags.
        progress: is told of the download and of the start: seconds, and vLLM's last log line.
        patience_s: seconds that the start may take.

    Raises:
        ConfigError: vLLM is not installed, the port is in use, or the model's name is none.
        ModelUnavailable: the model cannot be fetched, or vLLM does not start.
    """
    machine = this_machine(options.device)
    folder = resolve(options.model, progress=progress)
    port = _free_port(options)
    line = command(options, folder, machine, port)
    process = subprocess.Popen(
        [sys.executable, guard.__file__, str(niceness(machine)), *line],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        # Ctrl-C in a terminal reaches this process alone, which then ends the server in order.
        start_new_session=True,
        env=os.environ | environment(options, machine),
    )
    server = RunningServer(process, reachable_url(options.host, port), options)
    try:
        _await_health(server, progress, patience_s)
        _await_first_answer(server, patience_s)
        yield server
    finally:
        server.stop()


def reachable_url(host: str, port: int) -> str:
    """Return the base URL at which this machine reaches a server that listens at a host."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _free_port(options: ServeOptions) -> int:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            taken.bind((options.host, options.port))
        except OSError as error:
            raise ConfigError(
                f"--host {options.host} --port {options.port}: it cannot be listened on "
                f"({error.strerror}): take another one, or --port 0 for any that is free"
            ) from error
        return int(taken.getsockname()[1])


def _await_health(server: RunningServer, progress: Progress, patience_s: float) -> None:
    started = time.monotonic()
    with httpx.Client(timeout=2.0, trust_env=False) as client:
        while server.exit_code is None:
            waited = time.monotonic() - started
            if waited > patience_s:
                raise _failed(server, f"vLLM was not ready after {waited:.0f} s")
            last = server.last_lines[-1] if server.last_lines else ""
            progress(f"starting vLLM: {last[:100]}", int(waited), 0)
            with suppress(httpx.HTTPError):
                if client.get(f"{server.url}/health").status_code == 200:
                    return
            time.sleep(_POLL_S)
    raise _failed(server, f"vLLM ended while it started (exit code {server.exit_code})")


def _await_first_answer(server: RunningServer, patience_s: float) -> None:
    """Have one token computed: the first request makes vLLM prepare things that take seconds."""
    body = {
        "model": server.name,
        "prompt": [[1, 2, 3]],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "logprob_token_ids": [1, 2],
    }
    headers = authorization(server.settings())
    try:
        with httpx.Client(timeout=patience_s, headers=headers, trust_env=False) as client:
            answer = client.post(f"{server.url}/v1/completions", json=body)
    except httpx.HTTPError as error:
        raise _failed(server, f"vLLM did not answer its first request ({error})") from error
    if answer.status_code != 200:
        raise _failed(server, f"vLLM refused its first request (HTTP {answer.status_code})")


def _failed(server: RunningServer, what: str) -> ModelUnavailable:
    server.signal(signal.SIGTERM)
    log = "\n".join(server.last_lines)
    remedy = next((then for sign, then in _REMEDIES if sign in log.lower()), None)
    advice = f"; {remedy}" if remedy else ""
    return ModelUnavailable(f"{what}{advice}. The end of its log:\n{log}")
