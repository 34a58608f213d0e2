"""What the benchmarks of the language model rank: searches of the store at hand."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.cli.output import errors
from reranker.errors import ConfigError, DataError

if TYPE_CHECKING:
    from eval.benchmarks.ranking_lists import RankingList
    from reranker.models.vllm.process import RunningServer
    from reranker.ports import LanguageModel, Progress
    from reranker.settings import Settings

_SHOPPERS = 500
_NOT_BESIDE = (
    "leave out --lora, and it is compared merged, or set model.adapter to a LoRA adapter that was "
    "tuned with ranking.readout = labels"
)
_NO_PEERS = "no peers: make peers sets up their environment (.venv-peers)"


def lists_of(
    settings: "Settings", model: "LanguageModel", count: int, report: "Progress"
) -> "tuple[RankingList, ...]":
    """Return lists of 20 candidates, recalled by product types for the busiest shoppers.

    They are searched for right after the last event, or after the interest of all shoppers was
    learnt: from then on cards say what sells.

    Raises:
        DataError: the store has no behaviour, or too few products.
    """
    from eval.benchmarks.ranking_lists import ranking_lists
    from eval.benchmarks.suite import product_type_queries
    from reranker.wiring import build, catalogue_file, open_behaviour, stored_interest
    from retrieval.behaviour import FILE_NAME
    from retrieval.product_table import ProductTable

    folder = settings.store.path
    if not (folder / FILE_NAME).exists():
        raise DataError(f"{folder} has no behaviour: run make demo, or name a store by --store")
    table = ProductTable.open(catalogue_file(settings))
    queries = product_type_queries(table.products(range(len(table))))
    with open_behaviour(settings, read_only=True) as behaviour:
        users, times = behaviour.busiest(_SHOPPERS), behaviour.time_range()
    if times is None:
        raise DataError(f"{folder} has no events: import some, or run make demo")
    stored = stored_interest(settings)
    learnt = [stored.manifest(name).as_of] if (name := stored.current) else []
    report("recalling candidates", 0, 1)
    with build(settings, model=model) as shelf:
        lists = ranking_lists(shelf, queries, users, at=max([times[1], *learnt]), count=count)
    report("recalling candidates", 1, 1)
    return lists


@contextmanager
def merged_into_base(settings: "Settings", *, dtype: str = "auto") -> "Iterator[Settings]":
    """Name a folder with the settings' adapter merged into their model, where there is one."""
    from tempfile import TemporaryDirectory

    from reranker.models.adapter import adapter_of
    from reranker.models.merging import write_merged
    from reranker.models.weights import resolve

    adapter, model = adapter_of(settings.model), settings.model
    if adapter is None:
        yield settings
        return
    with TemporaryDirectory() as folder:
        target = Path(folder) / "merged"
        write_merged(resolve(model.name), adapter, target, name=model.name, dtype=dtype)
        merged = model.model_copy(update={"name": str(target), "adapter": "none"})
        yield settings.model_copy(update={"model": merged})


def adapter_beside(settings: "Settings") -> Path:
    """Return the settings' adapter, for serving it beside their model.

    Raises:
        ConfigError: they name none, or one that vLLM cannot serve but merged.
    """
    from reranker.models.adapter import adapter_of
    from reranker.models.vllm.beside import rank_beside

    adapter = adapter_of(settings.model)
    try:
        if adapter is None:
            raise ConfigError("model.adapter names none")
        rank_beside(adapter)
    except ConfigError as error:
        raise ConfigError(f"--lora: {error}; {_NOT_BESIDE}") from error
    return adapter


@contextmanager
def server_of(
    settings: "Settings",
    report: "Progress",
    *,
    dtype: str = "auto",
    adapters: "Mapping[str, Path] | None" = None,
) -> "Iterator[RunningServer]":
    """Run a vLLM server of the settings' model, and of adapters by name, on a free port."""
    from reranker.models.vllm.launch import ServeOptions
    from reranker.models.vllm.process import start_server

    named = {"model": settings.model.name, "adapters": adapters or {}}
    options = ServeOptions.model_validate({**named, "port": 0, "dtype": dtype})
    with start_server(options, progress=report) as server:
        yield server


def served_by(settings: "Settings", url: str, *, adapter: str | None = None) -> "Settings":
    """Return the settings with one server in place of those that they name.

    Args:
        settings: whose model it serves.
        url: of the server.
        adapter: that it is asked for by name; None asks for the model alone.
    """
    own = {"urls": (url,), "served_name": None, "adapter": adapter}
    return settings.model_copy(update={"server": settings.server.model_copy(update=own)})


def peers_python(given: "Path | None") -> "Path | None":
    """Return the interpreter of the peers' environment; None, and a word, where there is none.

    Raises:
        ConfigError: the one that was given does not exist.
    """
    python = given or Path(".venv-peers/bin/python")
    if python.exists():
        return python
    if given is not None:
        raise ConfigError(f"--peers {given}: there is no such file; {_NO_PEERS}")
    errors.print(_NO_PEERS, markup=False)
    return None
