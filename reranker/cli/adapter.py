"""`shelfwise adapter`: what tuning has made, how well it ranks, and how vLLM gets it."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.options import (
    ConfigOption,
    JsonOption,
    SetOption,
    check_output,
    load_settings,
)
from reranker.cli.output import console, plain, print_json, progress_bars
from reranker.cli.tune import files_in, show_card
from reranker.errors import ConfigError
from retrieval.files import replacing

if TYPE_CHECKING:
    from reranker.training.served import ServedMeasures

adapter = typer.Typer(help="Tuned adapters.", no_args_is_help=True, rich_markup_mode=None)

UrlArgument = Annotated[str, typer.Argument(metavar="URL", help="Base URL of the server.")]
NameArgument = Annotated[str, typer.Argument(metavar="ADAPTER", help="Folder or name.")]


@adapter.command("list")
def list_adapters(as_json: JsonOption = False) -> None:
    """List the adapters that can be called by their name."""
    import json

    from reranker.models.adapter import known_adapters, read_card

    found = [(folder, read_card(folder)) for folder in known_adapters()]
    if as_json:
        rows = [{**card.model_dump(mode="json"), "folder": str(folder)} for folder, card in found]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    if not found:
        console.print("no adapter is known by name; shelfwise tune makes one")
        return
    table = Table("Name", "Base model", "Readout", "nDCG@10", "Folder", box=None, pad_edge=False)
    for folder, card in found:
        measured = f"{card.validation.get('nDCG@10', 0):.3f}"
        cells = (folder.name, card.base.name, card.readout, measured, folder)
        table.add_row(*(plain(cell) for cell in cells))
    console.print(table)


@adapter.command("show")
def show(name: NameArgument, as_json: JsonOption = False) -> None:
    """Show what an adapter was made for, and what it was tuned on."""
    import json

    from reranker.models.adapter import find_adapter, read_card, read_data_card

    folder = find_adapter(name)
    card, data = read_card(folder), read_data_card(folder)
    if as_json:
        both = {**card.model_dump(mode="json"), "data": data.model_dump(mode="json")}
        typer.echo(json.dumps(both, indent=2, ensure_ascii=False))
        return
    show_card(card)
    table = Table(
        "Source", "Purchases", "Shoppers", "Products", "Times", "SHA-256", box=None, pad_edge=False
    )
    for source in data.sources:
        times = f"{source.first:%Y-%m-%d} to {source.last:%Y-%m-%d}" if source.first else "none"
        counts = (source.purchases, source.shoppers, source.products)
        cells = (source.name, *(f"{count:,}" for count in counts), times, source.sha256[:12])
        table.add_row(*(plain(cell) for cell in cells))
    console.print(table)


@adapter.command("evaluate")
def evaluate(
    name: NameArgument,
    folder: Annotated[Path, typer.Argument(help="Folder of purchases, as for shelfwise tune.")],
    lists: Annotated[int, typer.Option(min=1, help="Held-back lists to judge.")] = 1000,
    shuffles: Annotated[
        int,
        typer.Option(
            min=1,
            help="Orders in which each is shown; 1 as searches do, more tell what place matters.",
        ),
    ] = 2,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank held-back lists by an adapter, asked as searches ask it, and measure the order.

    Held back are the shoppers that shelfwise tune holds back with the same training.seed and
    training.validation_shoppers.
    """
    from reranker.training.tuning import evaluate as run

    settings = load_settings(config, None, [*(sets or []), f"model.adapter={name}"])
    with progress_bars() as report:
        found = run(settings, files_in(folder), lists=lists, shuffles=shuffles, progress=report)
    if as_json:
        print_json(found)
        return
    _show_measures(found)


@adapter.command("curve")
def curve(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of trainings.")],
    picture: Annotated[Path | None, typer.Option("--svg", help="Draw the curves there.")] = None,
    measure: Annotated[str, typer.Option(help="nDCG@1, nDCG@5 or nDCG@10.")] = "nDCG@10",
    as_json: JsonOption = False,
) -> None:
    """Show how well trainings ranked their held-back lists, by the lists that they had seen."""
    import json

    from reranker.training.curves import draw, read_curve

    check_output(picture, "--svg")
    curves = {name: read_curve(run, measure) for name, run in _told_apart(runs).items()}
    if picture is not None:
        with replacing(picture) as temporary:
            temporary.write_text(draw(curves, measure), encoding="utf-8")
    if as_json:
        rows = {n: [p.model_dump() for p in points] for n, points in curves.items()}
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table("Lists seen", *map(plain, curves), box=None, pad_edge=False)
    for seen in sorted({point.seen for points in curves.values() for point in points}):
        values = [{p.seen: f"{p.value:.3f}" for p in points} for points in curves.values()]
        table.add_row(f"{seen:,}", *(value.get(seen, "") for value in values))
    console.print(table)
    if picture is not None:
        console.print(plain(f"drawn in {picture}"), soft_wrap=True)


def _told_apart(runs: list[Path]) -> dict[str, Path]:
    """Return runs by their folders' names, or by their paths where names are the same."""
    names = Counter(run.resolve().name for run in runs)
    paths = ((run, run.resolve()) for run in runs)
    return {path.name if names[path.name] == 1 else str(run): path for run, path in paths}


@adapter.command("merge")
def merge(
    name: NameArgument,
    out: Annotated[Path, typer.Option("--out", help="New folder for the merged model.")],
    dtype: Annotated[str, typer.Option(help="auto, bfloat16 or float32.")] = "bfloat16",
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Merge an adapter into its base model and write it as a folder that vLLM serves."""
    from reranker.models.adapter import find_adapter
    from reranker.models.merging import write_merged
    from reranker.models.weights import resolve

    settings = load_settings(config, None, sets)
    if dtype not in {"auto", "bfloat16", "float32"}:
        raise ConfigError(f"--dtype {dtype}: must be auto, bfloat16 or float32")
    with progress_bars() as report:
        base = resolve(settings.model.name, progress=report)
        card = write_merged(base, find_adapter(name), out, name=settings.model.name, dtype=dtype)
    if as_json:
        print_json(card)
        return
    console.print(plain(f"{card.identity} merged into {card.base.name}: {out}"), soft_wrap=True)
    console.print(plain(f"next: shelfwise llm serve {out}"), style="dim", soft_wrap=True)


@adapter.command("load")
def load(
    name: NameArgument,
    url: UrlArgument,
    called: Annotated[
        str | None, typer.Option("--name", help="By which clients ask for it. [default: its own]")
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load an adapter into a vLLM server that runs, in place of one of the same name.

    The server must have been started with shelfwise llm serve --lora, on this machine or with the
    adapter's folder under the same path. No request is lost.
    """
    from reranker.models.adapter import find_adapter
    from reranker.models.vllm.adapters import load_adapter

    settings = load_settings(config, None, sets)
    done = load_adapter(
        url, find_adapter(name), settings.server, base=settings.model.name, name=called
    )
    if as_json:
        print_json(done)
        return
    console.print(plain(f"{done.identity} {done.done} at {done.url}"), soft_wrap=True)
    ask = f"--set server.urls={done.url} --set server.adapter={done.name}"
    console.print(plain(f"next: shelfwise search ... {ask}"), style="dim", soft_wrap=True)


@adapter.command("unload")
def unload(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As clients ask for it.")],
    url: UrlArgument,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an adapter out of a vLLM server that runs."""
    from reranker.models.vllm.adapters import unload_adapter

    settings = load_settings(config, None, sets)
    done = unload_adapter(url, name, settings.server)
    if as_json:
        print_json(done)
        return
    console.print(plain(f"{done.name} unloaded at {done.url}"), soft_wrap=True)


def _show_measures(found: "ServedMeasures") -> None:
    for name, value in found.measures.items():
        console.print(f"{name:8} {value:.4f}" if value <= 1 else f"{name:8} {value:.0f}")
    if found.instability is not None:
        console.print(f"instability {found.instability:.2f} ranks between two orders")
    shown = " ".join(map(str, found.first_slots))
    console.print(f"ranked first, by the slot in the prompt: {shown}", soft_wrap=True)
