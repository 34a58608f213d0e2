"""A shop's data as files, and the smallest shop."""

from importlib.resources import files
from pathlib import Path

from reranker.schema import Value


class ShopFiles(Value):
    """A shop's data as files that the importers take.

    Attributes:
        campaigns: more events: what was offered and taken up; None where there are none.
        source: of the data, for people.
    """

    products: Path
    events: Path
    campaigns: Path | None = None
    source: str


def seed_example() -> ShopFiles:
    """Return the smallest shop: three products and the shoppers A, B and C."""
    folder = Path(str(files("eval.datasets"))) / "seed"
    return ShopFiles(
        products=folder / "products.jsonl",
        events=folder / "events.jsonl",
        source="the seed example",
    )
