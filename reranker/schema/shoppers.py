"""What shoppers did, and what is known of them."""

from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    FiniteFloat,
    StringConstraints,
    model_validator,
)

from reranker.schema.base import Identifier, Language, Query, Value


class EventKind(StrEnum):
    """What a shopper did, or was shown."""

    SEARCH = "search"
    IMPRESSION = "impression"
    VIEW = "view"
    CLICK = "click"
    FAVOURITE = "favourite"
    CART = "cart"
    PURCHASE = "purchase"
    RETURN = "return"


_Text = Annotated[str, StringConstraints(strip_whitespace=True)]


def _or_none(text: str | None) -> str | None:
    return text or None


class BehaviourEvent(Value):
    """One thing that a shopper did at one moment. Blank texts are none.

    Attributes:
        at: when it happened, with a time zone.
        position: 1-based place in the shown list.
        dwell_ms: how long the product page stayed open, in milliseconds.
        value: the amount paid for the whole line, in the shop's currency.
        discount: the amount that promotions and coupons took off the whole line, in the shop's
            currency; 0: bought at full price, None: not known.
    """

    user_id: Identifier
    kind: EventKind
    at: AwareDatetime
    product_id: Identifier | None = None
    query: Annotated[Query | None, AfterValidator(_or_none)] = None
    session_id: Annotated[_Text | None, AfterValidator(_or_none)] = None
    request_id: Annotated[_Text | None, AfterValidator(_or_none)] = None
    position: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    dwell_ms: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    quantity: Annotated[FiniteFloat, Field(gt=0)] | None = None
    value: Annotated[FiniteFloat, Field(ge=0)] | None = None
    discount: Annotated[FiniteFloat, Field(ge=0)] | None = None

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


_FEWEST_PURCHASES = 3
_DUE_FROM = 0.5
_ENDED_FROM = 3.0
"""In multiples of a rhythm. In groceries (Complete Journey, six purchases and more) 17 % are bought
again in the next week right after the last purchase, 24 to 28 % from a half to one and a half
times the rhythm after it, 18 % at twice to three times, and 6 % behind five times."""


class RepeatPurchase(Value):
    """A product bought at least twice.

    Attributes:
        interval_days: median days between purchases; None where all were on one day, or only
            their order is known.
        due_at: when the next purchase is to be expected, ``last_at`` plus the interval.
    """

    product_id: str
    title: str
    count: Annotated[int, Field(ge=2)]
    last_at: AwareDatetime
    interval_days: float | None
    due_at: AwareDatetime | None = None

    def days_since(self, moment: datetime) -> int:
        """Return the whole days, by UTC dates, from the last purchase to a moment."""
        return (moment.astimezone(UTC).date() - self.last_at.astimezone(UTC).date()).days

    @property
    def rhythm(self) -> float | None:
        """The interval, if it rests on three purchases: the one gap between two says little."""
        return self.interval_days if self.count >= _FEWEST_PURCHASES else None

    def is_due(self, moment: datetime) -> bool:
        """Tell whether it is time to buy it again: half to three times its rhythm ago."""
        if self.rhythm is None:
            return False
        return _DUE_FROM <= self.days_since(moment) / self.rhythm <= _ENDED_FROM

    def has_ended(self, moment: datetime) -> bool:
        """Tell whether the rhythm was broken off: more than three times its length has passed."""
        if self.rhythm is None:
            return False
        return self.days_since(moment) / self.rhythm > _ENDED_FROM


class PriceSense(Value):
    """How dear a shopper buys, whatever it is.

    Attributes:
        relative: price of what was bought, relative to the median price of its category: 1 is
            the usual price. A geometric mean, in which later purchases count more.
        evidence: number of purchases behind it.
    """

    relative: Annotated[FiniteFloat, Field(gt=0)]
    evidence: Annotated[int, Field(ge=1)]


class PromotionUse(Value):
    """How often a shopper buys at a discount.

    Attributes:
        discounted: number of purchases at a discount.
        purchases: number of purchases of which it is known whether they were.
    """

    discounted: Annotated[int, Field(ge=0)]
    purchases: Annotated[int, Field(ge=1)]


class SessionIntent(Value):
    """What a shopper has done since the present visit began.

    Attributes:
        queries: newest first, without repetition.
        items: products touched, newest first.
    """

    started_at: AwareDatetime
    queries: tuple[str, ...] = ()
    items: tuple[RecentItem, ...] = ()


class UserProfile(Value):
    """What is known of one shopper from events strictly before ``as_of``.

    Attributes:
        recent_items: newest first, one entry a product: bought ones, and as many others at most.
        returned_items: sent back and not bought again since, newest first.
        repeat_purchases: most often bought first.
        purchases: how often each product was bought that was not sent back, the one bought last
            first: the learned interest goes by what was bought lately.
        recent_queries: newest first, without repetition.
        price: None where too few prices are known.
        promotions: None where the events do not tell of discounts.
        query_language: of most queries; None for fewer than three.
        session: the visit that goes on at ``as_of``; None where there is none.
        event_count: number of events that it rests on.
        timed: False where only the order of the events is known.
        summary: the text that enters the prompt; bounded in tokens.
    """

    user_id: Identifier
    as_of: AwareDatetime
    affinities: tuple[Affinity, ...] = ()
    recent_items: tuple[RecentItem, ...] = ()
    returned_items: tuple[RecentItem, ...] = ()
    repeat_purchases: tuple[RepeatPurchase, ...] = ()
    purchases: dict[Identifier, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    recent_queries: tuple[str, ...] = ()
    price: PriceSense | None = None
    promotions: PromotionUse | None = None
    query_language: Language | None = None
    session: SessionIntent | None = None
    event_count: Annotated[int, Field(ge=1)]
    timed: bool = True
    summary: str
    summary_origin: Literal["template", "llm"] = "template"
    language: Language = "en"
