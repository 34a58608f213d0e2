"""The guard that ends a server with its keeper, tried with small commands."""

import contextlib
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from processes import alive, until
from reranker.models.vllm import guard

pytestmark = pytest.mark.alone


@contextlib.contextmanager
def guarded(script: str, grace_s: float = 20.0) -> Iterator["subprocess.Popen[str]"]:
    """Run a shell script under the guard."""
    code = (
        f"import sys; from reranker.models.vllm import guard; guard.GRACE_S = {grace_s}; "
        "sys.exit(guard.guard(sys.argv[1:]))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin, process.stdout:
        yield process
    process.wait(30)


def pids(process: "subprocess.Popen[str]", count: int) -> list[int]:
    assert process.stdout is not None
    return [int(process.stdout.readline()) for _ in range(count)]


def test_the_guard_ends_as_its_command_does() -> None:
    with guarded("exit 7") as process:
        assert process.wait(30) == 7
    with guarded("kill -KILL $$") as process:
        assert process.wait(30) == 128 + signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_guard_passes_signals_on(number: signal.Signals) -> None:
    script = f"trap 'exit 3' {number.value}; echo $$; while :; do sleep 0.05; done"
    with guarded(script) as process:
        (child,) = pids(process, 1)
        process.send_signal(number)
        assert process.wait(30) == 3
    assert not alive(child)


def test_a_signal_that_comes_while_the_command_starts_is_passed_on() -> None:
    code = """
import os, signal, subprocess, sys
from reranker.models.vllm import guard

class Interrupted(subprocess.Popen):
    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        os.kill(os.getpid(), signal.SIGTERM)  # the command runs, the guard has no hold on it yet

subprocess.Popen, guard.GRACE_S = Interrupted, 20.0
sys.exit(guard.guard(["sleep", "60"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE)
    try:
        assert process.wait(30) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait(30)
        assert process.stdin is not None
        process.stdin.close()


def test_what_ignores_signals_is_killed_when_its_keeper_is_gone() -> None:
    script = "trap '' TERM INT; echo $$; while :; do sleep 0.05; done"
    with guarded(script, grace_s=0.5) as process:
        (child,) = pids(process, 1)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 128 + signal.SIGKILL
    assert not alive(child)


def test_what_a_command_leaves_behind_is_killed() -> None:
    # A process in a session of its own that has lost its parent, as a hanging engine may.
    with guarded("setsid sh -c 'echo $$; exec sleep 600' & sleep 0.5; exit 0") as process:
        (orphan,) = pids(process, 1)
        assert process.wait(30) == 0
    until(lambda: not alive(orphan))


def test_what_is_started_while_the_rest_is_killed_is_killed_too(tmp_path: Path) -> None:
    # Processes in sessions of their own, one after the other, faster than they can be listed.
    spawner, name = tmp_path / "spawner.py", f"600.{uuid.uuid4().int}"
    spawner.write_text(
        "import os, time\n"
        "for _ in range(1500):\n"
        f"    os.posix_spawn('/bin/sleep', ['sleep', '{name}'], {{}}, setsid=True)\n"
        "    time.sleep(0.0005)\n",
        encoding="utf-8",
    )

    def left() -> list[int]:
        found = []
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if name in file.read_text(encoding="utf-8"):
                    found.append(int(file.parent.name))
        return found

    with guarded(f"setsid {sys.executable} {spawner} & sleep 0.4; exit 0") as process:
        until(lambda: bool(left()))
        assert process.wait(60) == 0
    remaining = left()
    guard.kill(remaining)
    assert not remaining


def test_a_killed_guard_takes_its_command_along() -> None:
    with guarded("echo $$; exec sleep 600") as process:
        (child,) = pids(process, 1)
        assert alive(child)
        process.kill()
        until(lambda: not alive(child))
        assert not alive(child)
