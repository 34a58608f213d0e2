"""`shelfwise benchmark search`: all but the language model, at the size of a large shop."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reranker.cli.benchmarks.rows import show_rows
from reranker.cli.options import ConfigOption, JsonOption, SetOption, load_settings
from reranker.cli.output import console, print_json, progress_bars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eval.benchmarks.suite import Benchmark
    from reranker.ports import Progress
    from reranker.schema import Product
    from reranker.settings import Settings


def search(
    products: Annotated[
        int, typer.Option(min=1000, help="Products of the large shop.")
    ] = 1_000_000,
    events: Annotated[int, typer.Option(min=1000, help="Events of its shoppers.")] = 10_000_000,
    searches: Annotated[int, typer.Option(min=20, help="Searches timed.")] = 200,
    work: Annotated[
        Path | None,
        typer.Option("--work", help="Folder for several GB, used again. [default: user's cache]"),
    ] = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure embedding, approximate recall, imports, profiles, and a search beside the model.

    Real product texts (Complete Journey groceries) are multiplied to the size asked for. The first
    run builds a shop of that size. It takes about 15 minutes on two cores, 6 GB of disk, and 7 GB
    of memory.
    """
    from eval.benchmarks.suite import run_benchmark
    from eval.datasets import complete_journey
    from reranker.models.weights import cache_folder, resolve
    from reranker.wiring import build, open_model

    settings = load_settings(config, None, sets)
    folder = work or cache_folder() / "benchmark"
    with progress_bars() as report:
        model = open_model(settings, progress=report)
        data = complete_journey(cache_folder() / "datasets" / "complete-journey", progress=report)
        result = run_benchmark(
            folder,
            _products(data.products, folder, report),
            embedder=resolve(settings.retrieval.embedder, progress=report),
            model=model,
            open_shop=lambda store, one: build(_at(settings, store), model=one),
            settings=settings.retrieval,
            products=products,
            events=events,
            searches=searches,
            progress=report,
        )
    if as_json:
        print_json(result)
    else:
        _show(result)


def _at(settings: "Settings", store: Path) -> "Settings":
    from eval.benchmarks.profiles import PRIVACY

    shop = settings.store.model_copy(update={"path": store})
    return settings.model_copy(update={"store": shop, "privacy": PRIVACY})


def _products(file: Path, folder: Path, report: "Progress") -> "Sequence[Product]":
    from retrieval.catalogue import import_catalogue
    from retrieval.product_table import ProductTable

    target = folder / "groceries.arrow"
    import_catalogue(
        [str(file)], target, progress=lambda n, m: report("reading products", n, m or 0)
    )
    table = ProductTable.open(target)
    return table.products(range(len(table)))


def _show(result: "Benchmark") -> None:
    show_rows(result.rows())
    console.print(f"{result.processors} processors, {result.processor}", style="dim")
