"""`shelfwise interest`: learn from all shoppers, and look at what was learnt."""

from datetime import UTC
from typing import TYPE_CHECKING

import typer
from rich.table import Table

from reranker.cli.options import (
    AtOption,
    ConfigOption,
    JsonOption,
    SetOption,
    StoreOption,
    load_settings,
    moment,
)
from reranker.cli.output import console, print_json, progress_bars

if TYPE_CHECKING:
    from reranker.learned_interest.stored import InterestManifest

interest = typer.Typer(
    help="What all shoppers' purchases tell of one.", no_args_is_help=True, rich_markup_mode=None
)


@interest.command("learn")
def learn(
    at: AtOption = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Learn from the store's purchases; searches from that moment on use it at once.

    Counted are what sells, what is bought together and one after the other, and products alike; how
    much each counts is fitted on purchases held out. Run it after imports, daily say.
    """
    from reranker import wiring

    settings = load_settings(config, store, sets)
    with progress_bars() as report:
        manifest = wiring.learn_interest(settings, moment(at), progress=report)
    _show(manifest, as_json=as_json)


@interest.command("show")
def show(
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is in use: from what it was learnt, and how much each signal counts."""
    from reranker import wiring
    from reranker.errors import DataError

    settings = load_settings(config, store, sets)
    stored = wiring.stored_interest(settings)
    name = stored.current
    if name is None:
        raise DataError(f"{stored.folder}: nothing has been learnt: run shelfwise interest learn")
    _show(stored.manifest(name), as_json=as_json)


def _show(manifest: "InterestManifest", *, as_json: bool) -> None:
    if as_json:
        print_json(manifest)
        return
    as_of = manifest.as_of.astimezone(UTC)
    console.print(
        f"learnt from {manifest.purchases:,} purchases of {manifest.shoppers:,} shoppers before "
        f"{as_of:%Y-%m-%d %H:%M} UTC: {manifest.products:,} products, weights fitted on "
        f"{manifest.examples:,} purchases held out",
        soft_wrap=True,
    )
    table = Table("Signal", "Weight", box=None, pad_edge=False)
    table.columns[1].justify = "right"
    for name, weight in sorted(manifest.weights.items(), key=lambda pair: -abs(pair[1])):
        table.add_row(name, f"{weight:+.2f}")
    console.print(table)
    console.print("weights are log-odds for one standard deviation of the signal", style="dim")
