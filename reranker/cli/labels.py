"""`shelfwise labels build`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.options import (
    AtOption,
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    check_output,
    load_settings,
    moment,
)
from reranker.cli.output import console, plain, print_json, progress_bars
from reranker.errors import ConfigError

if TYPE_CHECKING:
    from reranker.settings import Purpose
    from retrieval.labels import LabelReport

labels = typer.Typer(
    help="What was shown, graded by what shoppers did.", no_args_is_help=True, rich_markup_mode=None
)
_GRADES = {
    0: "shown only, or sent back",
    1: "clicked, or looked at for long",
    2: "favourite or cart",
    3: "bought",
}


@labels.command("build")
def build(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A .parquet file.")],
    at: AtOption = None,
    purpose: Annotated[
        str, typer.Option("--purpose", help="That shoppers must consent to: training or analytics.")
    ] = "training",
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write the lists that were shown, every product graded by what led from it to where.

    With --as-of nothing at that moment or later has any influence.
    """
    from reranker.wiring import build_labels

    if out.suffix != ".parquet":
        raise ConfigError(f"--out {out}: labels are written to .parquet files")
    check_output(out, "--out")
    settings = load_settings(config, store, sets)
    with progress_bars() as report:
        result = build_labels(settings, out, moment(at), purpose=_purpose(purpose), progress=report)
    if as_json:
        print_json(result)
    else:
        _show(result, out)


def _purpose(name: str) -> "Purpose":
    if name == "training":
        return "training"
    if name == "analytics":
        return "analytics"
    raise ConfigError(f"--purpose {name}: must be training or analytics")


def _show(result: "LabelReport", out: Path) -> None:
    console.print(
        plain(
            f"{result.lists} lists with {result.items} products, before "
            f"{result.as_of:%Y-%m-%d %H:%M %Z}, written to {out}"
        ),
        soft_wrap=True,
    )
    table = Table("Grade", "Products", "Meaning", box=None, pad_edge=False)
    for grade, count in result.grades.items():
        table.add_row(str(grade), str(count), _GRADES[grade])
    console.print(table)
    ways = Table("Deed", "By request", "By query", "By touch", "By product", "To no list",
                 box=None, pad_edge=False)  # fmt: skip
    for kind in ("view", "click", "favourite", "cart", "purchase"):
        found = result.attributed.get(kind, {})
        counts = [found.get(way, 0) for way in ("request", "query", "touch", "product")]
        counts.append(result.unattributed.get(kind, 0))
        if any(counts):
            ways.add_row(kind, *map(str, counts))
    console.print(ways)
    console.print(
        f"{result.sessions} sessions; {result.viewed_only} products viewed without a click; "
        f"{result.returned} purchases sent back; left out: {result.unsettled} lists too young, "
        f"{result.without_position} products without a position",
        style="dim",
    )
