"""A request, its candidates, and the answer to it."""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self
from uuid import uuid4

from pydantic import AwareDatetime, Field, FiniteFloat, model_validator

from reranker.schema.asking import TemplateRef
from reranker.schema.base import FrozenMapping, Identifier, Language, Query, Value, is_blank
from reranker.schema.products import Filters, Product


def _now() -> datetime:
    return datetime.now(UTC)


class SearchRequest(Value):
    """One search, or with ``query=None`` one request for recommendations.

    Attributes:
        user_id: None for an anonymous shopper: then nothing is said about anybody.
        k: how many places are shown; all candidates are ranked, the first k matter.
        at: the moment of the search: no later event is looked at.
        context: short facts of the moment worth telling the model, such as ``occasion: gift``.
        language: of the prompt; None takes the setting, and where that is ``auto`` follows the
            query.
        deadline_ms: past it the answer is the fallback order; None takes the setting.
        adapter: LoRA adapter that the model's servers are asked for, by its name there; None takes
            the setting.
    """

    request_id: Identifier = Field(default_factory=lambda: uuid4().hex)
    query: Query | None = None
    user_id: Identifier | None = None
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    at: AwareDatetime = Field(default_factory=_now)
    filters: Filters = Filters()
    context: FrozenMapping = Field(default_factory=dict, validate_default=True)
    language: Language | None = None
    deadline_ms: Annotated[int, Field(ge=1)] | None = None
    adapter: Identifier | None = None

    @model_validator(mode="after")
    def _query_not_blank(self) -> Self:
        if self.query is not None and is_blank(self.query):
            message = "the query is blank; leave it out (None) to ask for recommendations"
            raise ValueError(message)
        return self


class Candidate(Value):
    """A recalled product with the evidence of its recall, which no later stage changes.

    Attributes:
        recall_rank: 1-based.
        recall_score: of the recall, for several lists the fused score. Recommendations to a known
            shopper stand in the order of the learnt interest instead.
        dense_rank: 1-based rank by embedding, None where embedding did not recall it.
        lexical_rank: 1-based rank by words, None where words did not recall it.
        sales: how much it sells, from 0 to 9, the shop's best seller; see `reranker.sales`. None
            where it is not known.
        from_history: recall had cut it off, and the shopper's own history brought it back.
    """

    product: Product
    recall_rank: Annotated[int, Field(ge=1)]
    recall_score: FiniteFloat
    dense_rank: int | None = None
    lexical_rank: int | None = None
    sales: Annotated[int, Field(ge=0, le=9)] | None = None
    from_history: bool = False


class ProductInterest(Value):
    """What the shop's behaviour tells of one shopper's interest in one product.

    Attributes:
        odds: logarithm of the odds that the shopper takes this product next when it stands among 19
            others drawn at random.
        sales: as in `Candidate`.
        goes_with: title of the product among the shopper's latest that it is bought with most.
    """

    odds: FiniteFloat
    sales: Annotated[int, Field(ge=0, le=9)] | None
    goes_with: str | None = None


Outcome = Literal["model", "repaired", "fallback"]
IssueCode = Literal[
    "model_error",
    "deadline",
    "low_label_mass",
    "bad_output",
    "repaired",
    "reason_dropped",
    "window_lost",
    "profile_shortened",
    "cards_shortened",
    "index_behind",
    "look_up_cut",
    "profile_unavailable",
    "interest_unavailable",
    "query_shortened",
    "context_cut",
]


class Issue(Value):
    """Something that did not go as planned, in a form that can be counted."""

    code: IssueCode
    detail: str


class RankedItem(Value):
    """A product in its final place, with the evidence for it.

    Attributes:
        rank: 1-based final place.
        score: what the final order is by, higher is better; comparable within one result only.
        llm_logprob: the model's log-probability, averaged over the prompts that showed the product;
            None if none did, or if the ranking was written out.
        llm_reason: what the model wrote on it, where that is borne out by the profile or the card.
        interest: of the shopper in the product, 0 to 1, by the profile and by what has been learnt
            of all shoppers; see `reranker.interest`. None where there is neither.
        facts: what the interest rests on: what of the profile speaks for the product, the strongest
            first, or that it was sent back; then what it goes with and how much it sells.
        placed_by: the stage that gives most of the score.
        reason: the evidence in one line for people.
    """

    product: Product
    rank: Annotated[int, Field(ge=1)]
    score: FiniteFloat
    recall_rank: int
    recall_score: float
    dense_rank: int | None = None
    lexical_rank: int | None = None
    from_history: bool = False
    llm_logprob: float | None = None
    llm_reason: str | None = None
    interest: float | None = None
    facts: tuple[str, ...] = ()
    placed_by: Literal["model", "recall", "interest"]
    reason: str


class Timings(Value):
    """Wall-clock milliseconds of the stages of one request; a stage that did not run is 0.

    Attributes:
        model_ms: waiting for the language model alone; ``total_ms`` less this is the overhead.
    """

    profile_ms: float = 0.0
    recall_ms: float = 0.0
    prompt_ms: float = 0.0
    model_ms: float = 0.0
    rank_ms: float = 0.0
    total_ms: float = 0.0


class RerankResult(Value):
    """The answer to a request: every candidate exactly once, and what happened on the way.

    Attributes:
        outcome: ``model`` as planned, ``repaired`` where a written ranking had gaps or slips,
            ``fallback`` where the model had no part in the order.
        personalised: whether the prompt spoke of the shopper. What is known of one counts in the
            blend all the same: see the items' ``interest`` and ``facts``.
        label_mass: mean over prompts; None where the readout has none.
        instability: mean absolute change of rank between shuffles; None for one shuffle.
        windows: number of prompts that the model answered.
        rounds: number of times that it was asked one after the other.
    """

    request_id: str
    items: tuple[RankedItem, ...]
    outcome: Outcome
    issues: tuple[Issue, ...] = ()
    personalised: bool = False
    label_mass: float | None = None
    instability: float | None = None
    windows: int = 0
    rounds: int = 0
    template: TemplateRef | None = None
    model: str | None = None
    adapter: str | None = None
    timings: Timings = Timings()
    deadline_hit: bool = False
