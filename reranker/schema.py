"""Every value that crosses a boundary: immutable, typed, and strict about unknown fields."""

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Literal, Self
from uuid import uuid4

from langchain_core.messages import BaseMessage
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

Language = Literal["en", "zh"]
Readout = Literal["labels", "verdict", "generate"]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256, strip_whitespace=True)]
FrozenMapping = Annotated[
    Mapping[str, str],
    AfterValidator(lambda mapping: MappingProxyType(dict(mapping))),
    PlainSerializer(dict, return_type=dict[str, str]),
]
CATEGORY_SEPARATOR = " > "
VERDICT_SLOT = "\x00"
"""Stands in a `verdict` prompt where the model's verdict token belongs. Product text, queries and
profiles are stripped of control characters, so that nothing else can contain it."""


class Value(BaseModel):
    """Base of all values: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def one_line(text: str) -> str:
    """Return a text on one line, without control, format or private characters."""
    if text.isprintable():
        return " ".join(text.split())
    spaced = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join(spaced.split())


def category_paths(category: str | None) -> tuple[str, ...]:
    """Return a category and its ancestors, folded for comparison.

    A category is a path such as ``Grocery > Dairy > Yogurt``; a filter on ``grocery`` matches it.
    """
    if not category:
        return ()
    parts = [part.strip().casefold() for part in category.split(CATEGORY_SEPARATOR.strip())]
    return tuple(CATEGORY_SEPARATOR.join(parts[: depth + 1]) for depth in range(len(parts)))


class Product(Value):
    """One product of the shop's catalogue.

    Attributes:
        category: a path from wide to narrow, joined by `` > ``.
        price: in units of ``currency``; None where the shop gives none.
        attributes: further facts worth showing to the model, such as size or colour.
    """

    product_id: Identifier
    title: Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
    description: str = ""
    brand: str | None = None
    category: str | None = None
    price: Annotated[FiniteFloat, Field(ge=0)] | None = None
    currency: str | None = None
    in_stock: bool = True
    attributes: FrozenMapping = Field(default_factory=dict, validate_default=True)


class Filters(Value):
    """Conditions that every recalled product meets; several categories or brands mean any of them.

    A product without a price never meets a price bound. Category and brand ignore case, and a
    category covers everything below it.
    """

    categories: tuple[str, ...] = ()
    brands: tuple[str, ...] = ()
    min_price: Annotated[FiniteFloat, Field(ge=0)] | None = None
    max_price: Annotated[FiniteFloat, Field(ge=0)] | None = None
    in_stock: bool | None = None

    @model_validator(mode="after")
    def _prices_in_order(self) -> Self:
        low, high = self.min_price, self.max_price
        if low is not None and high is not None and low > high:
            message = f"min_price {low} is above max_price {high}"
            raise ValueError(message)
        return self

    def __bool__(self) -> bool:
        return self != Filters()

    def matches(self, product: Product) -> bool:
        """Tell whether a product meets every condition: the definition that recall follows."""
        return (
            self.matches_category(product.category)
            and self.matches_brand(product.brand)
            and self._matches_price(product.price)
            and (self.in_stock is None or product.in_stock == self.in_stock)
        )

    def matches_category(self, category: str | None) -> bool:
        """Tell whether a category is, or lies below, one of those asked for."""
        wanted = {category_paths(name)[-1] for name in self.categories if name}
        return not self.categories or not wanted.isdisjoint(category_paths(category))

    def matches_brand(self, brand: str | None) -> bool:
        """Tell whether a brand is one of those asked for."""
        wanted = {name.casefold() for name in self.brands}
        return not wanted or (brand is not None and brand.casefold() in wanted)

    def _matches_price(self, price: float | None) -> bool:
        if self.min_price is None and self.max_price is None:
            return True
        if price is None:
            return False
        low = self.min_price if self.min_price is not None else 0.0
        high = self.max_price if self.max_price is not None else float("inf")
        return low <= price <= high


class EventKind(StrEnum):
    """What a shopper did, or was shown."""

    SEARCH = "search"
    IMPRESSION = "impression"
    VIEW = "view"
    CLICK = "click"
    FAVOURITE = "favourite"
    CART = "cart"
    PURCHASE = "purchase"


class BehaviourEvent(Value):
    """One thing that a shopper did at one moment.

    Attributes:
        at: when it happened, with a time zone.
        position: 1-based place in the shown list.
        dwell_ms: how long the product page stayed open, in milliseconds.
        value: the amount paid for the whole line, in the shop's currency.
    """

    user_id: Identifier
    kind: EventKind
    at: AwareDatetime
    product_id: Identifier | None = None
    query: str | None = None
    session_id: str | None = None
    request_id: str | None = None
    position: Annotated[int, Field(ge=1)] | None = None
    dwell_ms: Annotated[int, Field(ge=0)] | None = None
    quantity: Annotated[FiniteFloat, Field(gt=0)] | None = None
    value: FiniteFloat | None = None

    @model_validator(mode="after")
    def _names_its_object(self) -> Self:
        if self.kind is EventKind.SEARCH and self.query is None:
            message = "a search event needs a query"
            raise ValueError(message)
        if self.kind is not EventKind.SEARCH and self.product_id is None:
            message = f"a {self.kind} event needs a product_id"
            raise ValueError(message)
        return self


AffinityKind = Literal["brand", "category", "price_band"]


class Affinity(Value):
    """How much of a shopper's time-decayed behaviour went to one brand, category or price band.

    Attributes:
        weight: share of the shopper's decayed behaviour of this kind, 0 to 1.
        evidence: number of events behind it, so that one click is not taken for a taste.
    """

    kind: AffinityKind
    name: str
    weight: Annotated[float, Field(ge=0, le=1)]
    evidence: Annotated[int, Field(ge=1)]


class RecentItem(Value):
    """A product that the shopper touched lately, with the strongest thing done to it."""

    product_id: str
    title: str
    kind: EventKind
    at: AwareDatetime


class RepeatPurchase(Value):
    """A product bought at least twice.

    Attributes:
        interval_days: median days between purchases.
    """

    product_id: str
    title: str
    count: Annotated[int, Field(ge=2)]
    last_at: AwareDatetime
    interval_days: float | None


class UserProfile(Value):
    """What is known of one shopper from events strictly before ``as_of``.

    Attributes:
        recent_items: newest first, one entry a product.
        repeat_purchases: most often bought first.
        recent_queries: newest first, without repetition.
        event_count: number of events that it rests on.
        summary: the text that enters the prompt; bounded in tokens.
    """

    user_id: Identifier
    as_of: AwareDatetime
    affinities: tuple[Affinity, ...] = ()
    recent_items: tuple[RecentItem, ...] = ()
    repeat_purchases: tuple[RepeatPurchase, ...] = ()
    recent_queries: tuple[str, ...] = ()
    event_count: Annotated[int, Field(ge=1)]
    summary: str
    summary_origin: Literal["template", "llm"] = "template"
    language: Language = "en"


def _now() -> datetime:
    return datetime.now(UTC)


class SearchRequest(Value):
    """One search, or with ``query=None`` one request for recommendations.

    Attributes:
        user_id: None for an anonymous shopper: then nothing is said about anybody.
        k: how many places are shown; all candidates are ranked, the first k matter.
        at: the moment of the search: no later event is looked at.
        context: short facts of the moment worth telling the model, such as ``occasion: gift``.
        language: of the prompt; None follows the query, then the setting.
        deadline_ms: past it the answer is the fallback order; None takes the setting.
    """

    request_id: Identifier = Field(default_factory=lambda: uuid4().hex)
    query: Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000)] | None = None
    user_id: Identifier | None = None
    k: Annotated[int, Field(ge=1, le=1000)] = 10
    at: AwareDatetime = Field(default_factory=_now)
    filters: Filters = Filters()
    context: FrozenMapping = Field(default_factory=dict, validate_default=True)
    language: Language | None = None
    deadline_ms: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="after")
    def _query_not_blank(self) -> Self:
        if self.query == "":
            message = "the query is blank; leave it out (None) to ask for recommendations"
            raise ValueError(message)
        return self


class Candidate(Value):
    """A recalled product with the evidence of its recall, which no later stage changes.

    Attributes:
        recall_rank: 1-based.
        recall_score: of the recall that made the order (for hybrid recall, the fused score).
        dense_rank: 1-based rank by embedding, None where embedding did not recall it.
        lexical_rank: 1-based rank by words, None where words did not recall it.
        from_history: recall had cut it off, and the shopper's own history brought it back.
    """

    product: Product
    recall_rank: Annotated[int, Field(ge=1)]
    recall_score: FiniteFloat
    dense_rank: int | None = None
    lexical_rank: int | None = None
    from_history: bool = False


class TemplateRef(Value):
    """The exact prompt template that was used."""

    name: str
    version: int
    language: Language
    sha256: str


class Prompt(Value):
    """One question to the language model about one window of candidates.

    Attributes:
        messages: the chat messages, in order; the candidates are in the last user message.
        order: slot i of the prompt shows candidate ``order[i]`` of the window.
        labels: for the ``labels`` readout, the label of each slot; empty for ``verdict``.
        token_count: estimate by the model's own tokenizer of the messages' text.
    """

    messages: tuple[BaseMessage, ...]
    order: tuple[int, ...]
    labels: tuple[str, ...]
    readout: Readout
    template: TemplateRef
    token_count: int


class SlotScores(Value):
    """What the language model said about the slots of one prompt.

    Attributes:
        logprobs: one natural-log probability a slot, in slot order.
        label_mass: probability on all labels together, 0 to 1; None for ``verdict``.
    """

    logprobs: tuple[FiniteFloat, ...]
    label_mass: float | None = None


Outcome = Literal["model", "repaired", "fallback"]
IssueCode = Literal[
    "model_error",
    "deadline",
    "low_label_mass",
    "bad_output",
    "profile_shortened",
    "cards_shortened",
    "index_behind",
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
        llm_logprob: the model's log-probability averaged over shuffles; None if it did not see it.
        interest: affinity of the shopper's profile to the product, 0 to 1; None without a profile.
        facts: what of the profile speaks for the product, the strongest first.
        placed_by: the stage that decided the place.
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
        outcome: ``model`` as planned, ``fallback`` where the model had no part in the order.
        personalised: whether a profile's text entered the prompt.
        label_mass: mean over prompts; None where the readout has none.
        instability: mean absolute change of rank between shuffles; None for one shuffle.
        windows: number of prompts that the model answered.
    """

    request_id: str
    items: tuple[RankedItem, ...]
    outcome: Outcome
    issues: tuple[Issue, ...] = ()
    personalised: bool = False
    label_mass: float | None = None
    instability: float | None = None
    windows: int = 0
    template: TemplateRef | None = None
    model: str | None = None
    adapter: str | None = None
    timings: Timings = Timings()
    deadline_hit: bool = False
