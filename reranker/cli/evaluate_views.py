"""What `shelfwise evaluate` prints."""

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from reranker.cli.output import console, plain

if TYPE_CHECKING:
    from eval.cases import CaseFile
    from eval.run import Evaluation

_SHOWN_DEFECTS = 50
_WIDE = 140


def show_defects(report: "CaseFile") -> None:
    """Print what is wrong with a cases file, by row."""
    if not report.defects:
        return
    table = Table("Row", "Case", "Field", "Weight", "What is wrong", box=None, pad_edge=False)
    for defect in report.defects[:_SHOWN_DEFECTS]:
        cells = (defect.row, defect.case_id or "", defect.field, defect.severity, defect.reason)
        table.add_row(*(plain(cell) for cell in cells))
    console.print(table)
    rest = sum(report.counts.values()) - min(len(report.defects), _SHOWN_DEFECTS)
    if rest > 0:
        kinds = ", ".join(f"{kind} {count}" for kind, count in report.counts.items())
        console.print(plain(f"... and more; rows by kind of defect: {kinds}"))


def show_evaluation(result: "Evaluation") -> None:
    """Print the figures of an evaluation, its warnings, and the result in words."""
    from eval.report.words import in_short

    names = [figure.measure for figure in result.rankers[0].measures]
    interval = f"95 % of {result.deciding}"
    table = Table(box=None, pad_edge=False)
    # Whole names and figures, however narrow the terminal: it may break a line, no number.
    for title in ("Ranker", *names, interval, "ms", "fallback"):
        table.add_column(title, no_wrap=True)
    for ranker in result.rankers:
        values = ["-" if each.value is None else f"{each.value:.4f}" for each in ranker.measures]
        found = ranker.measured(result.deciding).estimate
        spread = "" if found is None else f"{found.low:.4f} to {found.high:.4f}"
        fallback = "" if ranker.model is None else f"{ranker.model.fallback_rate:.1%}"
        milliseconds = f"{ranker.median_ms:.1f}"
        table.add_row(plain(ranker.name), *values, spread, milliseconds, fallback)
    Console(width=max(console.width, _WIDE), highlight=False).print(table)
    for each in result.ablations:
        if each.comparison is not None:
            apart = each.comparison.difference
            console.print(
                f"{each.whole} - {each.without}: {apart.measure.split(':')[0]} {apart.value:+.4f} "
                f"({apart.low:+.4f} to {apart.high:+.4f}), {each.cases} cases",
                markup=False,
            )
    _show_logged(result)
    if result.time_proof is not None:
        console.print(plain(result.time_proof.said), soft_wrap=True)
    for warning in result.warnings:
        console.print(plain(f"! {warning}"), style="yellow", soft_wrap=True)
    for sentence in in_short(result):
        console.print(plain(sentence), soft_wrap=True)


def _show_logged(result: "Evaluation") -> None:
    """Print what the log says of the rankers, with the support that it rests on."""
    if result.logged is None:
        return
    for curve in result.logged.curves:
        places = ", ".join(f"{place.value:.2f}" for place in curve.examination)
        console.print(plain(f"position bias by {curve.method}: {places}"), soft_wrap=True)
    for row in result.logged.policies:
        if row.value is None:
            said = f"refused: {row.refused}"
        else:
            found = row.value.estimate
            said = (
                f"{found.value:.4f} ({found.low:.4f} to {found.high:.4f}) clicks a list, "
                f"support {row.value.support:.2f}, effective lists {found.effective_n:.0f}"
            )
        console.print(plain(f"{row.ranker} by {row.estimator}: {said}"), soft_wrap=True)
