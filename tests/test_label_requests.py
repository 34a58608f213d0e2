"""Labels: which list a request id names, and what returns take back."""

from datetime import timedelta
from pathlib import Path

import pytest

from label_cases import LATER, START, Labels, event, shown
from reranker.schema import EventKind


def test_what_is_sent_back_counts_nothing(tmp_path: Path) -> None:
    events = [
        *shown(0, "back", "kept", "one of two"),
        *(event(1, "click", each) for each in ("back", "kept", "one of two")),
        *(event(2, "purchase", each) for each in ("back", "kept", "one of two")),
        event(3, "purchase", "one of two"),
        event(9000, "return", "back"),
        event(9000, "return", "one of two"),
    ]
    labels = Labels(tmp_path, events)
    assert [labels.grade(each) for each in ("back", "kept", "one of two")] == [0, 3, 3]
    assert labels.item("back").outcome is EventKind.RETURN
    assert labels.report.returned == 2
    # As known before the return.
    before = Labels(tmp_path / "before", events, as_of=START + timedelta(minutes=9000))
    assert before.grade("back") == 3


def test_every_return_takes_another_purchase_back(tmp_path: Path) -> None:
    events = [
        *shown(0, "a", request="r1"),
        event(1, "purchase", "a", request_id="r1"),
        *shown(100, "a", request="r2"),
        event(101, "purchase", "a", request_id="r2"),
        event(5000, "return", "a"),
        event(6000, "return", "a"),
    ]
    labels = Labels(tmp_path, events)
    assert [labels.grade("a", request) for request in ("r1", "r2")] == [0, 0]
    assert labels.report.returned == 2
    once = Labels(tmp_path / "once", events[:-1])
    assert [once.grade("a", request) for request in ("r1", "r2")] == [3, 0]


@pytest.mark.parametrize(
    ("bought", "returned", "grade"),
    [
        (3, [1], 3),
        (3, [1, 1], 3),
        (3, [1, 2], 0),
        (3, [5], 0),
        (3, [None], 3),
        (None, [None], 0),
        (0.3, [0.1, 0.1], 3),
        (0.3, [0.1, 0.1, 0.1], 0),
    ],
)
def test_a_purchase_counts_while_a_piece_is_kept(
    tmp_path: Path, bought: float | None, returned: list[float | None], grade: int
) -> None:
    events = [*shown(0, "a"), event(1, "purchase", "a", quantity=bought)]
    events += [
        event(5000 + place, "return", "a", quantity=pieces) for place, pieces in enumerate(returned)
    ]
    labels = Labels(tmp_path, events)
    assert labels.grade("a") == grade
    assert labels.report.returned == (grade == 0)


def test_request_ids_may_be_counted_anew_in_each_visit(tmp_path: Path) -> None:
    month = 30 * 1440.0
    events = [
        *shown(0, "m1", "m2", "both", request="1", session_id="s1", query="milk"),
        event(1, "click", "both", request_id="1", session_id="s1"),
        *shown(month, "b1", "b2", "both", request="1", session_id="s2", query="beer"),
        event(month + 1, "click", "b1", request_id="1", session_id="s2"),
        event(month + 2, "cart", "both", request_id="1", session_id="s2"),
    ]
    labels = Labels(tmp_path, events, as_of=LATER + timedelta(days=30))
    milk, beer = labels.lists
    assert [each.query for each in labels.lists] == ["milk", "beer"]
    assert [each.request_id for each in labels.lists] == ["1", "1#2"], "evaluation asks by name"
    assert [(item.product_id, item.grade) for item in milk.items] == [
        ("m1", 0), ("m2", 0), ("both", 1),
    ]  # fmt: skip
    assert [(item.product_id, item.grade) for item in beer.items] == [
        ("b1", 1), ("b2", 0), ("both", 2),
    ]  # fmt: skip
    assert labels.report.attributed == {"click": {"request": 2}, "cart": {"request": 1}}


def test_a_request_of_one_visit_is_known_in_the_next(tmp_path: Path) -> None:
    events = [
        *shown(0, "a", session_id="s1"),
        event(20 * 1440, "purchase", "a", request_id="r1", session_id="s2"),
    ]
    labels = Labels(tmp_path, events)
    assert labels.item("a").attribution == "request"
    assert labels.grade("a") == 3
