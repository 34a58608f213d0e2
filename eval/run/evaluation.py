"""An evaluation from its files to its figures."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from eval.cases.values import Case
from eval.measures.rankings import bounds_of, parse_measures
from eval.past.counts import Past
from eval.rankers import Bench, describe
from eval.rankers.registry import check_names
from eval.run.ablations import ablation, corrected, plans_for
from eval.run.details import rank_changes, worst_cases
from eval.run.figures import Measured, figure, interest_measures, measure, model_report
from eval.run.identity import identity_of, ranking_settings
from eval.run.inputs import Inputs, read_inputs, sampled
from eval.run.logged import logged_report
from eval.run.ranking import rank_cases
from eval.run.request import EvaluationRequest, KnowledgeReport
from eval.run.results import Ablation, Evaluation, RankerReport
from eval.run.segments import Segments, segment_figures, segments_of
from eval.run.shown import ProductGroups, shown_report
from eval.run.time_proof import prove_time
from eval.run.warnings import warnings_of
from eval.run.work_file import RankedCase, WorkFile
from eval.statistics.comparison import Comparison, compare
from eval.statistics.estimates import RefusedEstimate
from reranker.errors import ConfigError, DataError
from reranker.ports import LanguageModel, Progress, Tokenizer, no_progress
from reranker.settings import Settings, flatten
from retrieval.embedder import Embedder

TIES = (
    "Equal scores are ordered by a hash of seed, case and product: the same in every run and on "
    "every machine, and apart from the order of the file, the id and the popularity of a product."
)
_FOCUS = ("full", "llm")


@dataclass(frozen=True)
class Models:
    """How the models are opened; nothing is, before a ranker needs it."""

    language_model: Callable[[], LanguageModel]
    writer: Callable[[], LanguageModel]
    embedder: Callable[[], Embedder]
    tokenizer: Callable[[], Tokenizer]


def evaluate(
    request: EvaluationRequest,
    settings: Settings,
    models: Models,
    *,
    command: str = "",
    progress: Progress = no_progress,
) -> Evaluation:
    """Rank all cases with all rankers, and measure, compare, ablate and prove.

    Args:
        request: files and choices.
        settings: of measures, models and the blend.
        models: opened where a ranker needs them.
        command: that asked for it, for the reader of the report.
        progress: is told of everything that takes long.

    Raises:
        ConfigError: a ranker or measure is unknown, or a ranker lacks a file.
        DataError: a file cannot be used; `eval.cases.RejectedCases` tells the rows.
        ModelError: the language model cannot be had. What was ranked by then is kept.
    """
    check_names(request.rankers)
    parse_measures(settings.evaluation.measures)
    if request.baseline is not None and request.baseline not in request.rankers:
        raise ConfigError(
            f"baseline {request.baseline!r} is none of the rankers: {', '.join(request.rankers)}"
        )
    request.work.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(request.work / "lock", timeout=0):
            inputs = read_inputs(request, settings, progress)
            run = _Run(request, settings, models, inputs, progress)
            return run.result(command)
    except Timeout:
        raise DataError(f"{request.work}: another evaluation is running there") from None


class _Run:
    """One evaluation under way."""

    def __init__(
        self,
        request: EvaluationRequest,
        settings: Settings,
        models: Models,
        inputs: Inputs,
        progress: Progress,
    ) -> None:
        self._started = time.monotonic()
        self._request = request
        self._settings = settings
        self._options = settings.evaluation
        self._models = models
        self._inputs = inputs
        self._progress = progress
        self._cases = inputs.known_cases(inputs.cases)
        self._everyone = inputs.known_cases(inputs.case_file.cases)
        self._past = inputs.known_past(inputs.purchases)
        self._knowledge = inputs.knowledge()
        self._baseline = request.baseline or request.rankers[0]
        self._key = identity_of(inputs, settings)

    def result(self, command: str) -> Evaluation:
        request, inputs, options = self._request, self._inputs, self._options
        with self._bench(self._cases, self._past) as bench:
            lines = {name: self._ranked(name, bench, self._cases) for name in request.rankers}
            measured = measure(self._cases, lines, options.measures)
            ablations = self._ablations(bench, measured)
        proof = None
        if request.proof_cases:
            proof = prove_time(
                inputs, request.rankers, request.proof_cases, options.seed, self._bench,
                self._progress,
            )  # fmt: skip
        self._progress("figures", 0, 0)
        logged = None
        if request.impressions is not None:
            logged = logged_report(request.impressions, lines, options.k)
        result = Evaluation(
            version=version("shelfwise"),
            made_at=datetime.now(UTC),
            seconds=time.monotonic() - self._started,
            command=command,
            ablations=ablations,
            ablation_note=self._ablation_note(ablations),
            time_proof=proof,
            logged=logged,
            **self._counts(),
            **self._figures(measured),
        )
        return result.model_copy(update={"warnings": warnings_of(result, inputs)})

    def _counts(self) -> dict[str, Any]:
        inputs, cases = self._inputs, self._cases
        knowledge: KnowledgeReport = self._knowledge
        return {
            "files": inputs.files,
            "products": len(inputs.table),
            "cases": len(cases),
            "rows": inputs.case_file.rows,
            "rejected": inputs.case_file.rejected,
            "without_target": sum(not case.relevant for case in cases),
            "shoppers": len({case.shopper for case in cases}),
            "with_query": sum(case.query is not None for case in cases),
            "whole_catalogue": sum(case.candidates is None for case in cases),
            "defects": inputs.case_file.counts,
            "knowledge": knowledge,
            "ties": TIES,
            "k": self._options.k,
            "settings": {k: str(v) for k, v in flatten(ranking_settings(self._settings))},
        }

    def _figures(self, measured: Measured) -> dict[str, Any]:
        table = self._inputs.table
        segments = segments_of(self._cases, self._past, table)
        groups = ProductGroups.of(table)
        names = self._request.rankers
        focus = self._focus(measured)
        return {
            "deciding": measured.deciding,
            "baseline": self._baseline,
            "focus": focus,
            "rankers": tuple(self._report(name, measured, segments, groups) for name in names),
            "comparisons": self._comparisons(measured),
            "rank_changes": rank_changes(measured, self._baseline, focus),
            "worst": worst_cases(measured, self._baseline, focus, table),
            "case_ids": tuple(case.case_id for case in self._cases),
            "values": {
                name: {
                    ranker: tuple(None if np.isnan(v) else float(v) for v in values)
                    for ranker, values in by_ranker.items()
                }
                for name, by_ranker in measured.values.items()
            },
        }

    def _focus(self, measured: Measured) -> str:
        """Return what is served, or the model, or else the best of those beside the baseline."""
        names = self._request.rankers
        means = {
            name: float(np.nansum(values))
            for name, values in measured.values[measured.deciding].items()
            if name != self._baseline
        }
        best = max(means, key=lambda name: means[name], default=names[0])
        return next((name for name in _FOCUS if name in names), best)

    def _report(
        self, name: str, measured: Measured, segments: Segments, groups: ProductGroups
    ) -> RankerReport:
        lines = measured.lines[name]
        times = [line.milliseconds for line in lines.values()]
        table, k = self._inputs.table, self._options.k
        return RankerReport(
            name=name,
            about=describe(name),
            measures=tuple(
                figure(each, values[name], measured.units)
                for each, values in measured.values.items()
            ),
            segments=segment_figures(measured, name, segments),
            shown=shown_report(measured, name, groups, self._past, table, k),
            model=model_report(lines),
            interest=interest_measures(measured, name),
            median_ms=float(np.median(times)),
            p95_ms=float(np.quantile(times, 0.95)),
        )

    def _comparisons(self, measured: Measured) -> tuple[Comparison, ...]:
        if len(self._request.rankers) < 2:
            return ()
        found: list[Comparison] = []
        for name, values in measured.values.items():
            self._progress("figures", len(found), 0)
            try:
                found += compare(
                    name,
                    self._baseline,
                    {ranker: each.tolist() for ranker, each in values.items()},
                    measured.shoppers,
                    bounds=bounds_of(name),
                    permutations=self._options.permutations,
                    seed=self._options.seed,
                )
            except RefusedEstimate:  # such as a grade that hardly a case has
                continue
        return tuple(found)

    def _ablations(self, bench: Bench, measured: Measured) -> tuple[Ablation, ...]:
        """Ask again without a part, on a sample of the cases: paired, so that few are enough."""
        plans = plans_for(self._request.rankers)
        if not plans or not self._request.ablation_cases:
            return ()
        cases = sampled(self._cases, self._request.ablation_cases, self._options.seed)
        wanted = {case.case_id for case in cases}
        lines: dict[str, Mapping[str, RankedCase]] = {}
        for name in dict.fromkeys(n for plan in plans for n in (plan.whole, plan.without)):
            known = measured.lines.get(name)
            if known is None:
                lines[name] = self._ranked(name, bench, cases)
            else:
                lines[name] = {k: line for k, line in known.items() if k in wanted}
        part = measure(cases, lines, [measured.deciding])
        return corrected([ablation(plan, part, self._options) for plan in plans])

    def _ablation_note(self, ablations: Sequence[Ablation]) -> str:
        if ablations:
            return (
                f"on a seeded sample of {ablations[0].cases} cases, each asked both ways; p-values "
                "are corrected for the number of parts (Holm)"
            )
        if not plans_for(self._request.rankers):
            return "neither llm nor full was asked for: there is no part to take away"
        return "left out, as was asked for"

    def _ranked(self, name: str, bench: Bench, cases: Sequence[Case]) -> dict[str, RankedCase]:
        folder = self._request.work / "ranked"
        with WorkFile(folder, name, self._key, fresh=self._request.fresh) as work:
            return rank_cases(name, bench, cases, work, self._progress)

    def _bench(self, cases: Sequence[Case], past: Past) -> Bench:
        return Bench(
            table=self._inputs.table,
            cases=cases,
            everyone=self._everyone,
            past=past,
            settings=self._settings,
            open_model=self._models.language_model,
            open_writer=self._models.writer,
            open_embedder=self._models.embedder,
            open_tokenizer=self._models.tokenizer,
            work=self._request.work,
            as_of=self._inputs.guard.end,
            seed=self._options.seed,
            progress=self._progress,
        )
