"""What is counted over everybody takes returns for what a shopper's own profile takes them for."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from reranker.schema import BehaviourEvent, EventKind
from retrieval.behaviour import BehaviourStore
from retrieval.product_table import ProductTable
from retrieval.profiles.history import PURCHASE, History

START = datetime(2026, 1, 1, tzinfo=UTC)
END = START + timedelta(days=99)


def test_returns_undo_the_purchases_that_they_undo_in_profiles(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds = (EventKind.PURCHASE, EventKind.PURCHASE, EventKind.RETURN, EventKind.VIEW)
    events = {
        (user, moment, kind, product): BehaviourEvent(
            user_id=f"u{user}",
            kind=kind,
            at=START + timedelta(hours=moment),
            product_id=f"p{product}",
        )
        for user in range(20)
        for moment, kind, product in zip(
            rng.integers(0, 12, 30).tolist(),
            [kinds[number] for number in rng.integers(0, 4, 30)],
            rng.integers(0, 4, 30).tolist(),
            strict=True,
        )
    }
    with BehaviourStore(tmp_path) as store:
        store.append(list(events.values()))
        every = store.purchases(END, "analytics")
        found = store.purchases(END, "analytics", kept=True)
        expected: Counter[tuple[str, int]] = Counter()
        for user in range(20):
            past = store.history(f"u{user}", END, limit=1000)
            history = History.of(past, ProductTable.empty().lookup)
            for place in np.flatnonzero(history.kinds == PURCHASE).tolist():
                product = history.product_ids[place]
                assert product is not None
                expected[product, int(history.at_us[place])] += 1
    kept = Counter(
        (found.product_ids[product], at)
        for product, at in zip(found.product.tolist(), found.at_us.tolist(), strict=True)
    )
    assert 0 < len(found) < len(every)
    assert kept == expected
