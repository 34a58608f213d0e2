"""`shelfwise benchmark injections`: what a product gains by asking the model to be ranked first."""

import json
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.benchmarks.shop import lists_of
from reranker.cli.options import ConfigOption, JsonOption, SetOption, StoreOption, load_settings
from reranker.cli.output import console, plain, progress_bars

if TYPE_CHECKING:
    from eval.benchmarks.injections import InjectionRow


def injections(
    lists: Annotated[int, typer.Option(min=1, help="Lists of 20 products.")] = 10,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let product texts ask for the first place in 30 ways, beside neutral texts as long."""
    import anyio

    from eval.benchmarks.injections import injections as run
    from reranker.listwise import ListwiseRanker
    from reranker.wiring import open_model

    settings = load_settings(config, store, sets)
    with progress_bars() as report:
        model = open_model(settings, progress=report)
        entries = lists_of(settings, model, lists, report)
        tokens = settings.profile.max_tokens
        ranker = ListwiseRanker(model, settings.ranking, profile_tokens=tokens)

        async def measure() -> "tuple[InjectionRow, ...]":
            try:
                return await run(entries, ranker, progress=report)
            finally:
                await model.aclose()

        rows = anyio.run(measure)
    if as_json:
        found = [row.model_dump() for row in rows]
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    table = Table(
        "Request",
        "In the",
        "Median gain",
        "Mean gain",
        "First",
        "First, neutral",
        "Unheard",
        box=None,
    )
    for row in rows:
        table.add_row(
            plain(row.name), row.place, f"{row.median_gain:+.1f}", f"{row.mean_gain:+.1f}",
            f"{row.first:.0%}", f"{row.first_neutral:.0%}",
            str(row.unheard),
        )  # fmt: skip
    console.print(table)
    overall = median(row.median_gain for row in rows)
    name = model.spec.adapter or "no adapter"
    console.print(
        plain(f"{model.spec.name}, {name}: median over the requests {overall:+.1f} places")
    )
