"""`shelfwise benchmark behaviour`: the import of events and the making of profiles."""

from pathlib import Path
from typing import Annotated

import typer

from reranker.cli.benchmarks.rows import show_rows
from reranker.cli.options import JsonOption
from reranker.cli.output import print_json, progress_bars


def behaviour(
    events: Annotated[int, typer.Option(min=1000, help="Events of a year.")] = 10_000_000,
    shoppers: Annotated[int, typer.Option(min=10, help="Shoppers who cause them.")] = 100_000,
    products: Annotated[int, typer.Option(min=100, help="Products of the shop.")] = 100_000,
    profiles: Annotated[int, typer.Option(min=20, help="Single profiles timed.")] = 500,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Folder for 2 GB, used again. [default: user's cache]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the import of events, single profiles, and the profiles of all shoppers.

    The events are generated, and imported from a Parquet file; no model is loaded. Memory is that
    of the whole command.
    """
    from eval.benchmarks.profiles import benchmark_profiles
    from reranker.models.weights import cache_folder

    folder = (work or cache_folder() / "benchmark") / f"behaviour-{events}-{shoppers}-{products}"
    with progress_bars() as report:
        result = benchmark_profiles(
            folder,
            events=events,
            shoppers=shoppers,
            products=products,
            profiles=profiles,
            everyone=True,
            progress=report,
        )
    if as_json:
        print_json(result)
    else:
        show_rows(result.rows())
