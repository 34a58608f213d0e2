"""Products of the shop, and the conditions that a request puts on them."""

import unicodedata
from typing import Annotated, Self

from pydantic import Field, FiniteFloat, StringConstraints, model_validator

from reranker.schema.base import FrozenMapping, Identifier, Value

CATEGORY_SEPARATOR = " > "


def category_paths(category: str | None) -> tuple[str, ...]:
    """Return a category and its ancestors, folded for comparison.

    A category is a path such as ``Grocery > Dairy > Yogurt``; a filter on ``grocery`` matches it.
    """
    if not category:
        return ()
    parts = [part.strip().casefold() for part in category.split(CATEGORY_SEPARATOR.strip())]
    return tuple(CATEGORY_SEPARATOR.join(parts[: depth + 1]) for depth in range(len(parts)))


def folded_brand(brand: str) -> str:
    """Return a brand as it is compared: without case, and each accent spelt in one way."""
    return unicodedata.normalize("NFC", brand.casefold())


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

    A product without a price never meets a price bound. Category and brand ignore case, the
    brand also how its accents are spelt, and a category covers everything below it.
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
        wanted = {folded_brand(name) for name in self.brands}
        return not wanted or (brand is not None and folded_brand(brand) in wanted)

    def _matches_price(self, price: float | None) -> bool:
        if self.min_price is None and self.max_price is None:
            return True
        if price is None:
            return False
        low = self.min_price if self.min_price is not None else 0.0
        high = self.max_price if self.max_price is not None else float("inf")
        return low <= price <= high
