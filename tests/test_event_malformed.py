"""Documents of event standards that are not as they should be."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from event_documents import (
    METARANK,
    TUTORIAL_QUERY,
    attributed,
    generated,
    interaction,
    ranking,
    write,
)
from retrieval.behaviour import BehaviourStore

FAR = (datetime.now(UTC) + timedelta(days=900)).isoformat()


MALFORMED_UBI = [
    ("{broken", "row", "not JSON"),
    ('"text"', "row", "not a JSON object"),
    ({"application": "x", "timestamp": 1}, "row", "neither a UBI event"),
    (generated(action_name=None), "row", "neither a UBI event"),
    (generated(action_name={"name": "click"}), "kind", "action_name must be text"),
    (generated(action_name="page_exit"), "kind", "unknown kind page_exit; write --map-kind"),
    (generated(timestamp=None), "at", "missing"),
    (generated(timestamp="yesterday"), "at", "not a time: yesterday"),
    (generated(timestamp={"iso": "x"}), "at", "timestamp must be text or a number"),
    (generated(timestamp=FAR), "at", "in the future"),
    (generated(timestamp="1969-07-20T20:17:40Z"), "at", "too long ago"),
    (generated(client_id=None, query_id=None), "user_id", "missing"),
    (generated(client_id=["c1"]), "user_id", "must be text or a number"),
    (generated(client_id="c" * 300), "user_id", "longer than 256"),
    (generated(query_id={}), "request_id", "query_id must be text or a number"),
    (generated(event_attributes={"position": {}}), "product_id", "missing; click needs one"),
    (generated(event_attributes=["p1"]), "event_attributes", "must be an object"),
    (attributed(object={"object_id": {"id": 1}}), "product_id", "object_id must be text"),
    (attributed(position={"ordinal": [1]}), "position", "must be a whole number"),
    (attributed(position={"ordinal": 0}), "position", "below 1"),
    (attributed(position={"ordinal": -2}), "position", "below 1"),
    (attributed(position={"ordinal": 1.5}), "position", "not a whole number"),
    (attributed(quantity=-1), "quantity", "not above 0"),
    (attributed(quantity="many"), "quantity", "not a number"),
    (attributed(dwell_time=-3), "dwell_ms", "negative"),
    (attributed(dwell_time="long"), "dwell_ms", "not a whole number"),
    ({**TUTORIAL_QUERY, "query_response_hit_ids": {"1": "a"}}, "product_id", "a list of ids"),
    ({**TUTORIAL_QUERY, "timestamp": "today"}, "at", "not a time: today"),
    ({**TUTORIAL_QUERY, "query_id": "q9", "client_id": None}, "user_id", "missing"),
]


MALFORMED_METARANK = [
    ("[", "row", "not JSON"),
    ("7", "row", "not a JSON object"),
    ({"id": "1", "timestamp": 1}, "event", "missing; it is item"),
    (interaction(event="click"), "event", "unknown event click; it is item"),
    (interaction(type=None), "kind", "missing"),
    (interaction(type="jump"), "kind", "unknown kind jump"),
    (interaction(item=None), "product_id", "missing; purchase needs one"),
    (interaction(item=["a"]), "product_id", "item must be text or a number"),
    (interaction(timestamp="soon"), "at", "not a time: soon"),
    (interaction(timestamp=None), "at", "missing"),
    (interaction(user=None, session=None, ranking=None), "user_id", "missing"),
    (interaction(fields=[{"name": "count", "value": 0}]), "quantity", "not above 0"),
    (ranking(id=None), "request_id", "missing; a ranking needs an id"),
    (ranking(items="item1"), "items", "must be a list"),
    (ranking(items=[{"relevancy": 1}]), "items", "an item has no id"),
    (ranking(timestamp="never"), "at", "not a time: never"),
]


@pytest.mark.parametrize(
    ("good", "malformed"), [(generated(), MALFORMED_UBI), (METARANK[3], MALFORMED_METARANK)]
)
def test_malformed_documents_are_refused_by_row(
    tmp_path: Path, store: BehaviourStore, good: dict[str, Any], malformed: list[Any]
) -> None:
    documents = [good, *(document for document, _, _ in malformed)]
    file = write(tmp_path / "a.jsonl", documents)
    for _ in range(2):
        report = store.import_events([file])
        assert [(row.row, row.field) for row in report.rejected] == [
            (place, field) for place, (_, field, _) in enumerate(malformed, start=2)
        ]
        for row, (_, _, reason) in zip(report.rejected, malformed, strict=True):
            assert reason in row.reason
        assert store.count() == 1
    for row, (document, _, _) in zip(store.rejected(), malformed, strict=True):
        kept = json.loads(row.data or "{}")
        assert not {"user_id", "client_id", "user"} & set(kept)
        assert isinstance(document, dict) or not kept
        if isinstance(document, dict) and row.field in ("kind", "at") and kept.get(row.field):
            assert kept[row.field] in row.reason
    assert len(MALFORMED_UBI) + len(MALFORMED_METARANK) > 30
