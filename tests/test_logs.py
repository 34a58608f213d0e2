import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from eval.logs import (
    LoggedLists,
    join_outcomes,
    read_impressions,
    write_impressions,
)
from reranker.errors import DataError
from reranker.schema import BehaviourEvent, EventKind, Impression, ShownItem

AT = datetime(2026, 1, 2, tzinfo=UTC)
LOG = (
    Impression(
        request_id="r1", user_id="u", query="tea", at=AT, policy="explore",
        items=(
            ShownItem(product_id="b", position=2, propensity=0.25, prefix_propensity=0.1, grade=1),
            ShownItem(product_id="a", position=1, propensity=0.5, prefix_propensity=0.5),
        ),
    ),
    Impression(request_id="r2", items=(ShownItem(product_id="a", position=3, grade=3),)),
    Impression(request_id="r3", items=(ShownItem(product_id="c", position=1),)),
)  # fmt: skip


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_what_is_written_is_read(tmp_path: Path, name: str) -> None:
    write_impressions(tmp_path / name, LOG)
    assert tuple(read_impressions(tmp_path / name)) == LOG


def test_columns() -> None:
    logs = LoggedLists.from_impressions(LOG)
    assert logs.request.tolist() == [0, 0, 1, 2]
    assert [logs.products[i] for i in logs.product] == ["a", "b", "a", "c"]
    assert logs.position.tolist() == [1, 2, 3, 1]
    assert logs.prefix_propensity[:2].tolist() == [0.5, 0.1]
    assert np.isnan(logs.propensity[2:]).all()
    assert logs.list_propensity[0] == 0.1
    assert logs.list_length.tolist() == [2, 1, 1]
    assert len(set(logs.shoppers.tolist())) == 3  # two anonymous requests are two shoppers
    assert logs.reached(3).tolist() == [0, 0, 1, 0]
    with pytest.raises(ValueError, match="read-only"):
        logs.grade[0] = 1


def test_selection_keeps_the_requests_whole() -> None:
    logs = LoggedLists.from_impressions(LOG).select(np.array([0, 2]))
    assert logs.request_ids == ("r1", "r3")
    assert logs.request.tolist() == [0, 0, 1]
    assert logs.position.tolist() == [1, 2, 1]


def test_events_give_grades_and_none_is_lost_silently() -> None:
    def event(kind: EventKind, request: str | None, product: str) -> BehaviourEvent:
        return BehaviourEvent(user_id="u", kind=kind, at=AT, request_id=request, product_id=product)

    joined = join_outcomes(
        LOG,
        [
            event(EventKind.CLICK, "r1", "a"),
            event(EventKind.PURCHASE, "r1", "a"),
            event(EventKind.CLICK, "r1", "a"),
            event(EventKind.CLICK, "r2", "a"),
            event(EventKind.CLICK, "r2", "never shown"),
            event(EventKind.CLICK, None, "a"),
            event(EventKind.VIEW, "r1", "a"),
        ],
    )
    grades = {
        (i.request_id, item.product_id): item.grade for i in joined.impressions for item in i.items
    }
    assert grades == {("r1", "a"): 3, ("r1", "b"): 1, ("r2", "a"): 3, ("r3", "c"): 0}
    assert (joined.matched, joined.unmatched) == (4, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"items": []}, "items"),
        ({"items": [{"product_id": "a", "position": 0}]}, r"items\.0\.position"),
        ({"items": [{"product_id": "a", "position": 1, "propensity": 0}]}, "propensity"),
        ({"items": [{"product_id": "a", "position": 1, "propensity": 1.5}]}, "propensity"),
        ({"items": [{"product_id": "a", "position": 1}] * 2}, "position 1 comes twice"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    file = tmp_path / "log.jsonl"
    good = json.loads(LOG[1].model_dump_json())
    file.write_text(json.dumps(good) + "\n\n" + json.dumps(good | change) + "\n")
    with pytest.raises(DataError, match=f"log.jsonl, line 3: .*{message}"):
        list(read_impressions(file))


def test_files_that_are_no_logs(tmp_path: Path) -> None:
    for name in ("no.jsonl", "no.parquet"):
        with pytest.raises(DataError, match=name):
            list(read_impressions(tmp_path / name))
        (tmp_path / name).write_bytes(b"\xff\xfe not a log")
        with pytest.raises(DataError, match=name):
            list(read_impressions(tmp_path / name))


def test_a_log_has_one_list_a_request() -> None:
    with pytest.raises(DataError, match="'r1' comes twice"):
        LoggedLists.from_impressions([LOG[0], LOG[0]])
    with pytest.raises(DataError, match="no impressions"):
        LoggedLists.from_impressions([])
    with pytest.raises(ValidationError, match="product_id 'a' comes twice"):
        Impression(
            request_id="r",
            items=tuple(ShownItem(product_id="a", position=place) for place in (1, 2)),
        )
