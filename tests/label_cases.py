"""Labels of a few events, which the tests of labels share."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from reranker.schema import BehaviourEvent, EventKind, Impression, ShownItem
from reranker.settings import LabelSettings
from retrieval.behaviour import BehaviourStore
from retrieval.labels import LabelReport, build_labels

START = datetime(2025, 5, 1, 12, tzinfo=UTC)
LATER = START + timedelta(days=30)


def event(minutes: float, kind: str, product: str | None = None, **more: Any) -> BehaviourEvent:
    """Return an event some minutes after the start."""
    values = {"user_id": "shopper-7", "product_id": product, **more}
    return BehaviourEvent(kind=EventKind(kind), at=START + timedelta(minutes=minutes), **values)


def shown(
    minutes: float, *products: str, request: str | None = "r1", **more: Any
) -> list[BehaviourEvent]:
    return [
        event(minutes, "impression", product, request_id=request, position=place, **more)
        for place, product in enumerate(products, start=1)
    ]


class Labels:
    """Labels of events, and the report on them."""

    def __init__(self, folder: Path, events: Sequence[BehaviourEvent], **changes: Any) -> None:
        as_of = changes.pop("as_of", LATER)
        file = folder / "labels.parquet"
        with BehaviourStore(folder / "store") as store:
            store.append(events)
            self.report: LabelReport = build_labels(
                store, file, as_of, settings=LabelSettings(**changes)
            )
        self.lists: list[Impression] = [
            Impression.model_validate(row) for row in pq.read_table(file).to_pylist()
        ]

    def item(self, product: str, request: str = "r1") -> ShownItem:
        (found,) = [
            item
            for each in self.lists
            for item in each.items
            if (each.request_id, item.product_id) == (request, product)
        ]
        return found

    def grade(self, product: str, request: str = "r1") -> int:
        return self.item(product, request).grade
