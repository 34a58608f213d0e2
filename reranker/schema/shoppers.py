"""What shoppers did, and what is known of them."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, FiniteFloat, model_validator

from reranker.schema.base import Identifier, Language, Value


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
