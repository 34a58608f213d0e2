"""Figures of one ranker over all cases."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.cases.values import Case
from eval.measures.rankings import MeasuredCases, bounds_of, measure_cases
from eval.measures.scores import ScoreMeasures, measure_scores
from eval.run.results import Figure, ModelReport
from eval.run.work_file import RankedCase
from eval.statistics.estimates import Floats, Integers, RefusedEstimate, codes, mean
from reranker.errors import DataError


@dataclass(frozen=True)
class Measured:
    """What every ranker said of every case, and what that is worth.

    Attributes:
        cases: all, in order.
        lines: by ranker, then case_id.
        values: by measure, then ranker: one value a case, NaN without a target.
        units: the shopper's number of each case.
        deciding: the measure that segments and ablations look at.
    """

    cases: Sequence[Case]
    lines: Mapping[str, Mapping[str, RankedCase]]
    values: Mapping[str, Mapping[str, Floats]]
    units: Integers
    deciding: str

    def lists(self, ranker: str) -> list[tuple[str, ...]]:
        """Return the rankings of a ranker, case by case."""
        lines = self.lines[ranker]
        return [lines[case.case_id].ranked.product_ids for case in self.cases]

    @property
    def shoppers(self) -> list[Hashable]:
        """Return who each case is of."""
        return [case.shopper for case in self.cases]


def measure(
    cases: Sequence[Case],
    lines: Mapping[str, Mapping[str, RankedCase]],
    measures: Sequence[str],
) -> Measured:
    """Measure all rankers on all cases.

    Raises:
        ConfigError: a measure is unknown.
    """
    targets = {case.case_id: case.grades for case in cases}
    values: dict[str, dict[str, Floats]] = {name: {} for name in measures}
    for ranker, answers in lines.items():
        rankings = {case_id: line.ranked.product_ids for case_id, line in answers.items()}
        found: Sequence[MeasuredCases] = measure_cases(measures, targets, rankings)
        for name, measured in zip(measures, found, strict=True):
            values[name][ranker] = np.asarray(measured.values, np.float64)
    return Measured(
        cases=cases,
        lines=lines,
        values=values,
        units=codes([case.shopper for case in cases]),
        deciding="nDCG@10" if "nDCG@10" in measures else measures[0],
    )


def figure(name: str, values: Floats, units: Integers) -> Figure:
    """Return the mean over cases with a value, its interval from `eval.statistics.estimates`."""
    known = ~np.isnan(values)
    n = int(known.sum())
    plain = Figure(
        measure=name,
        value=float(values[known].mean()) if n else None,
        n=n,
        without_value=len(values) - n,
    )
    try:
        estimate = mean(name, values, units, bounds=bounds_of(name))
    except RefusedEstimate as refused:
        return plain.model_copy(update={"refused": str(refused)})
    return plain.model_copy(update={"estimate": estimate})


def interest_measures(measured: Measured, ranker: str) -> ScoreMeasures | None:
    """Return how good a ranker's interests are: every candidate of every case is a pair.

    None where the scores are no interests, or a case has no candidates of its own.
    """
    scores: list[float] = []
    labels: list[float] = []
    shoppers: list[int] = []
    for case, unit in zip(measured.cases, measured.units.tolist(), strict=True):
        ranked = measured.lines[ranker][case.case_id].ranked
        if ranked.interest and case.candidates is not None and case.relevant:
            scores += ranked.scores
            labels += [float(each in case.relevant) for each in ranked.product_ids]
            shoppers += [unit] * len(ranked.scores)
    if not any(labels):
        return None
    try:
        return measure_scores(np.clip(scores, 0.0, 1.0), labels, np.array(shoppers))
    except DataError:  # too few shoppers for an interval
        return None


def model_report(lines: Mapping[str, RankedCase]) -> ModelReport | None:
    """Return what became of the questions to the model; None where none was asked."""
    asked = [line.ranked for line in lines.values() if line.ranked.outcome is not None]
    if not asked:
        return None
    outcomes = Counter(str(ranked.outcome) for ranked in asked)
    issues = Counter(code for ranked in asked for code in ranked.issues)
    unstable = [r.instability for r in asked if r.instability is not None]
    masses = [r.label_mass for r in asked if r.label_mass is not None]
    return ModelReport(
        outcomes=dict(sorted(outcomes.items())),
        issues=dict(sorted(issues.items())),
        personalised=sum(ranked.personalised for ranked in asked) / len(asked),
        fallback_rate=outcomes["fallback"] / len(asked),
        repair_rate=outcomes["repaired"] / len(asked),
        instability=float(np.mean(unstable)) if unstable else None,
        label_mass=float(np.mean(masses)) if masses else None,
    )
