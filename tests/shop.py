"""A small shop that several tests look at."""

from reranker.schema import Candidate, Product


def products() -> tuple[Product, ...]:
    """Six products of a small electronics shop."""
    return (
        Product(
            product_id="p1",
            title="Smartphone 128 GB",
            brand="Norrland",
            category="Electronics > Phones",
            price=649.0,
            currency="EUR",
            attributes={"colour": "black"},
        ),
        Product(
            product_id="p2",
            title="Laptop 14 inch",
            brand="Kestrel",
            category="Electronics > Computers > Laptops",
            price=1199.0,
            currency="EUR",
            description="Aluminium body and a backlit keyboard.",
        ),
        Product(
            product_id="p3",
            title="Tablet 11 inch with pen",
            brand="Norrland",
            category="Electronics > Computers > Tablets",
            price=499.0,
            currency="EUR",
        ),
        Product(product_id="p4", title="USB-C cable 2 m", category="Electronics > Cables"),
        Product(product_id="p5", title="Coffee mug", brand="Tarn", price=8.5, currency="EUR"),
        Product(product_id="p6", title="Desk lamp", brand="Tarn", price=39.0, in_stock=False),
    )


def candidates(items: tuple[Product, ...] | None = None) -> tuple[Candidate, ...]:
    """Candidates in the order given."""
    return tuple(
        Candidate(product=product, recall_rank=rank, recall_score=1 / rank)
        for rank, product in enumerate(items if items is not None else products(), start=1)
    )
