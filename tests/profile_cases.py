"""A small shop and its shoppers, which the tests of profiles share."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from reranker.schema import Product, UserProfile
from reranker.settings import ProfileSettings
from retrieval.product_table import ProductTable
from retrieval.profiles import PastEvent, ProfileBuilder
from retrieval.profiles.history import microseconds

NOW = datetime(2025, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SHOPPER = "shopper-7"


class Words:
    """Counts words; a Chinese sentence counts as one."""

    def count(self, text: str) -> int:
        return len(text.split())

    def count_all(self, texts: Sequence[str]) -> list[int]:
        return [self.count(text) for text in texts]

    def truncate(self, text: str, max_tokens: int) -> str:
        return " ".join(text.split()[:max_tokens])


def product(number: int, **changes: Any) -> Product:
    values: dict[str, Any] = {
        "product_id": f"p{number}",
        "title": f"Thing {number}",
        "brand": "Tarn" if number % 2 else "Norrland",
        "category": f"Home > Kitchen > {'Mugs' if number % 3 else 'Plates'}",
        "price": float(number),
        **changes,
    }
    return Product(**values)


def table_of(*products: Product) -> ProductTable:
    return ProductTable.empty().upsert(products)[0]


TABLE = table_of(*(product(number) for number in range(1, 31)))


def past(
    days: float,
    kind: str = "click",
    number: int | None = 1,
    query: str | None = None,
    discount: float | None = None,
) -> PastEvent:
    """Return an event some days before now."""
    product_id = None if number is None else f"p{number}"
    return PastEvent(kind, microseconds(NOW - days * DAY), product_id, query, discount)


def searched(days: float, query: str) -> PastEvent:
    return past(days, "search", None, query)


def build(
    events: Sequence[PastEvent], *, table: ProductTable = TABLE, **changes: Any
) -> UserProfile:
    """Return the profile of events in any order; settings as keywords."""
    language = changes.pop("language", "en")
    timed = changes.pop("timed", True)
    as_of = changes.pop("as_of", NOW)
    builder = ProfileBuilder(table, ProfileSettings(**changes), Words())
    newest_first = sorted(events, key=lambda event: -event.at_us)
    profile = builder.build(SHOPPER, newest_first, as_of, language, timed=timed)
    assert profile is not None
    return profile
