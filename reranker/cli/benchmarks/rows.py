"""The table that benchmarks are shown in."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table

from reranker.cli.output import console

if TYPE_CHECKING:
    from eval.benchmarks.row import Row


def show_rows(rows: "Iterable[Row]") -> None:
    """Print one line for each figure, with its target and whether it was reached."""
    table = Table("Measured", "Value", "Beside it", "Target", "", box=None, pad_edge=False)
    for row in rows:
        met = "[green]met[/]" if row.met else "[red]missed[/]"
        table.add_row(row.name, row.value, row.beside, row.target, met if row.target else "")
    console.print(table)
