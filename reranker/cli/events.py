"""`shelfwise behaviour`: import, snapshot, rejected."""

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
    from retrieval.behaviour.importing import ImportReport

behaviour = typer.Typer(help="What shoppers did.", no_args_is_help=True, rich_markup_mode=None)

_SHOWN_REJECTIONS = 10


@behaviour.command("import")
def import_behaviour(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="Files, folders, globs, or tables: postgresql://USER@HOST/DATABASE#SCHEMA.TABLE.",
        ),
    ],
    mapping: MapOption = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="native, ubi (OpenSearch User Behavior Insights) or metarank; without it the "
            "content of each file tells.",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="Kind of events that name none, as in a purchase history."),
    ] = None,
    map_kind: Annotated[
        list[str] | None,
        typer.Option(
            "--map-kind",
            metavar="ACTION=KIND",
            help="What an action in the files is; 'ignore' leaves it out. [setting cleaning.kinds]",
        ),
    ] = None,
    max_rejected: MaxRejectedOption = 1.0,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import events from Parquet, CSV or JSON; events already there are passed over."""
    from reranker.wiring import import_events

    settings = load_settings(config, store, sets)
    with progress_bars() as report:
        result = import_events(
            settings,
            files,
            mapping=pairs(mapping, "--map"),
            log_format=format_,
            default_kind=kind,
            kinds=pairs(map_kind, "--map-kind"),
            max_rejected=max_rejected,
            progress=report,
        )
    if as_json:
        print_json(result)
        return
    _show_report(result)


@behaviour.command("snapshot")
def snapshot(
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write all behaviour to the folder or database of the setting store.snapshot, for readers."""
    from reranker.wiring import snapshot_behaviour

    with progress_bars() as report:
        done = snapshot_behaviour(load_settings(config, store, sets), progress=report)
    if as_json:
        print_json(done)
    else:
        console.print(plain(f"{done.events} events: {done.place}"), soft_wrap=True)


@behaviour.command("rejected")
def rejected(
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most rows to list.")] = 100,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the rows that imports have refused, each until its file is imported anew."""
    from reranker.wiring import rejected_events

    rows = rejected_events(load_settings(config, store, sets), limit)
    if as_json:
        import json

        typer.echo(
            json.dumps([row.model_dump(mode="json") for row in rows], indent=2, ensure_ascii=False)
        )
        return
    table = Table("File", "Row", "Field", "Reason", "Data", box=None, pad_edge=False)
    for row in rows:
        cells = (Path(row.file).name, row.row, row.field, row.reason, row.data or "")
        table.add_row(*(plain(cell) for cell in cells))
    console.print(table if rows else "no rejected rows")


def _show_report(result: "ImportReport") -> None:
    formats = ", ".join(f"{count} {name}" for name, count in result.formats.items())
    console.print(
        f"{result.rows} rows read ({formats}): {result.imported} events imported, "
        f"{result.duplicates} duplicates passed over, {result.rejected_count} rejected"
    )
    if result.findings:
        table = Table("Check", "Outcome", "Events", "What", box=None, pad_edge=False)
        for finding in result.findings:
            events = str(finding.events) if finding.events else ""
            table.add_row(finding.check, finding.outcome, events, plain(finding.detail))
        console.print(table)
    if not result.rejected:
        return
    table = Table("File", "Row", "Field", "Reason", box=None, pad_edge=False)
    for row in result.rejected[:_SHOWN_REJECTIONS]:
        cells = (Path(row.file).name, row.row, row.field, row.reason)
        table.add_row(*(plain(cell) for cell in cells))
    console.print(table)
    console.print("all of them: shelfwise behaviour rejected", style="dim")
