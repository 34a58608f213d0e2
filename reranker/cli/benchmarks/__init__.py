"""`shelfwise benchmark`: this machine's figures, each beside its peer or its limit."""

import typer

from reranker.cli.benchmarks import (
    behaviour,
    estimators,
    faults,
    injections,
    llm,
    parsers,
    search,
    strategies,
    training,
)

benchmark = typer.Typer(
    help="Measure this machine, each figure beside its peer or its limit.", no_args_is_help=True
)
benchmark.command("search")(search.search)
benchmark.command("behaviour")(behaviour.behaviour)
benchmark.command("llm")(llm.llm)
benchmark.command("equality")(llm.equality)
benchmark.command("faults")(faults.faults)
benchmark.command("parsers")(parsers.parsers)
benchmark.command("strategies")(strategies.strategies)
benchmark.command("estimators")(estimators.estimators)
benchmark.command("injections")(injections.injections)
benchmark.command("training")(training.training)
