"""What each part of the ranker is worth: with it and without it, on the same cases."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from eval.cases.values import Case
from eval.measures.rankings import bounds_of
from eval.run.figures import Measured
from eval.run.results import Ablation
from eval.run.work_file import RankedCase
from eval.statistics.comparison import compare, holm
from eval.statistics.estimates import RefusedEstimate
from reranker.settings import EvaluationSettings


class AblationPlan(NamedTuple):
    """One part, and the two rankers that tell what it is worth."""

    question: str
    whole: str
    without: str


PLANS = (
    AblationPlan("no profile: what does knowing the shopper add?", "llm", "llm-noprofile"),
    AblationPlan("another shopper's profile: is the gain personal?", "llm", "llm-otherprofile"),
    AblationPlan("candidates shown in another order: is it stable?", "llm", "llm-reshuffled"),
    AblationPlan("no language model: what does it add as served?", "full", "full-nollm"),
)


def plans_for(rankers: Sequence[str]) -> tuple[AblationPlan, ...]:
    """Return the ablations of the rankers that were asked for."""
    return tuple(plan for plan in PLANS if plan.whole in rankers)


def ablation(plan: AblationPlan, measured: Measured, settings: EvaluationSettings) -> Ablation:
    """Compare the two rankers of a plan on the cases at hand; see `corrected` for several."""
    values = measured.values[measured.deciding]
    whole, without = measured.lines[plan.whole], measured.lines[plan.without]
    comparison = refused = None
    try:
        (comparison,) = compare(
            measured.deciding,
            plan.without,
            {name: values[name].tolist() for name in (plan.without, plan.whole)},
            measured.shoppers,
            bounds=bounds_of(measured.deciding),
            permutations=settings.permutations,
            seed=settings.seed,
        )
    except RefusedEstimate as error:
        refused = str(error)
    return Ablation(
        question=plan.question,
        whole=plan.whole,
        without=plan.without,
        cases=len(measured.cases),
        comparison=comparison,
        same_first=_same_first(measured.cases, whole, without),
        rank_change=_rank_change(measured.cases, whole, without),
        refused=refused,
    )


def corrected(ablations: Sequence[Ablation]) -> tuple[Ablation, ...]:
    """Return the ablations with p-values corrected for their number (Holm)."""
    compared = [each.comparison for each in ablations if each.comparison is not None]
    adjusted = iter(holm([each.p_value for each in compared]))
    return tuple(
        each
        if each.comparison is None
        else each.model_copy(
            update={"comparison": each.comparison.model_copy(update={"p_holm": next(adjusted)})}
        )
        for each in ablations
    )


def _same_first(
    cases: Sequence[Case], one: Mapping[str, RankedCase], other: Mapping[str, RankedCase]
) -> float:
    same = [
        one[case.case_id].ranked.product_ids[:1] == other[case.case_id].ranked.product_ids[:1]
        for case in cases
    ]
    return float(np.mean(same))


def _rank_change(
    cases: Sequence[Case], one: Mapping[str, RankedCase], other: Mapping[str, RankedCase]
) -> float:
    """Return the mean over cases of the mean absolute change of rank of what both rank."""
    changes = []
    for case in cases:
        place = {p: n for n, p in enumerate(one[case.case_id].ranked.product_ids)}
        moved = [
            abs(place[p] - n)
            for n, p in enumerate(other[case.case_id].ranked.product_ids)
            if p in place
        ]
        changes.append(float(np.mean(moved)) if moved else 0.0)
    return float(np.mean(changes)) if changes else 0.0
