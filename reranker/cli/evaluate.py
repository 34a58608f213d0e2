"""`shelfwise evaluate`: compare rankers on cases, and `shelfwise evaluate convert`."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from reranker.cli.evaluate_views import show_defects, show_evaluation
from reranker.cli.options import (
    ConfigOption,
    JsonOption,
    MapOption,
    SetOption,
    arguments,
    check_output,
    pairs,
)
from reranker.cli.output import console, plain, print_json, progress_bars
from reranker.errors import ConfigError, DataError

if TYPE_CHECKING:
    from eval.run import Evaluation, EvaluationRequest, Models
    from reranker.ports import Progress
    from reranker.settings import Settings

evaluate = typer.Typer(
    help="Compare rankers on cases whose right answers are known.",
    invoke_without_command=True,
    rich_markup_mode=None,
)

ProductsOption = Annotated[
    Path | None, typer.Option("--products", metavar="FILE", help="Products, as for imports.")
]
CasesOption = Annotated[
    Path | None, typer.Option("--cases", metavar="FILE", help="Cases: Parquet or JSONL.")
]
MaxRejectedOption = Annotated[
    float,
    typer.Option(
        "--max-rejected",
        metavar="SHARE",
        min=0,
        max=1,
        help="Share of unusable rows of the cases file that is left out instead of refused.",
    ),
]
CutOption = Annotated[
    datetime | None,
    typer.Option(
        "--cut",
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
        help="Moment from which on nothing is known. [default: that of the first case]",
    ),
]

KINDS = (
    "games, industrial, complete-journey, impressions, esci, wands, ranklens, amazon-reviews, "
    "kuaisearch"
)


@evaluate.callback()
def run(
    context: typer.Context,
    products: ProductsOption = None,
    cases: CasesOption = None,
    rankers: Annotated[
        str,
        typer.Option("--rankers", metavar="A,B,...", help="Names; see evaluate rankers."),
    ] = "random,recall,interest",
    histories: Annotated[
        Path | None,
        typer.Option("--histories", metavar="FILE", help="What shoppers chose before."),
    ] = None,
    train: Annotated[
        Path | None, typer.Option("--train", metavar="FILE", help="Purchases to learn from.")
    ] = None,
    impressions: Annotated[
        Path | None,
        typer.Option("--impressions", metavar="FILE", help="Logged lists of these cases."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Everything as JSON.")
    ] = None,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="The page (HTML).")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Cases: a seeded sample of so many.")
    ] = None,
    measures: Annotated[
        str | None, typer.Option("--measures", help="Names of ir-measures, with commas between.")
    ] = None,
    compare_with: Annotated[
        str | None, typer.Option("--compare-with", help="Baseline. [default: the first ranker]")
    ] = None,
    cut: CutOption = None,
    prove_time: Annotated[
        int,
        typer.Option(
            "--prove-time", metavar="N", min=0, help="Cases to rank again with poison; 0: none."
        ),
    ] = 10,
    ablation_cases: Annotated[
        int, typer.Option("--ablation-cases", min=0, help="Cases for ablations; 0: none.")
    ] = 100,
    seed: Annotated[int | None, typer.Option("--seed", help="Of orders, ties, samples.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Language model. [setting model.name]")
    ] = None,
    readout: Annotated[
        str | None, typer.Option("--readout", help="labels, verdict or generate.")
    ] = None,
    mapping: MapOption = None,
    max_rejected: MaxRejectedOption = 0.0,
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="FOLDER", help="What the next run can use again."),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Forget what was ranked before.")] = False,
    config: ConfigOption = None,
    sets: SetOption = None,
) -> None:
    """Rank cases with several rankers; measure, compare, take parts away, and report.

    A killed run goes on where it was when it is started again. Where the cases file has defects
    they are listed by row, and the exit code is 3.
    """
    if context.invoked_subcommand is not None:
        return
    from eval.cases import RejectedCases
    from eval.run import evaluate as run_evaluation

    check_output(json_file, "--json")
    check_output(report_file, "--report")
    given = {"model.name": model, "ranking.readout": readout, "evaluation.seed": seed}
    given["evaluation.measures"] = measures
    settings = _settings(config, sets, given)
    request = _request(
        products=_needed(products, "--products"),
        mapping=pairs(mapping, "--map"),
        cases=_needed(cases, "--cases"),
        histories=histories,
        train=train,
        impressions=impressions,
        rankers=tuple(name.strip() for name in rankers.split(",") if name.strip()),
        baseline=compare_with,
        limit=limit,
        cut=None if cut is None else cut if cut.tzinfo else cut.replace(tzinfo=UTC),
        max_rejected=max_rejected,
        ablation_cases=ablation_cases,
        proof_cases=prove_time,
        work=work or _work_beside(json_file or report_file),
        fresh=fresh,
    )
    try:
        with progress_bars() as report:
            result = run_evaluation(
                request, settings, _models(settings, report), command=_command(), progress=report
            )
    except RejectedCases as rejected:
        show_defects(rejected.report)
        raise
    _keep(result, json_file, report_file)
    show_evaluation(result)


@evaluate.command("check")
def check(
    cases: Annotated[Path, typer.Argument(metavar="CASES", help="Parquet or JSONL.")],
    products: ProductsOption = None,
    as_json: JsonOption = False,
) -> None:
    """List everything that is wrong with a cases file, by row."""
    from eval.cases import RejectedCases, read_cases

    with progress_bars() as progress:
        known = _known_products(products, progress)
        try:
            report = read_cases(cases, known, max_rejected=1.0)
        except RejectedCases as rejected:
            report = rejected.report
    if as_json:
        print_json(report.model_copy(update={"cases": ()}))
    else:
        show_defects(report)
        console.print(
            f"{report.rows:,} rows: {len(report.cases):,} cases, {report.rejected:,} unusable rows"
        )
    if report.rejected:
        raise DataError(f"{cases}: {report.rejected} of {report.rows} rows cannot be used")


@evaluate.command("rankers")
def list_rankers(as_json: JsonOption = False) -> None:
    """List the rankers that can be named."""
    from eval.rankers import describe, ranker_names

    if as_json:
        rows = {name: describe(name) for name in ranker_names()}
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    table = Table("Ranker", "Ranks by", box=None, pad_edge=False)
    for name in ranker_names():
        table.add_row(plain(name), plain(describe(name)))
    console.print(table)


@evaluate.command("convert")
def convert(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {KINDS}.")],
    source: Annotated[
        Path | None, typer.Argument(metavar="[SOURCE]", help="Folder or file of the data set.")
    ] = None,
    target: Annotated[
        Path, typer.Option("--to", metavar="FOLDER", help="Receives the files.")
    ] = Path("cases"),
    option: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="NAME=VALUE", help="Of the converter; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write a data set as products, cases and histories files, with the command that takes them."""
    from eval.convert import convert_data

    with progress_bars() as report:
        done = convert_data(kind, source, target, pairs(option, "--option"), progress=report)
    if as_json:
        print_json(done)
        return
    for note in done.notes:
        console.print(plain(note), soft_wrap=True)
    console.print(plain(f"next: {done.command}"), style="dim", soft_wrap=True)


def _settings(config: Path | None, sets: list[str] | None, given: dict[str, Any]) -> "Settings":
    from reranker.settings import Settings

    named = {name: value for name, value in given.items() if value is not None}
    return Settings.load(config, {**arguments(None, sets), **named})


def _request(**fields: Any) -> "EvaluationRequest":
    from pydantic import ValidationError

    from eval.run import EvaluationRequest

    try:
        return EvaluationRequest.model_validate(fields)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise ConfigError("\n".join(lines)) from None


def _needed(path: Path | None, option: str) -> Path:
    if path is None:
        raise ConfigError(f"{option} FILE is needed: shelfwise evaluate --products .. --cases ..")
    return path


def _work_beside(output: Path | None) -> Path:
    if output is None:
        return Path("evaluation.work")
    return output.with_name(f"{output.name}.work")


def _models(settings: "Settings", report: "Progress") -> "Models":
    from eval.run import Models
    from reranker import wiring
    from reranker.models.tokenizing import HFTokenizer
    from reranker.models.weights import resolve_tokenizer

    return Models(
        language_model=lambda: wiring.open_model(settings, progress=report),
        writer=lambda: wiring.open_writer(settings, progress=report),
        embedder=lambda: wiring.open_embedder(settings, progress=report),
        tokenizer=lambda: HFTokenizer(resolve_tokenizer(settings.model.name, progress=report)),
    )


def _known_products(products: Path | None, progress: "Progress") -> frozenset[str] | None:
    if products is None:
        return None
    import tempfile

    from retrieval.catalogue import import_catalogue
    from retrieval.product_table import ProductTable

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "products.arrow"
        import_catalogue(
            [products], target, progress=lambda n, m: progress("reading products", n, m or 0)
        )
        table = ProductTable.open(target)
        return frozenset(table.product_ids(range(len(table))))


def _command() -> str:
    import shlex

    return shlex.join(["shelfwise", *sys.argv[1:]])


def _keep(result: "Evaluation", json_file: Path | None, report_file: Path | None) -> None:
    from eval.report import write_json, write_page

    if json_file is not None:
        write_json(result, json_file)
    if report_file is not None:
        write_page(result, report_file)
