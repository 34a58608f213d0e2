"""`shelfwise catalogue import` and `shelfwise index build`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.options import (
    ConfigOption,
    JsonOption,
    MapOption,
    MaxRejectedOption,
    SetOption,
    StoreOption,
    load_settings,
    pairs,
)
from reranker.cli.output import console, plain, print_json, progress_bars

if TYPE_CHECKING:
    from retrieval.imports import RejectedRow

catalogue = typer.Typer(help="The shop's products.", no_args_is_help=True, rich_markup_mode=None)
index = typer.Typer(help="The recall index.", no_args_is_help=True, rich_markup_mode=None)

Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, folders or globs.")]
_SHOWN_REJECTIONS = 10


@catalogue.command("import")
def import_products(
    files: Files,
    mapping: MapOption = None,
    attribute: Annotated[
        list[str] | None,
        typer.Option("--attribute", metavar="COLUMN", help="Keep a column as an attribute."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Products not in the files leave the catalogue.")
    ] = False,
    max_rejected: MaxRejectedOption = 1.0,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import products from CSV, Parquet or JSONL; a product already there is updated."""
    from reranker import wiring

    settings = load_settings(config, store, sets)
    with progress_bars() as report:
        result = wiring.import_products(
            settings,
            files,
            mapping=pairs(mapping, "--map"),
            attributes=attribute or [],
            replace=replace,
            max_rejected=max_rejected,
            progress=report,
        )
    if as_json:
        print_json(result)
        return
    console.print(
        f"{result.rows} rows read: {result.added} products added, {result.changed} changed, "
        f"{result.unchanged} unchanged, {result.deleted} deleted, "
        f"{result.rejected_count} rows rejected"
    )
    if result.ignored_columns:
        unused = ", ".join(result.ignored_columns)
        console.print(plain(f"columns not used: {unused}"), style="dim")
    _show_rejected(result.rejected, result.rejected_count, settings.store.path / "catalogue")
    console.print("next: shelfwise index build", style="dim")


@index.command("build")
def build_index(
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the index in line with the catalogue; only changed products are embedded."""
    from reranker.wiring import index_catalogue

    settings = load_settings(config, store, sets)
    with progress_bars() as report:
        result = index_catalogue(settings, progress=report)
    if as_json:
        print_json(result)
        return
    if result.up_to_date:
        console.print(f"the index is up to date: {result.products} products")
        return
    console.print(
        f"{result.products} products indexed in {result.seconds:.1f} s: {result.added} added, "
        f"{result.changed} changed, {result.removed} removed; {result.embedded} texts embedded, "
        f"{result.reused} taken from the cache; vector index: {result.kind}"
    )


def _show_rejected(rows: "tuple[RejectedRow, ...]", count: int, folder: Path) -> None:
    if not rows:
        return
    table = Table("File", "Row", "Field", "Reason", box=None, pad_edge=False)
    for row in rows[:_SHOWN_REJECTIONS]:
        cells = (Path(row.file).name, row.row, row.field, row.reason)
        table.add_row(*(plain(cell) for cell in cells))
    console.print(table)
    if count > _SHOWN_REJECTIONS:
        console.print(f"... and {count - _SHOWN_REJECTIONS} more")
    console.print(plain(f"what was wrong with each row is kept in {folder}"), style="dim")
