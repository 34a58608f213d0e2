"""`shelfwise benchmark strategies`: what lists of many lengths cost."""

from typing import Annotated

import typer
from rich.table import Table

from reranker.cli.options import JsonOption
from reranker.cli.output import console, print_json


def strategies(
    window: Annotated[int, typer.Option(min=2, help="Candidates in a window.")] = 20,
    step: Annotated[int, typer.Option(min=1, help="By which the sliding window moves.")] = 10,
    top_k: Annotated[int, typer.Option("-k", min=1, help="Places whose order matters.")] = 10,
    as_json: JsonOption = False,
) -> None:
    """Count the windows and rounds of each strategy. Needs no model, store or server."""
    from eval.benchmarks.strategies import strategy_costs
    from reranker.errors import ConfigError

    if step >= window:
        raise ConfigError(f"--step {step} has to be less than --window {window}")
    result = strategy_costs(window=window, step=step, top_k=top_k)
    if as_json:
        print_json(result)
        return
    table = Table(
        "Candidates", "Strategy", "Recall order", "Windows", "at most", "Rounds",
        "All shown", f"First {top_k} right", box=None, pad_edge=False,
    )  # fmt: skip
    for cost in sorted(result.costs, key=lambda cost: cost.size):
        table.add_row(
            str(cost.size),
            cost.strategy,
            cost.recall,
            f"{cost.windows:.1f}",
            str(cost.most_windows),
            f"{cost.rounds:.1f}",
            "yes" if cost.shown else "no",
            f"{cost.right:.0%}",
        )
    console.print(table)
