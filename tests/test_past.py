import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.cases import Case, Target
from eval.past import Past, Purchases, TimeGuard, read_purchases
from eval.past.leaks import leaked_cases
from eval.past.poison import poisoned_case, poisoned_purchases
from eval.past.purchases import UNTIMED, ShopperSequence
from reranker.errors import DataError
from reranker.schema import Product
from retrieval.product_table import ProductTable

CUT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def table() -> ProductTable:
    products = [Product(product_id=each, title=f"Thing {each}") for each in "abcdef"]
    return ProductTable.empty().upsert(products)[0]


def sequence(user: str | None, products: str, days: list[int] | None = None) -> ShopperSequence:
    """Purchases of single letters; days are counted from the cut."""
    moments = [CUT + timedelta(days=day) for day in days or []]
    at_us = [int(moment.timestamp() * 1_000_000) for moment in moments]
    return ShopperSequence(user, tuple(products), tuple(at_us or [UNTIMED] * len(products)))


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_counts_are_of_shoppers(table: ProductTable) -> None:
    past = Past(
        Purchases.of([sequence("u", "aab"), sequence("v", "ab"), sequence("w", "bc?")]), table
    )
    assert past.popularity.tolist() == [2, 3, 1, 0, 0, 0]
    assert (past.unknown, past.shoppers, past.purchases) == (1, 3, 7)


def test_cooccurrence_is_the_cosine_of_columns(table: ProductTable) -> None:
    past = Past(
        Purchases.of([sequence("u", "ab"), sequence("v", "abc"), sequence("w", "c")]), table
    )
    together = past.cooccurrence(np.array([0]))
    assert together[1] == pytest.approx(2 / np.sqrt(2 * 2))
    assert together[2] == pytest.approx(1 / np.sqrt(2 * 2))
    assert together[3] == 0
    both = past.cooccurrence(np.array([0, 1]))
    assert both[2] == pytest.approx(2 * together[2])
    assert past.cooccurrence(np.empty(0, np.int64)).tolist() == [0.0] * 6
    assert past.cooccurrence(np.array([5])).tolist() == [0.0] * 6


def test_transitions_of_one_shopper_count_once_and_end_at_the_sequence(table: ProductTable) -> None:
    purchases = Purchases.of(
        [sequence("u", "ab"), sequence("u", "abc"), sequence("v", "ab"), sequence("w", "da")]
    )
    past = Past(purchases, table)
    assert past.transitions(0).tolist() == [0, 2, 0, 0, 0, 0]
    assert past.transitions(1).tolist() == [0, 0, 1, 0, 0, 0]
    assert past.transitions(2).tolist() == [0.0] * 6


def test_wide_files(tmp_path: Path) -> None:
    file = lines(
        tmp_path / "past.jsonl",
        [
            {"user_id": "u", "product_ids": ["a", "b"]},
            {"user_id": "v", "history": ["a"], "target": "c", "at": "2026-03-01T00:00:00Z"},
            {"history": ["d"], "history_at": ["2026-02-01T00:00:00Z"]},
        ],
    )
    found = list(read_purchases(file).sequences())
    at = int(CUT.timestamp() * 1_000_000)
    assert found[0] == ShopperSequence("u", ("a", "b"), (UNTIMED, UNTIMED))
    assert found[1] == ShopperSequence("v", ("a", "c"), (UNTIMED, at))
    assert found[2].user is None
    assert found[2].at_us == (at - 28 * 86_400_000_000,)


def test_event_files(tmp_path: Path) -> None:
    file = tmp_path / "events.csv"
    file.write_text(
        "user_id,kind,product_id,at\n"
        "u,purchase,b,2026-02-02T00:00:00Z\nu,view,c,2026-02-01T00:00:00Z\n"
        "u,search,,2026-02-01T00:00:00Z\nu,purchase,a,2026-02-01T00:00:00Z\n"
        ",purchase,d,2026-02-01T00:00:00Z\n"
    )
    found = {each.user: each.products for each in read_purchases(file).sequences()}
    assert found == {"u": ("a", "b"), None: ("d",)}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"history": "a"}, "row 1, history: not a list"),
        ({"history": ["a", None]}, r"row 1, history\[1\]"),
        ({"product_ids": ["a"], "times": [1e9, 2e9]}, "row 1, history_at: 2 times for 1"),
        ({"product_id": "a", "at": "soon"}, "row 1, at: not a time"),
        ({"colour": "red"}, "row 1, product_id"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    file = lines(tmp_path / "past.jsonl", [row])
    with pytest.raises(DataError, match=message):
        read_purchases(file)


def test_the_guard_keeps_what_is_strictly_before(table: ProductTable) -> None:
    guard = TimeGuard(cut=CUT, embargo=timedelta(days=2))
    purchases = Purchases.of(
        [sequence("u", "abcd", [-9, -3, -2, 1]), sequence("v", "ef")]  # v without times
    )
    assert [e.products for e in guard.purchases(purchases).sequences()] == [("a", "b"), ("e", "f")]
    assert TimeGuard().purchases(purchases) is purchases


def test_the_guard_cuts_histories(table: ProductTable) -> None:
    guard = TimeGuard(cut=CUT)
    at = tuple(CUT + timedelta(days=day) for day in (-2, -1, 0, 3))
    case = Case(case_id="c", at=CUT + timedelta(days=5), history=tuple("abcd"), history_at=at)
    assert guard.case(case).history == ("a", "b")
    assert TimeGuard().case(case.model_copy(update={"at": at[1]})).history == ("a",)
    untimed = Case(case_id="c", history=("a", "b"))
    assert guard.case(untimed) is untimed


def test_a_cut_is_before_every_case() -> None:
    cases = [Case(case_id=str(day), at=CUT + timedelta(days=day)) for day in (1, 2)]
    assert TimeGuard.of(cases).cut == CUT + timedelta(days=1)
    assert TimeGuard.of([Case(case_id="c")]).end is None
    guard = TimeGuard.of(cases, cut=CUT, embargo_hours=24)
    assert guard.end == CUT - timedelta(days=1)
    with pytest.raises(DataError, match="1 of 2 cases are before the cut"):
        TimeGuard.of(cases, cut=CUT + timedelta(days=2))


def test_an_answer_among_the_purchases_is_found() -> None:
    purchases = Purchases.of([sequence("u", "abc"), sequence("v", "a"), sequence(None, "c")])
    new = (Target(product_id="c"),)
    cases = [
        Case(case_id="leaks", user_id="u", history=("a",), targets=new),
        Case(case_id="repeats", user_id="u", history=("a", "c"), targets=new),
        Case(case_id="clean", user_id="v", history=("a",), targets=new),
        Case(case_id="nobody", history=("a",), targets=new),
    ]
    assert leaked_cases(cases, purchases) == ("leaks",)


def test_poison_lies_behind_the_cut_and_nothing_before_changes(table: ProductTable) -> None:
    guard = TimeGuard(cut=CUT, embargo=timedelta(hours=1))
    purchases = Purchases.of([sequence("u", "ab", [-9, -8])])
    case = Case(case_id="c", user_id="u", at=CUT, targets=(Target(product_id="c"),))
    spoilt, added = poisoned_purchases(purchases, [case], guard)
    assert added == 26
    assert len(spoilt) == 28
    kept = guard.purchases(spoilt)
    assert next(iter(kept.sequences())) == next(iter(purchases.sequences()))
    assert len(kept) == 2
    later = poisoned_case(case, guard)
    assert later.history == ("c", "c", "c")
    assert guard.case(later).history == ()
    untimed = case.model_copy(update={"history": ("a",)})
    assert poisoned_case(untimed, guard) is untimed
