"""`shelfwise benchmark llm` and `equality`: a vLLM server beside its peers, its limit, its twin."""

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.benchmarks.shop import (
    adapter_beside,
    lists_of,
    merged_into_base,
    peers_python,
    served_by,
    server_of,
)
from reranker.cli.options import ConfigOption, JsonOption, SetOption, StoreOption, load_settings
from reranker.cli.output import console, print_json, progress_bars

if TYPE_CHECKING:
    from eval.benchmarks.equality import Equality
    from eval.benchmarks.llm import LLMBenchmark

_PATIENCE_S = 600.0
_ADAPTER = "adapter-beside-its-base"


def llm(
    lists: Annotated[
        int, typer.Option(min=8, help="Lists of 20 products ranked by each way.")
    ] = 64,
    concurrency: Annotated[int, typer.Option(min=1, help="Lists under way at a time.")] = 8,
    peers: Annotated[
        Path | None,
        typer.Option("--peers", help="Python of the peers. [default: .venv-peers/bin/python]"),
    ] = None,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Rank the same lists through one vLLM server by every readout and by other libraries.

    Starts a server of the settings' model. The lists are searches of the store, for which the
    demo's will do. Beside them: the share of the engine's bare prefill that our path reaches, and
    what a shopper's second search gains from the prefix cache.
    """
    import anyio

    from eval.benchmarks.llm import measure
    from reranker.models.vllm.client import VLLMModel
    from reranker.models.weights import resolve

    settings = load_settings(config, store, sets)
    python = peers_python(peers)
    with progress_bars() as report, server_of(settings, report) as server:
        served = served_by(settings, server.url)
        entries = lists_of(served, VLLMModel.load(served.model, served.server), lists, report)

        async def run() -> "LLMBenchmark":
            return await measure(
                entries,
                lambda: VLLMModel.load(served.model, served.server),
                url=server.url,
                folder=resolve(settings.model.name),
                settings=settings.ranking,
                peers_python=python,
                concurrency=concurrency,
                progress=report,
            )

        result = anyio.run(run)
    if as_json:
        print_json(result)
    else:
        _show(result)


def equality(
    lists: Annotated[int, typer.Option(min=1, help="Lists of 20 products.")] = 200,
    lora: Annotated[
        bool, typer.Option("--lora", help="Serve the adapter beside its base, not merged.")
    ] = False,
    store: StoreOption = None,
    config: ConfigOption = None,
    sets: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare the embedded model with vLLM, both in float32, on the same lists and readouts.

    A model with an adapter (model.adapter) is compared with the merged one, or with the one that
    vLLM loads as LoRA (for the readout labels), in the readout that it was tuned for;
    model.adapter=none compares the model as it is.
    """
    import anyio

    from eval.benchmarks.equality import compare
    from reranker.models.embedded import EmbeddedModel
    from reranker.models.vllm.client import VLLMModel

    settings = load_settings(config, store, sets)
    model = settings.model.model_copy(update={"dtype": "float32"})
    beside = {_ADAPTER: adapter_beside(settings)} if lora else {}
    to_serve = nullcontext(settings) if lora else merged_into_base(settings, dtype="float32")
    with progress_bars() as report, ExitStack() as stack:
        # First, for it knows whether the adapter was made for this model and these templates.
        embedded = EmbeddedModel.load(model, progress=report)
        whole = stack.enter_context(to_serve)
        server = stack.enter_context(server_of(whole, report, dtype="float32", adapters=beside))
        served = served_by(whole, server.url, adapter=_ADAPTER if lora else None)
        entries = lists_of(served, embedded, lists, report)

        async def run() -> "Equality":
            # Nobody waits: what else the machine does is not to end the comparison.
            patient = served.server.model_copy(update={"timeout_s": _PATIENCE_S})
            other = VLLMModel.load(served.model, patient)
            return await compare(entries, embedded, other, progress=report)

        result = anyio.run(run)
    if as_json:
        print_json(result)
        return
    table = Table("Readout", "Lists", "Same order", "Ties apart", "Largest", "Mean", box=None)
    for row in result.readouts:
        table.add_row(
            row.readout,
            str(row.lists),
            str(row.same_order),
            str(row.ties),
            f"{row.largest_difference:.5f}",
            f"{row.mean_difference:.6f}",
        )
    console.print(table)
    console.print("differences are those of log-probabilities", style="dim")


def _show(result: "LLMBenchmark") -> None:
    from eval.benchmarks.llm import BARE

    columns = ("At a time", "Way", "Lists a second", f"{BARE} is", "labels is")
    table = Table(*columns, "Tokens read", "Written", "Whole, by the model", box=None)
    known = {(rate.concurrency, rate.name): rate.per_second for rate in result.rates}
    for rate in result.rates:
        raised = "".join(f", {count} {name}" for name, count in rate.errors.items())
        said = "" if rate.named is None else f" (replies name {rate.named:.0%} of a list)"
        table.add_row(
            str(rate.concurrency),
            rate.name,
            f"{rate.per_second:.2f}",
            f"{known[rate.concurrency, BARE] / rate.per_second:.1f} times as fast",
            f"{known[rate.concurrency, 'labels'] / rate.per_second:.1f} times",
            f"{rate.read_tokens:.0f}",
            f"{rate.written_tokens:.0f}",
            f"{rate.complete} of {rate.lists}{raised}{said}",
        )
    console.print(table)
    cache, prefill = result.prefix_cache, result.prefill
    console.print(
        f"\n{result.model}, {prefill.list_tokens:.0f} tokens a list\n"
        f"share of bare prefill ({prefill.tokens_per_second:,.0f} tokens a second): "
        f"{prefill.share:.2f}\n"
        f"a shopper's first search {cache.first_ms:.0f} ms; the second, by another query, "
        f"{cache.second_ms:.0f} ms with {cache.hit_rate:.0%} of its tokens kept; the same again "
        f"{cache.repeated_ms:.0f} ms with {cache.repeated_hit_rate:.0%}",
        markup=False,
    )
