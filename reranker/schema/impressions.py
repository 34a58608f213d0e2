"""Lists that were shown, and what became of each product on them."""

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from reranker.schema.base import Identifier, Value
from reranker.schema.shoppers import EventKind

GRADES: Mapping[EventKind, int] = {
    EventKind.CLICK: 1,
    EventKind.FAVOURITE: 2,
    EventKind.CART: 2,
    EventKind.PURCHASE: 3,
}
"""What an event makes of a shown item; the highest counts. A view (of the page) is no click."""

Probability = Annotated[float, Field(gt=0, le=1)]
Attribution = Literal["request", "query", "touch", "product"]


class ShownItem(Value):
    """A product in its place on a list that was shown.

    Attributes:
        position: 1-based.
        propensity: probability that the policy puts this product in this place for this request;
            None where the policy did not tell.
        prefix_propensity: probability of the whole list down to and with this place.
        grade: 0 shown, 1 clicked, 2 favourite or cart, 3 bought; 0 as well for what was bought and
            sent back.
        outcome: the strongest thing done to it; None for nothing.
        attribution: how that was found to belong to this list: by the request id, by the same
            shopper's query, by an earlier touch of the product on this list, or by the product.
        dwell_ms: longest time on its page, in milliseconds; None where nothing tells.
    """

    product_id: Identifier
    position: Annotated[int, Field(ge=1)]
    propensity: Probability | None = None
    prefix_propensity: Probability | None = None
    grade: Annotated[int, Field(ge=0)] = 0
    outcome: EventKind | None = None
    attribution: Attribution | None = None
    dwell_ms: Annotated[int, Field(ge=0)] | None = None


class Impression(Value):
    """One list that was shown.

    Attributes:
        user_id: None for an anonymous shopper, who counts as a shopper of their own.
        session_id: of the shopper's visit; unique for the shopper only.
        policy: name of what ordered the list.
        pool: product ids that the policy drew the list from, in the ranker's order; empty where it
            did not tell. What another policy would have earned can be told only if that policy
            ranks all of them.
        items: by position; places may be missing, no place or product comes twice.
    """

    request_id: Identifier
    user_id: Identifier | None = None
    session_id: str | None = None
    query: str | None = None
    at: AwareDatetime | None = None
    policy: str = ""
    pool: tuple[Identifier, ...] = ()
    items: Annotated[tuple[ShownItem, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        for name in ("position", "product_id"):
            values = [getattr(item, name) for item in self.items]
            if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
                message = f"items: {name} {twice[0]!r} comes twice in one list"
                raise ValueError(message)
        return self
