"""`shelfwise benchmark parsers`: malformed replies, read by us and by other libraries."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from reranker.cli.benchmarks.shop import peers_python
from reranker.cli.options import JsonOption
from reranker.cli.output import console, plain, print_json, progress_bars

if TYPE_CHECKING:
    from eval.benchmarks.parsers import ParserBenchmark, ParserScore


def parsers(
    count: Annotated[
        int, typer.Option("--count", min=100, help="Malformed replies to each parser.")
    ] = 10_000,
    seed: Annotated[int, typer.Option("--seed", help="Of the replies.")] = 0,
    peers: Annotated[
        Path | None,
        typer.Option("--peers", help="Python of the peers. [default: .venv-peers/bin/python]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Feed malformed model replies to Shelfwise's parser and to those of other libraries.

    Each library's own code reads the same malformations of the form that it asks for. Needs no
    model and no store; takes about a minute.
    """
    from eval.benchmarks.parsers import run_parser_benchmark

    python = peers_python(peers)
    with progress_bars() as report:
        result = run_parser_benchmark(count, python, seed=seed, progress=report)
    if as_json:
        print_json(result)
    else:
        _show(result)


def _show(result: "ParserBenchmark") -> None:
    table = Table(
        "Parser", "Asks for", "Well-formed read", "Recovered", "Complete", "or raised",
        "Raised", "Refused", "Invented", box=None, pad_edge=False,
    )  # fmt: skip
    for score in result.scores:
        table.add_row(*_row(score))
    console.print(table)
    console.print(
        f"{result.replies:,} malformed replies of {result.kinds} kinds to each parser. Recovered: "
        "the order that a careful reader finds; Complete: every product once, and the same where "
        "an exception counts as the order shown; Raised: an exception although there was a "
        "ranking. Of replies without any ranking: Refused by an exception (Shelfwise's caller "
        "then keeps the order shown, and says so), Invented an order.",
        style="dim",
    )


def _row(score: "ParserScore") -> list[str]:
    shares = (
        score.well_formed,
        score.recovered,
        score.complete,
        score.complete_or_raised,
        score.raised,
        score.refused,
        score.invented,
    )
    name = f"{score.parser} {score.version}".strip()
    return [plain(name), plain(score.form), *(f"{share:.3f}" for share in shares)]
