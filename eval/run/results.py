"""The figures of an evaluation: what its JSON holds and its page shows."""

from collections.abc import Mapping

from pydantic import AwareDatetime

from eval.counterfactual.estimators import PolicyValue
from eval.measures.lists import GroupExposure
from eval.measures.scores import ScoreMeasures
from eval.position_bias.curves import PositionBias
from eval.run.request import KnowledgeReport
from eval.statistics.comparison import Comparison
from eval.statistics.estimates import Estimate
from reranker.schema import Value


class InputFile(Value):
    """One file that an evaluation read, by its content."""

    role: str
    name: str
    fingerprint: str
    rows: int


class Figure(Value):
    """A mean over cases; without an interval where there are too few shoppers for one.

    Attributes:
        value: None where no case has one.
        refused: why there is no interval.
    """

    measure: str
    value: float | None
    n: int
    without_value: int
    estimate: Estimate | None = None
    refused: str | None = None


class SegmentFigure(Value):
    """The deciding measure of one ranker on one segment."""

    segment: str
    group: str
    figure: Figure


class ModelReport(Value):
    """What became of the questions to the language model.

    Attributes:
        outcomes: cases by outcome (model, repaired, fallback).
        issues: cases by what did not go as planned.
        personalised: share of cases whose prompt spoke of the shopper.
        instability: mean absolute change of rank between shuffles of one question.
    """

    outcomes: Mapping[str, int]
    issues: Mapping[str, int]
    personalised: float
    fallback_rate: float
    repair_rate: float
    instability: float | None
    label_mass: float | None


class ShownReport(Value):
    """What a ranker puts into the first k places of all cases, beyond hits; None: not to be had.

    Attributes:
        coverage: share of the catalogue.
        popularity_lift: of what is shown against the candidates (or the histories).
        brands: exposure by brand against the candidates (or the catalogue).
        sellers: the same by the attribute ``seller``.
        diversity: share of pairs on one list that differ in category.
        absent: why something could not be had.
    """

    coverage: float
    popularity_lift: Figure | None = None
    brands: GroupExposure | None = None
    sellers: GroupExposure | None = None
    diversity: Figure | None = None
    absent: tuple[str, ...] = ()


class RankerReport(Value):
    """Everything about one ranker.

    Attributes:
        measures: of its rankings, with an interval clustered by shopper.
        segments: the deciding measure by segment.
        interest: how good its scores are as interests, where they are such.
        median_ms: time a case took, half of them no longer.
        p95_ms: 95 % of them no longer.
    """

    name: str
    about: str
    measures: tuple[Figure, ...]
    segments: tuple[SegmentFigure, ...]
    shown: ShownReport
    model: ModelReport | None = None
    interest: ScoreMeasures | None = None
    median_ms: float
    p95_ms: float

    def measured(self, measure: str) -> Figure:
        """Return the figure of a measure."""
        return next(figure for figure in self.measures if figure.measure == measure)


class Ablation(Value):
    """What one part is worth: the ranker with it against the ranker without it.

    Attributes:
        question: in words.
        comparison: with less without, its ``p_holm`` over all ablations; None where it could not
            be made.
        same_first: share of cases in which both put the same product first.
        rank_change: mean absolute change of rank of a candidate between the two.
    """

    question: str
    whole: str
    without: str
    cases: int
    comparison: Comparison | None = None
    same_first: float
    rank_change: float
    refused: str | None = None


class CaseDetail(Value):
    """One case in words, for people to judge.

    Attributes:
        history: titles, latest first.
        targets: titles.
        lists: of each ranker, the titles of its first places; a target is marked by its place.
        target_ranks: of each ranker, the place of the best target; None: not found.
    """

    case_id: str
    query: str | None
    history: tuple[str, ...]
    targets: tuple[str, ...]
    lists: Mapping[str, tuple[str, ...]]
    hits: Mapping[str, tuple[bool, ...]]
    target_ranks: Mapping[str, int | None]


class RankChange(Value):
    """Cases whose best target stands at one place for the baseline and another for the focus."""

    baseline: int
    focus: int
    cases: int


class TimeProof(Value):
    """Whether rankings stay the same when everything after the cut is poisoned.

    Attributes:
        applicable: False where nothing carries a time, so that there is nothing to prove.
        events: poisoned purchases that were added after the cut.
        histories: cases whose history was poisoned after the cut.
        changed: of each ranker, the cases whose order changed; all empty: proven.
        said: the outcome in words.
    """

    applicable: bool
    cases: int = 0
    events: int = 0
    histories: int = 0
    changed: Mapping[str, tuple[str, ...]] = {}
    said: str

    @property
    def proven(self) -> bool:
        """Tell whether no order changed."""
        return self.applicable and not any(self.changed.values())


class PolicyRow(Value):
    """What a ranker would have earned by the log, by one estimator; or why that is not said."""

    ranker: str
    estimator: str
    value: PolicyValue | None = None
    refused: str | None = None
    warning: str | None = None


class LoggedReport(Value):
    """What logged lists say: of the shop as it was, of place, and of the rankers.

    Attributes:
        click_through: of the first k places as logged.
        curves: position bias by method.
        refused: methods that refused, and why.
        policies: clicks a list that the rankers would have got.
    """

    lists: int
    click_through: Estimate | None
    conversion: Estimate | None
    curves: tuple[PositionBias, ...]
    refused: tuple[str, ...]
    policies: tuple[PolicyRow, ...]


class Evaluation(Value):
    """The whole result.

    Attributes:
        cases: ranked.
        without_target: cases that are ranked and in no mean.
        rejected: rows of the cases file that could not be used.
        shoppers: independent units.
        defects: rows by kind of defect, of which most are notes.
        deciding: measure that segments, ablations and worst cases look at.
        baseline: ranker that the others are compared with.
        focus: ranker whose worst cases are shown.
        comparisons: every other ranker against the baseline, Holm-corrected for each measure.
        worst: where the focus does worst against the baseline.
        values: measure to ranker to the value of each case, None without one; by `case_ids`.
        warnings: what a reader must know before believing a figure.
        settings: that figures depend on.
    """

    version: str
    made_at: AwareDatetime
    seconds: float
    command: str = ""
    files: tuple[InputFile, ...]
    products: int
    cases: int
    rows: int
    rejected: int
    without_target: int
    shoppers: int
    with_query: int
    whole_catalogue: int
    defects: Mapping[str, int]
    knowledge: KnowledgeReport
    deciding: str
    k: int
    baseline: str
    focus: str
    rankers: tuple[RankerReport, ...]
    comparisons: tuple[Comparison, ...]
    ablations: tuple[Ablation, ...]
    ablation_note: str
    time_proof: TimeProof | None = None
    logged: LoggedReport | None = None
    rank_changes: tuple[RankChange, ...] = ()
    worst: tuple[CaseDetail, ...] = ()
    warnings: tuple[str, ...] = ()
    ties: str
    case_ids: tuple[str, ...]
    values: Mapping[str, Mapping[str, tuple[float | None, ...]]]
    settings: Mapping[str, str]
