"""What an evaluation is asked for."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AwareDatetime, Field

from eval.past.guard import TimeGuard
from reranker.schema import FrozenMapping, Value


class EvaluationRequest(Value):
    """The files and choices of one evaluation; further ones are in `EvaluationSettings`.

    Attributes:
        products: of the catalogue, in any form that the importer takes.
        mapping: fields of `Product` to columns of that file, where the names differ.
        cases: see `eval.cases.values`.
        histories: what shoppers chose before; see `eval.past.reading`.
        train: purchases to learn from, in the same forms.
        impressions: logged lists of the shop, whose request_ids are case_ids.
        rankers: by name.
        baseline: ranker that the others are compared with; None takes the first.
        limit: cases to take, a seeded sample; None takes all.
        cut: global moment; None takes that of the first case.
        max_rejected: share of unusable rows of the cases file that is tolerated.
        ablation_cases: cases on which the language model is asked without a profile and so on; 0
            leaves the ablations out.
        proof_cases: cases ranked again with poison after the cut; 0 leaves the proof out.
        work: folder for what the next run can use again.
        fresh: whether to forget what earlier runs ranked.
    """

    products: Path
    mapping: FrozenMapping = Field(default_factory=dict, validate_default=True)
    cases: Path
    histories: Path | None = None
    train: Path | None = None
    impressions: Path | None = None
    rankers: Annotated[tuple[str, ...], Field(min_length=1)]
    baseline: str | None = None
    limit: Annotated[int, Field(ge=1)] | None = None
    cut: AwareDatetime | None = None
    max_rejected: Annotated[float, Field(ge=0, le=1)] = 0.0
    ablation_cases: Annotated[int, Field(ge=0)] = 100
    proof_cases: Annotated[int, Field(ge=0)] = 10
    work: Path
    fresh: bool = False


class KnowledgeReport(Value):
    """What rankers could know, and until when.

    Attributes:
        own_histories: whether purchases are those of the cases' histories, for want of a file.
        purchases: known before the cut.
        after_cut: purchases of the files that were cut off.
        untimed: purchases without a time, which cannot be cut and are taken as given.
        unknown_products: purchases of products that the products file does not have.
        shoppers: behind the purchases.
        leaked: cases whose answer stands among the purchases that are learnt from.
        shortened: cases of whose history something was cut off.
        untimed_histories: cases whose history carries no times.
    """

    guard: TimeGuard = TimeGuard()
    own_histories: bool = False
    purchases: int = 0
    after_cut: int = 0
    untimed: int = 0
    unknown_products: int = 0
    shoppers: int = 0
    leaked: tuple[str, ...] = ()
    shortened: int = 0
    untimed_histories: int = 0

    @property
    def embargo(self) -> timedelta:
        """Return how long before the cut all knowledge ends."""
        return self.guard.embargo
