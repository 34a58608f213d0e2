"""What commands print: results on standard output, progress and errors on standard error."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

import typer
from rich.console import Console

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.progress import TaskID

console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)


class Report(Protocol):
    """Told of progress: the stage, the amount done, and the whole amount (0 if not known)."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """Show it."""
        ...


@contextmanager
def progress_bars() -> Iterator[Report]:
    """Show one bar for each stage that is reported, on standard error."""
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int, /) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None)
            bars.update(tasks[stage], completed=done, total=total or None)

        yield report


def print_json(value: "BaseModel") -> None:
    """Print a value as JSON on standard output."""
    typer.echo(value.model_dump_json(indent=2))
