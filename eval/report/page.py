"""Write an evaluation as a page and as JSON, each in one step."""

from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from eval.report.charts import (
    IntervalRow,
    Role,
    Scale,
    curve_plot,
    interval_plot,
    row_of,
    scatter_plot,
)
from eval.report.words import in_short, read_measure
from eval.run.results import Evaluation
from retrieval.files import replacing

_MOST_IN_SEGMENTS = 4


def write_page(result: Evaluation, target: Path) -> None:
    """Write the page; a reader never sees half of it."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["percent"] = lambda share: f"{share:.1%}"
    source = (files("eval.report") / "page.html.jinja").read_text(encoding="utf-8")
    html = environment.from_string(source).render(
        result=result,
        in_short=in_short(result),
        read_measure=read_measure,
        main_plot=_main_plot(result),
        difference_plot=_difference_plot(result),
        segment_plots=_segment_plots(result),
        ablation_plot=_ablation_plot(result),
        scatter=scatter_plot(result.rank_changes, result.baseline, result.focus),
        curves=_curves(result),
    )
    with replacing(target) as temporary:
        temporary.write_text(html, encoding="utf-8")


def write_json(result: Evaluation, target: Path) -> None:
    """Write everything as JSON; a reader never sees half of it."""
    with replacing(target) as temporary:
        temporary.write_text(result.model_dump_json(indent=1), encoding="utf-8")


def role_of(result: Evaluation, ranker: str) -> Role:
    """Tell what part a ranker plays in the comparison."""
    if ranker == result.focus:
        return "focus"
    return "baseline" if ranker == result.baseline else "other"


def _main_plot(result: Evaluation) -> Markup:
    rows = [
        row_of(each.name, each.measured(result.deciding), role_of(result, each.name))
        for each in result.rankers
    ]
    known = sorted((row for row in rows if row is not None), key=lambda row: -row.value)
    return interval_plot(known)


def _difference_plot(result: Evaluation) -> Markup:
    rows = [
        IntervalRow(
            each.variant,
            each.difference.value,
            each.difference.low,
            each.difference.high,
            role_of(result, each.variant),
            f"p {each.p_holm:.4f}" if each.p_holm >= 0.0001 else "p < .0001",
        )
        for each in result.comparisons
        if each.measure == result.deciding
    ]
    return interval_plot(sorted(rows, key=lambda row: -row.value), zero=True)


def _segment_plots(result: Evaluation) -> list[tuple[str, list[tuple[str, int, Markup]]]]:
    """Return for each group of segments, for each segment its name, cases and plot."""
    chosen = _for_segments(result)
    found: dict[str, dict[str, list[tuple[IntervalRow, int]]]] = {}
    for ranker in result.rankers:
        for each in ranker.segments if ranker.name in chosen else ():
            row = row_of(ranker.name, each.figure, role_of(result, ranker.name))
            if row is not None:
                named = found.setdefault(each.group, {}).setdefault(each.segment, [])
                named.append((row, each.figure.n))
    plots = []
    for group, segments in found.items():
        scale = Scale.around([row for rows in segments.values() for row, _ in rows])
        drawn = [
            (segment, rows[0][1], interval_plot([row for row, _ in rows], scale=scale))
            for segment, rows in segments.items()
        ]
        plots.append((group, drawn))
    return plots


def _for_segments(result: Evaluation) -> set[str]:
    """Return the rankers that segments show: baseline, focus, and the best of the others."""
    values = {each.name: each.measured(result.deciding).value or 0.0 for each in result.rankers}
    ordered = sorted(values, key=lambda name: -values[name])
    return set(list(dict.fromkeys((result.baseline, result.focus, *ordered)))[:_MOST_IN_SEGMENTS])


def _ablation_plot(result: Evaluation) -> Markup:
    rows = [
        IntervalRow(
            f"{each.whole} − {each.without}",
            each.comparison.difference.value,
            each.comparison.difference.low,
            each.comparison.difference.high,
            "focus",
            f"p {each.comparison.p_holm:.3f}",
        )
        for each in result.ablations
        if each.comparison is not None
    ]
    return interval_plot(rows, zero=True)


def _curves(result: Evaluation) -> list[tuple[str, Markup]]:
    if result.logged is None:
        return []
    return [
        (curve.method, curve_plot(curve.examination, f"Position bias by {curve.method}"))
        for curve in result.logged.curves
    ]
