"""Labels: what was shown is graded by what led from it to where, and by nothing that came later."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from label_cases import LATER, START, Labels, event, shown
from reranker.schema import EventKind
from retrieval.behaviour import BehaviourStore
from retrieval.labels import build_labels


@pytest.fixture
def folders(tmp_path: Path) -> Iterator[Path]:
    return (tmp_path / str(number) for number in range(99))


def test_the_strongest_deed_makes_the_grade(tmp_path: Path) -> None:
    deeds = {"click": 1, "favourite": 2, "cart": 2, "purchase": 3}
    events = shown(0, "nothing", *deeds, "glance", "look")
    events += [event(1, kind, kind, request_id="r1") for kind in deeds]
    events += [event(2, "click", "purchase"), event(3, "view", "glance", dwell_ms=29_999)]
    events += [event(4, "view", "look", dwell_ms=30_000)]
    labels = Labels(tmp_path, events)
    assert {kind: labels.grade(kind) for kind in deeds} == deeds
    assert [labels.grade(each) for each in ("nothing", "glance", "look")] == [0, 0, 1]
    assert labels.item("purchase").outcome is EventKind.PURCHASE
    assert labels.item("nothing").outcome is None
    assert labels.report.grades == {0: 2, 1: 2, 2: 2, 3: 1}
    assert labels.report.viewed_only == 2


def test_a_list_says_where_it_comes_from(tmp_path: Path) -> None:
    labels = Labels(tmp_path, shown(0, "a", "b", query="Green  Tea"))
    (found,) = labels.lists
    assert (found.request_id, found.query, found.at) == ("r1", "Green  Tea", START)
    assert [(item.product_id, item.position) for item in found.items] == [("a", 1), ("b", 2)]
    assert found.user_id is not None
    assert found.user_id.startswith("pseudonym:")
    assert "shopper-7" not in found.model_dump_json()
    assert (labels.report.lists, labels.report.items, labels.report.sessions) == (1, 2, 1)


def test_the_request_id_goes_before_all(tmp_path: Path) -> None:
    events = [*shown(0, "a", request="old"), *shown(5, "a", request="new", query="tea")]
    deed = event(6, "click", "a", request_id="old", query="tea")
    labels = Labels(tmp_path, [*events, deed])
    assert (labels.grade("a", "old"), labels.grade("a", "new")) == (1, 0)
    assert labels.item("a", "old").attribution == "request"


def test_then_the_query_within_its_window(tmp_path: Path, folders: Iterator[Path]) -> None:
    events = [
        *shown(0, "a", request="tea", query="tea"),
        *shown(5, "a", request="mug", query="mug"),
    ]
    deed = event(100, "cart", "a", query=" TEA")
    near = Labels(next(folders), [*events, deed], query_window_hours=2)
    assert (near.grade("a", "tea"), near.grade("a", "mug")) == (2, 0)
    assert near.item("a", "tea").attribution == "query"
    far = Labels(next(folders), [*events, deed], query_window_hours=1)
    assert (far.grade("a", "tea"), far.grade("a", "mug")) == (0, 2)
    assert far.item("a", "mug").attribution == "product"


def test_a_purchase_follows_click_and_cart_to_the_list_that_led_to_them(tmp_path: Path) -> None:
    events = [
        *shown(0, "a", request="led"),
        event(1, "click", "a", request_id="led"),
        *shown(2, "a", request="passed by"),
        event(3, "cart", "a"),
        *shown(4, "a", request="checkout"),
        event(5, "purchase", "a"),
    ]
    labels = Labels(tmp_path, events)
    assert labels.grade("a", "led") == 3
    assert labels.grade("a", "passed by") == labels.grade("a", "checkout") == 0
    assert labels.report.attributed == {
        "cart": {"touch": 1},
        "click": {"request": 1},
        "purchase": {"touch": 1},
    }


def test_last_touch_else_last_shown_and_each_purchase_once(tmp_path: Path) -> None:
    events = [
        *shown(0, "a", "b", request="r1"),
        *shown(10, "a", "b", request="r2"),
        event(11, "click", "a", request_id="r1"),
        event(12, "click", "a", request_id="r2"),
        event(20, "purchase", "a"),
        event(21, "purchase", "b"),
    ]
    labels = Labels(tmp_path, events)
    assert [labels.grade("a", "r1"), labels.grade("a", "r2")] == [1, 3]
    assert [labels.grade("b", "r1"), labels.grade("b", "r2")] == [0, 3]
    assert sum(item.grade == 3 for each in labels.lists for item in each.items) == 2


def test_nothing_is_put_down_to_a_later_or_an_old_list_or_another_shopper(tmp_path: Path) -> None:
    events = [
        event(0, "purchase", "a"),
        *shown(1, "a"),
        *shown(2, "b"),
        event(2 + 7 * 1440 + 1, "purchase", "b"),
        *shown(3, "c"),
        event(4, "purchase", "c", user_id="another"),
    ]
    labels = Labels(tmp_path, events)
    assert [labels.grade(each) for each in "abc"] == [0, 0, 0]
    assert labels.report.unattributed == {"purchase": 3}


def test_sessions_end_by_a_gap_or_by_the_shop(tmp_path: Path, folders: Iterator[Path]) -> None:
    gap = [*shown(0, "a", request="r1"), *shown(31, "a", request="r2")]
    assert Labels(next(folders), gap).report.sessions == 2
    assert Labels(next(folders), gap, session_minutes=31).report.sessions == 1
    told = [
        *shown(0, "a", request="r1", session_id="s1"),
        *shown(1, "a", request="r2", session_id="s1"),
        *shown(2, "a", request="r3", session_id="s2"),
    ]
    labels = Labels(next(folders), told)
    assert labels.report.sessions == 2
    assert [each.session_id for each in labels.lists] == ["session-1", "session-1", "session-2"]


def test_dwell_is_told_or_ends_with_the_next_event(tmp_path: Path) -> None:
    events = [
        *shown(0, "told", "next", "capped", "last"),
        event(1, "click", "told", dwell_ms=4_000),
        event(2, "click", "next"),
        *shown(2.1, "x", request="r2"),
        event(2.5, "search", query="mug"),
        event(3, "click", "capped"),
        event(20, "click", "last"),
    ]
    labels = Labels(tmp_path, events)
    dwell = {name: labels.item(name).dwell_ms for name in ("told", "next", "capped", "last")}
    assert dwell == {"told": 4_000, "next": 30_000, "capped": 600_000, "last": None}
    assert (labels.report.dwell_told, labels.report.dwell_derived) == (1, 2)


def test_pages_that_count_from_one_each_are_put_in_a_row(tmp_path: Path) -> None:
    labels = Labels(tmp_path, [*shown(0, "a", "b"), *shown(1, "c", "a")])
    (found,) = labels.lists
    assert [item.product_id for item in found.items] == ["a", "b", "c"]
    assert [item.position for item in found.items] == [1, 2, 3]


def test_impressions_without_request_are_a_list_by_their_moment(tmp_path: Path) -> None:
    events = [*shown(0, "a", "b", request=None), *shown(1, "a", request=None)]
    unplaced = event(2, "impression", "z", request_id="r9")
    labels = Labels(tmp_path, [*events, unplaced])
    assert [len(each.items) for each in labels.lists] == [2, 1]
    assert labels.report.without_position == 1


def test_lists_whose_outcome_is_still_open_are_left_out(tmp_path: Path) -> None:
    events = [*shown(0, "a", request="r1"), *shown(60, "a", request="r2")]
    as_of = START + timedelta(hours=24, minutes=30)
    labels = Labels(tmp_path, events, as_of=as_of)
    assert [each.request_id for each in labels.lists] == ["r1"]
    assert labels.report.unsettled == 1
    assert len(Labels(tmp_path / "b", events, as_of=as_of, settle_hours=0).lists) == 2


def test_a_failed_run_leaves_the_old_file(tmp_path: Path) -> None:
    Labels(tmp_path, shown(0, "a"))
    file = tmp_path / "labels.parquet"
    before = file.read_bytes()
    with BehaviourStore(tmp_path / "store", read_only=True) as store:
        store.past = lambda purpose: "(FROM nowhere)"  # type: ignore[method-assign]
        with pytest.raises(Exception, match="nowhere"):
            build_labels(store, file, LATER)
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["labels.parquet", "store"]


def test_without_consent_to_training_there_is_no_label(tmp_path: Path) -> None:
    file = tmp_path / "labels.parquet"
    with BehaviourStore(tmp_path / "store") as store:
        store.append([*shown(0, "a"), *shown(1, "a", request="r2", user_id="another")])
        store.set_consent("shopper-7", "training", granted=False)
        assert build_labels(store, file, LATER).lists == 1
        assert build_labels(store, file, LATER, purpose="analytics").lists == 2
