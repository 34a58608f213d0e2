"""Ranking measures by case: named and computed by `ir-measures`, with nothing dropped.

Three conventions, each of which published tools get wrong:

- **Ties** are broken before measuring, by the rankers (`eval.rankers.ranked.tie_breakers`: a hash
  of seed, case and product). The evaluator is handed places, never tied scores.
- **A case without a target** has no value: NaN here, left out of the mean and reported as
  ``Estimate.excluded``. For a measure that counts from a grade on, such as ``HitRate(rel=3)@10``,
  a target is one of that grade.
- **A case that the ranker did not answer** scores 0.

``HitRate@k`` is added to the names of `ir-measures`; it is another name of ``Success@k``.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from subprocess import SubprocessError
from typing import TYPE_CHECKING, Any

import numpy as np

from eval.statistics.estimates import Bounds, Estimate, codes, mean
from reranker.errors import ConfigError, DataError
from reranker.schema import Value

if TYPE_CHECKING:
    from collections.abc import Hashable

_TRIAL: tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]] = (
    {"0": {"best": 3, "good": 1}},
    {"0": {"best": 2.0, "other": 1.0}},
)
_TRIAL_FAILURES = (
    ArithmeticError,
    AssertionError,
    OSError,
    RuntimeError,
    SubprocessError,
    TypeError,
    ValueError,
)
_HIT_RATE = re.compile(r"^HitRate(?=[@(]|$)")
_SHARES = re.compile(
    r"^(AP|B[Pp]ref|ERR|HitRate|Judged|MAP|MRR|[Nn]DCG|P|Precision|R|Recall|R[Pp]rec|RR|Set[FPR]"
    r"|Success)(?=[@(]|$)"
)


class MeasuredCases(Value):
    """One measure of one ranker by case.

    Attributes:
        measure: its name as it was asked for.
        case_ids: all cases, in the order of the targets.
        values: of each case; NaN where it has no target (of the measure's grade).
        unanswered: cases with a target that the ranker did not answer; their value is 0.
    """

    measure: str
    case_ids: tuple[str, ...]
    values: tuple[float, ...]
    unanswered: int

    @property
    def without_target(self) -> int:
        """Number of cases that have no target and no value."""
        return int(np.isnan(self.values).sum())

    def mean(self, shoppers: "Sequence[Hashable]") -> Estimate:
        """Return the mean over cases with a target, with an interval clustered by shopper.

        Args:
            shoppers: of each case, in order.
        """
        return mean(self.measure, self.values, codes(shoppers), bounds=bounds_of(self.measure))


def bounds_of(measure: str) -> Bounds | None:
    """Return the lowest and the highest that a case can have; None where not known here."""
    return (0.0, 1.0) if _SHARES.match(measure.strip()) else None


def parse_measures(names: Sequence[str]) -> tuple[Any, ...]:
    """Return the measures that names such as ``nDCG@10`` stand for.

    Raises:
        ConfigError: a name is not one of `ir-measures`, or is one that cannot be computed of cases
            here; the message names it.
    """
    return tuple(_parsed(name) for name in names)


@cache
def _parsed(name: str) -> Any:
    """Return the measure of a name that a small case has been measured by."""
    import ir_measures

    try:
        measure = ir_measures.parse_measure(_HIT_RATE.sub("Success", name.strip()))
    except (NameError, ValueError, SyntaxError, AttributeError, TypeError, AssertionError) as error:
        raise ConfigError(_unknown(name, str(error))) from error
    # Providers divide by a cutoff of 0, or end the process.
    cutoff = measure.params.get("cutoff", 1)
    if not isinstance(cutoff, int) or cutoff < 1:
        raise ConfigError(_unknown(name, f"its cutoff {cutoff} is no place"))
    pipeline: Any = ir_measures.DefaultPipeline
    try:
        # What a provider cannot do shows only when it is asked, and that has to be before ranking.
        if pipeline.supports(measure) and list(pipeline.iter_calc([measure], *_TRIAL)):
            return measure
    except _TRIAL_FAILURES as error:
        raise ConfigError(_unknown(name, f"it cannot be computed here ({error})")) from error
    raise ConfigError(_unknown(name, "it cannot be computed here"))


def _unknown(name: str, reason: str) -> str:
    known = "nDCG@10, RR, RR@10, P@5, R@20, AP, Success@10 or HitRate@10"
    return f"measure {name!r}: {reason}; write one such as {known}"


def measure_cases(
    measures: Sequence[str],
    targets: Mapping[str, Mapping[str, int]],
    rankings: Mapping[str, Sequence[str]],
) -> tuple[MeasuredCases, ...]:
    """Measure one ranker on every case.

    Args:
        measures: names, see `parse_measures`.
        targets: of each case, the grade of each target product (whole, 0 or above; 0 is none).
        rankings: of each answered case, product ids from the first place down.

    Raises:
        ConfigError: a measure is unknown.
        DataError: a ranking has no case or a product twice, or a grade is not a whole number.
    """
    import ir_measures

    parsed = parse_measures(measures)
    if strangers := [case for case in rankings if case not in targets]:
        message = f"{len(strangers)} rankings belong to no case, such as {strangers[0]!r}"
        raise DataError(message)
    relevant = {case: _grades(case, grades) for case, grades in targets.items()}
    relevant = {case: grades for case, grades in relevant.items() if grades}
    answered = {case: order for case, order in rankings.items() if case in relevant and order}
    # Cases go by numbers: gdeval, behind ERR, takes no other ids.
    named = {str(number): case for number, case in enumerate(answered)}
    run = {number: _places(case, answered[case]) for number, case in named.items()}
    values: dict[Any, dict[str, float]] = {measure: {} for measure in parsed}
    asked = {number: relevant[case] for number, case in named.items()}
    if run:
        for metric in ir_measures.iter_calc(set(parsed), asked, run):
            values[metric.measure][named[metric.query_id]] = float(metric.value)
    found = []
    for name, measure in zip(measures, parsed, strict=True):
        least = measure.params.get("rel", 1)
        wanted = {case for case, grades in relevant.items() if max(grades.values()) >= least}
        measured = values[measure]
        found.append(
            MeasuredCases(
                measure=name.strip(),
                case_ids=tuple(targets),
                values=tuple(
                    measured.get(case, 0.0) if case in wanted else float("nan") for case in targets
                ),
                unanswered=len(wanted - answered.keys()),
            )
        )
    return tuple(found)


def _grades(case: str, grades: Mapping[str, int]) -> dict[str, int]:
    for product, grade in grades.items():
        if grade != int(grade) or grade < 0:
            message = f"case {case!r}, target {product!r}: grade {grade} is not 0, 1, 2, ..."
            raise DataError(message)
    return {product: int(grade) for product, grade in grades.items() if grade > 0}


def _places(case: str, order: Sequence[str]) -> dict[str, float]:
    _check_once(f"case {case!r}: ", order)
    return {product: float(len(order) - place) for place, product in enumerate(order)}


def _check_once(where: str, order: Sequence[str]) -> None:
    if len(set(order)) != len(order):
        twice = next(product for product in order if order.count(product) > 1)
        raise DataError(f"{where}product {twice!r} is ranked twice")
