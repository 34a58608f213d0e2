"""A small shop that several tests look at."""

from typing import Any

import pyarrow as pa

from reranker.schema import BehaviourEvent, Candidate, Product
from retrieval.behaviour import BehaviourStore

SHOPPERS = (
    *("7", "a,b,c,d,e", "alice", "anna", "ben", "bot", "buyer", "c", "c1", "cem", "dan", "day"),
    *("first", "gallery", "human", "kiosk", "other", "reader", "session1", "twice", "u", "u1"),
    *("u2", "u3", "user1", "用户", "CLIENT-9a9968ac-664b-42d7-9a9e-96f412b5ab49"),
)
"""The user ids in tests; a store does not tell them."""


def stored(store: BehaviourStore, *fields: str, where: str = "true") -> list[tuple[Any, ...]]:
    """Return the events of a store, with user ids as they were before they became pseudonyms."""
    names = {"user_id": SHOPPERS, "hex": [store.pseudonym(name).hex for name in SHOPPERS]}
    columns = ", ".join(f'"{name}"' for name in fields or BehaviourEvent.model_fields)
    with store.reading() as connection:
        connection.register("names", pa.table(names))
        return connection.execute(
            f"""SELECT {columns} FROM event LEFT JOIN names ON shopper = hex::UUID
            WHERE {where} ORDER BY ALL"""
        ).fetchall()


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
