"""What commands print: results on standard output, progress and errors on standard error."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from reranker.ports import Progress

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)
_LOG_SECONDS = 10.0


def plain(text: object) -> str:
    """Return what a shop or a user wrote so that a terminal shows it and nothing else.

    Square brackets are no markup, and control characters cannot drive the terminal.
    """
    return escape("".join(c if c.isprintable() or c == "\n" else " " for c in str(text)))


@contextmanager
def progress_bars() -> "Iterator[Progress]":
    """Show each stage that is reported: as a bar in a terminal, else as a line now and then."""
    if not errors.is_terminal:
        yield _Lines()
        return
    with _bars() as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int, /) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield report


def print_json(value: "BaseModel") -> None:
    """Print a value as JSON on standard output."""
    typer.echo(value.model_dump_json(indent=2))


class _Lines:
    """Progress for a log: the first and last word of a stage, and one every ten seconds."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, int]] = {}

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        now = time.monotonic()
        printed, before = self._last.get(stage, (-_LOG_SECONDS, -1))
        finished = done == total and total > 0
        if done == before or not (finished or now - printed >= _LOG_SECONDS):
            return
        self._last[stage] = (now, done)
        line = f"{stage}: {done:,} of {total:,}" if total else f"{stage}: {done:,}"
        errors.print(line, markup=False, soft_wrap=True)


def _bars() -> "Bars":
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=errors,
    )
