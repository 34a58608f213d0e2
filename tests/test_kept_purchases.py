"""What is counted over everybody takes returns for what a shopper's own profile takes them for."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np

from reranker.schema import BehaviourEvent, EventKind
from retrieval.behaviour import BehaviourStore
from retrieval.product_table import ProductTable
from retrieval.profiles.history import PURCHASE, History
from retrieval.returns import sent_back

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


def test_pieces_go_back_from_the_latest_purchases_that_have_some_left() -> None:
    rng = np.random.default_rng(1)
    events = [
        (place, f"s{shopper}", f"p{product}", "return" if back else "purchase", pieces or None)
        for place, (shopper, product, back, pieces) in enumerate(
            zip(
                rng.integers(0, 9, 900).tolist(),
                rng.integers(0, 4, 900).tolist(),
                (rng.random(900) < 0.4).tolist(),
                rng.integers(0, 5, 900).tolist(),
                strict=True,
            )
        )
    ]
    left: dict[int, float] = {}
    bought: dict[tuple[str, str], list[int]] = {}
    for place, shopper, product, kind, pieces in events:
        stack = bought.setdefault((shopper, product), [])
        if kind == "purchase":
            left[place] = pieces or 1
            stack.append(place)
            continue
        going = pieces or 1
        while going and stack:
            taken = min(going, left[stack[-1]])
            left[stack[-1]] -= taken
            going -= taken
            if not left[stack[-1]]:
                stack.pop()
    with duckdb.connect() as connection:
        connection.execute(
            """CREATE TABLE moved (place INT, shopper VARCHAR, product_id VARCHAR, kind VARCHAR,
            quantity DOUBLE)"""
        )
        connection.executemany("INSERT INTO moved VALUES (?, ?, ?, ?, ?)", events)
        found = connection.execute(f"SELECT place FROM {sent_back('moved', 'place')}").fetchall()
    expected = {place for place, pieces in left.items() if not pieces}
    assert 100 < len(expected) < len(left)
    assert {place for (place,) in found} == expected
