"""`shelfwise benchmark estimators`: evaluation from logs, tested where the truth is known."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.options import JsonOption
from reranker.cli.output import console, print_json, progress_bars

if TYPE_CHECKING:
    from eval.benchmarks.estimators import EstimatorBenchmark, EstimatorRow
    from eval.statistics.estimates import Estimate

_LOWEST, _HIGHEST = 0.93, 0.97


def estimators(
    repetitions: Annotated[
        int, typer.Option("--repetitions", min=20, help="Simulated logs of each scenario.")
    ] = 1000,
    sessions: Annotated[
        int, typer.Option("--sessions", min=1000, help="Lists to recover position bias from.")
    ] = 100_000,
    seed: Annotated[int, typer.Option("--seed", help="Of the simulation.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Test the estimators of `shelfwise evaluate` on simulated shops of known truth.

    Prints each estimator's bias and how often its 95 % interval holds the truth, how well position
    bias is recovered from simulated sessions, and the position bias of real logs (the small Open
    Bandit set, fetched once). Takes 70 seconds on one core.
    """
    from eval.benchmarks.estimators import run_estimator_benchmark
    from reranker.models.weights import cache_folder

    with progress_bars() as report:
        result = run_estimator_benchmark(
            cache_folder() / "datasets" / "open-bandit",
            repetitions=repetitions,
            sessions=sessions,
            seed=seed,
            progress=report,
        )
    if as_json:
        print_json(result)
    else:
        show(result)


def show(result: "EstimatorBenchmark") -> None:
    """Print the tables."""
    table = Table(
        "Estimator", "Truth", "Bias", "Spread", "Coverage", "Effective n", "",
        box=None, pad_edge=False,
    )  # fmt: skip
    scenario, notes = "", list(dict.fromkeys(row.doubt for row in result.estimators if row.doubt))
    for row in result.estimators:
        if row.scenario != scenario:
            scenario = row.scenario
            table.add_row(f"[bold]{scenario}[/]")
        table.add_row(
            row.estimator,
            f"{row.truth:.4f}",
            f"{row.bias:+.4f}",
            f"{row.spread:.4f}",
            f"{row.coverage:.3f}",
            f"{row.effective_n:.0f}",
            _remark(row, notes),
        )
    console.print(f"Clicks a list, estimated from {_sizes(result)} lists", style="dim")
    console.print(table)
    for number, note in enumerate(notes, 1):
        console.print(f"({number}) {note}", style="dim")
    console.print()
    curves = Table(
        "Position bias", "Method", "Sessions", "Worst error", "Widest interval", "Covered",
        box=None, pad_edge=False,
    )  # fmt: skip
    for curve in result.curves:
        curves.add_row(
            curve.log,
            curve.method,
            f"{curve.sessions:,}",
            f"{curve.worst:.4f}",
            f"± {curve.half_width:.4f}",
            f"{curve.covered} of {curve.places}",
        )
    console.print(curves)
    real = Table("Real log", "Method", "Clicks", "Places 1, 2, 3", box=None, pad_edge=False)
    for log in result.real:
        places = ", ".join(_interval(estimate) for estimate in log.bias.examination)
        real.add_row(log.log, log.bias.method, str(log.clicks), places)
    console.print()
    console.print(real)


def _remark(row: "EstimatorRow", notes: list[str]) -> str:
    refused = f", {row.refused} refused" if row.refused else ""
    if row.doubt:
        return f"({notes.index(row.doubt) + 1}){refused}"
    met = _LOWEST <= row.coverage <= _HIGHEST
    return ("[green]met[/]" if met else "[red]missed[/]") + refused


def _interval(estimate: "Estimate") -> str:
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _sizes(result: "EstimatorBenchmark") -> str:
    return " or ".join(f"{size:,}" for size in sorted({row.requests for row in result.estimators}))
