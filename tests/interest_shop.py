"""A shop whose shoppers each buy things of one kind, to learn an interest from."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from reranker.schema import BehaviourEvent, EventKind, Product
from retrieval.behaviour import BehaviourStore
from retrieval.product_table import ProductTable

START = datetime(2026, 1, 1, tzinfo=UTC)
LEARNT = START + timedelta(days=30)
KINDS = ("tea", "soap", "rope")


def name(kind: int, number: int) -> str:
    return f"{KINDS[kind]}-{number}"


def purchases(shoppers: int, days: int = 5) -> list[BehaviourEvent]:
    """Everybody buys things of one kind, number 0 of it first: it sells best."""
    rng = np.random.default_rng(0)
    found = []
    for user in range(shoppers):
        numbers = [0, *(1 + rng.permutation(9)[: days - 1]).tolist()]
        for day, number in enumerate(numbers):
            found.append(
                BehaviourEvent(
                    user_id=f"shopper {user}",
                    kind=EventKind.PURCHASE,
                    at=START + timedelta(days=day, minutes=user),
                    product_id=name(user % 3, number),
                )
            )
    return found


def write_shop(folder: Path) -> Path:
    """Write a catalogue and the purchases of 90 shoppers into a store."""
    table_of().save(folder / "catalogue" / "products.arrow")
    with BehaviourStore(folder) as store:
        store.append(purchases(90))
    return folder


def table_of(numbers: int = 10) -> ProductTable:
    found = [
        Product(product_id=name(kind, number), title=f"{KINDS[kind]} {number}", category="Things")
        for kind in range(3)
        for number in range(numbers)
    ]
    return ProductTable.empty().upsert(found)[0]
