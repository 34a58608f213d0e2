"""A shop to recall products from, and an embedder that remembers what it was asked for."""

from collections.abc import Sequence

from reranker.schema import Candidate, Product
from reranker.settings import RetrievalSettings
from retrieval.embedder import CountProgress, SentenceTransformerEmbedder, Vectors

KINDS = {
    "running shoes": "Sport > Shoes",
    "football": "Sport > Balls",
    "tomato soup": "Food > Soups",
    "green tea": "Food > Drinks",
    "desk lamp": "Home > Lighting",
    "coffee mug": "Home > Kitchen",
}
BRANDS = ("Acme", "Borealis", "Cirrus", "Dune", "Ember")
STYLES = ("classic", "light", "premium", "travel")
SETTINGS = RetrievalSettings(arm_depth=30)
QUERIES = ("something to jog in", "hot drink", "light Acme lamp", "soup", "gift for a footballer")


class CountingEmbedder(SentenceTransformerEmbedder):
    """MiniLM that remembers which product texts it was asked for."""

    def encode(self, texts: Sequence[str], *, progress: CountProgress | None = None) -> Vectors:
        self.seen = [*getattr(self, "seen", []), *texts]
        return super().encode(texts, progress=progress)


def _shop() -> list[Product]:
    products = [
        Product(
            product_id=f"{kind.split()[-1]}-{brand}-{style}",
            title=f"{brand} {style} {kind}",
            brand=brand,
            category=category,
            price=float(5 + 7 * place + len(style)),
            in_stock=(place + len(style)) % 3 != 0,
        )
        for kind, category in KINDS.items()
        for place, brand in enumerate(BRANDS)
        for style in STYLES
    ]
    twin = products[0].model_copy(update={"product_id": "twin", "price": 1.0})
    part = Product(product_id="part", title="Replacement part XQ7731")
    return [*products, twin, part]


PRODUCTS = _shop()


def ids(candidates: Sequence[Candidate]) -> list[str]:
    return [candidate.product.product_id for candidate in candidates]
