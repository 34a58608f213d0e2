"""Runs a command and leaves nothing of it behind. A program of its own, with the standard library.

``python guard.py NICENESS COMMAND...`` starts the command in a session of its own and ends with
its exit code. SIGTERM and SIGINT are passed on to the command's whole process group. When standard
input ends, which it does even if the process that holds it is killed, the command is told to end.
What is left of it after a while, and whatever it left behind when it ended by itself, is killed.

vLLM needs that: its engine is a process below the API server's, and may go on, or hang, without it.
"""

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

GRACE_S = 8.0
"""Seconds between the wish to end and the end by force."""

END_S = 10.0
"""Seconds after which processes that even force does not end are given up."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def descendants(pid: int) -> list[int]:
    """Return the ids of all processes below one, from the system's process table."""
    below: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - only names are wanted, and quickly
        if not name.isdecimal():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:  # noqa: PTH123
                fields = file.read().rpartition(")")[2].split()
            if fields[0] != "Z":
                below.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    queue = [pid]
    while queue:
        children = below.get(queue.pop(), [])
        found += children
        queue += children
    return found


def kill(pids: list[int]) -> None:
    """Kill processes that may have gone already."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def kill_below(pid: int) -> None:
    """Kill all processes below one, and those that they start meanwhile."""
    end = time.monotonic() + END_S
    while (left := descendants(pid)) and time.monotonic() < end:
        kill(left)
        time.sleep(0.01)


def give_way(session: int, niceness: int) -> None:
    """Lower the weight of a whole session, by its leader's id, where the kernel groups by session.

    Linux shares the processors out among sessions first (autogroup, see sched(7)): inside a session
    of its own a process is nice to nobody outside.
    """
    with (
        contextlib.suppress(OSError),
        open(f"/proc/{session}/autogroup", "w", encoding="ascii") as file,  # noqa: PTH123
    ):
        file.write(str(niceness))


def guard(command: list[str], niceness: int = 0) -> int:
    """Run a command; return its exit code, 128 and the signal's number if one ended it."""
    library = ctypes.CDLL(None, use_errno=True)
    # Processes whose parents die become children of this one, and can be found.
    library.prctl(_PR_SET_CHILD_SUBREAPER, 1)
    # What this process ignores, the command would ignore as well: pass on from the first moment.
    child: subprocess.Popen[bytes] | None = None
    wished: list[float] = []
    early: list[int] = []

    def pass_on(number: int, _frame: FrameType | None) -> None:
        wished.append(time.monotonic())
        if child is None:
            early.append(number)
        else:
            _signal(child, number)

    for number in _SIGNALS:
        signal.signal(number, pass_on)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        # Even a killed guard takes the command's first process with it.
        preexec_fn=lambda: library.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    for missed in early:  # the command ran already, and this process had no hold on it yet
        _signal(child, missed)
    if niceness:
        give_way(child.pid, niceness)
    try:
        _wait(child, wished)
    finally:
        kill_below(os.getpid())
        code = child.wait()
    return code if code >= 0 else 128 - code


def _wait(child: "subprocess.Popen[bytes]", wished: list[float]) -> None:
    """Wait for the end of the command, or for the time of its end by force."""
    watched: list[int] = [0]
    while child.poll() is None:
        if wished and time.monotonic() - wished[0] > GRACE_S:
            return
        ready, _, _ = select.select(watched, [], [], 0.2)
        if ready and not os.read(0, 4096):
            watched = []
            wished.append(time.monotonic())
            _signal(child, signal.SIGTERM)


def _signal(child: "subprocess.Popen[bytes]", number: int) -> None:
    """Send a signal to the command's whole process group, which may have gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, number)


if __name__ == "__main__":
    os.nice(int(sys.argv[1]))
    sys.exit(guard(sys.argv[2:], int(sys.argv[1])))
