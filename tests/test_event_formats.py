"""Event standards: what OpenSearch UBI and Metarank publish and write comes in as it is."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from event_documents import (
    BLUEPRINT_EVENT,
    METARANK,
    README_RESPONSE,
    SAMPLE_EVENT,
    TUTORIAL_EVENT,
    TUTORIAL_QUERY,
    attributed,
    generated,
    interaction,
    ranking,
    write,
)
from reranker.errors import ConfigError
from reranker.schema import EventKind
from retrieval.behaviour import BehaviourStore
from retrieval.event_formats.reading import Reading
from shop import stored


def test_published_ubi_documents(tmp_path: Path, store: BehaviourStore) -> None:
    (tmp_path / "queries.json").write_text(json.dumps([TUTORIAL_QUERY], indent=2))
    (tmp_path / "response.json").write_text(json.dumps(README_RESPONSE, indent=2))
    events = [SAMPLE_EVENT, TUTORIAL_EVENT, BLUEPRINT_EVENT]
    write(tmp_path / "events.ndjson", events)
    report = store.import_events([tmp_path / name for name in
                                  ("queries.json", "response.json", "events.ndjson")])  # fmt: skip
    assert report.formats == {"ubi": 3}
    client, query = TUTORIAL_QUERY["client_id"], TUTORIAL_QUERY["query_id"]
    at = datetime(2025, 1, 23, 13, 18, 22, 274000)  # noqa: DTZ001 - as stored
    impressions = [
        (client, "impression", at, hit, "laptop", None, query, place, *[None] * 4)
        for place, hit in enumerate(["B076YX2LML", "B07S3T59VP", "B075ZGJSL1"], start=1)
    ]
    assert stored(store) == [
        (client, "search", at, None, "laptop", None, query, *[None] * 5),
        *sorted(impressions, key=lambda row: row[3]),
    ]
    # These tell of no shopper, of no known action, or of no time; the README says so.
    assert [(Path(row.file).name, row.row, row.field) for row in report.rejected] == [
        ("events.ndjson", 1, "kind"), ("events.ndjson", 2, "kind"), ("events.ndjson", 3, "at"),
        ("response.json", 1, "user_id"),
    ]  # fmt: skip
    assert report.events == report.imported + report.rejected_count == 4 + 3 + 2


def test_actions_that_a_shop_names_are_taken(tmp_path: Path, store: BehaviourStore) -> None:
    file = write(tmp_path / "a.jsonl", [SAMPLE_EVENT, TUTORIAL_EVENT, generated()])
    reading = Reading.of(kinds=[("product-hover", "view"), ("page_exit", "ignore")])
    report = store.import_events([file], reading=reading)
    assert (report.imported, report.ignored, report.rejected_count) == (2, 1, 0)
    assert stored(store, "kind", "product_id") == [("view", "1625640"), ("click", "B08N5WRWNW")]
    with pytest.raises(ConfigError, match="--map-kind hover=look: unknown kind; the kinds are"):
        Reading.of(kinds=[("hover", "look")])


@pytest.mark.parametrize(
    ("action", "kind"),
    [
        ("impression", "impression"), ("view", "view"), ("watch", "view"), ("click", "click"),
        ("click_through", "click"), ("add_to_cart", "cart"), ("Add-To-Cart", "cart"),
        ("purchase", "purchase"), ("like", "favourite"),
    ],
)  # fmt: skip
def test_the_actions_of_the_schema(
    tmp_path: Path, store: BehaviourStore, action: str, kind: str
) -> None:
    store.import_events([write(tmp_path / "a.jsonl", [generated(action_name=action)])])
    assert stored(store, "kind", "position") == [(kind, 1)]


def test_published_metarank_events(tmp_path: Path, store: BehaviourStore) -> None:
    report = store.import_events([write(tmp_path / "a.jsonl.gz", METARANK)])
    assert report.formats == {"metarank": 1}
    assert (report.rows, report.imported, report.ignored, report.rejected_count) == (5, 7, 2, 0)
    cat = "81f46c34-a4bb-469c-8708-f8127cd67d27"
    assert stored(store, "user_id", "kind", "product_id", "query", "request_id", "position") == [
        ("alice", "impression", "589", None, "id1", 2),
        ("alice", "impression", "72998", None, "id1", 1),
        ("user1", "search", None, "cat", cat, None),
        ("user1", "impression", "item1", "cat", cat, 2),
        ("user1", "impression", "item2", "cat", cat, 3),
        ("user1", "impression", "item3", "cat", cat, 1),
        ("user1", "purchase", "item1", "cat", cat, None),
    ]
    assert store.time_range() == (
        datetime(2020, 9, 6, 11, 24, 27, tzinfo=UTC),
        datetime(2022, 8, 25, 12, 51, 34, 711000, tzinfo=UTC),
    )
    quantity = store._rows("SELECT quantity, session_id FROM event WHERE kind = 'purchase'")
    assert quantity == [(1.0, "session1")]


def test_interactions_may_name_the_session_alone(tmp_path: Path, store: BehaviourStore) -> None:
    documents = [ranking(), interaction(user=None), interaction(user=None, session="other")]
    store.import_events([write(tmp_path / "a.jsonl", documents)])
    rows = stored(store, "user_id", "query", where="kind = 'purchase'")
    assert dict(rows) == {"session1": "cat", "other": None}


def test_lists_whose_time_is_in_basic_form(tmp_path: Path, store: BehaviourStore) -> None:
    at = "20240601T103000Z"
    for name, document in (
        ("a.jsonl", ranking(timestamp=at)),
        ("b.jsonl", {**TUTORIAL_QUERY, "timestamp": at}),
    ):
        assert store.import_events([write(tmp_path / name, [document])]).imported == 4


AS_TEXT = attributed()["event_attributes"]


DRIFT = [
    (generated(session_id=None), {"session_id": None}),
    ({k: v for k, v in generated().items() if k != "session_id"}, {"session_id": None}),
    (generated(timestamp=1717237800000), {}),
    (generated(timestamp="1717237800"), {}),
    (generated(timestamp="2024-06-01T12:30:00+02:00"), {}),
    (generated(timestamp="20240601T103000Z"), {}),
    (attributed(position={}, rank=None), {"position": None, "product_id": "p1"}),
    (attributed(position={"x": 3, "y": 4}), {"position": None, "product_id": "p1"}),
    (attributed(position={"xy": {"x": 3, "y": 4}}), {"position": None, "product_id": "p1"}),
    (attributed(position={"ordinal": 7, "x": 3, "y": 4}), {"position": 7, "product_id": "p1"}),
    (attributed(object={"object_id": 12}), {"product_id": "12", "position": 1}),
    (attributed(session_id="s1", dwell_time=2.5), {"dwell_ms": 2500, "product_id": "p1"}),
    (attributed(quantity=3), {"quantity": 3.0, "product_id": "p1"}),
    (generated(user_id="u1"), {"user_id": "u1"}),
    (generated(user_id=""), {"user_id": "c1"}),
    (generated(event_attributes=json.dumps(AS_TEXT)), {"product_id": "p1"}),
    ({"_index": "ubi_events", "_id": "1", "_source": generated()}, {}),
    ([generated()], {}),
    (generated(user_query="oat milk"), {"query": "oat milk"}),
    (
        {
            **{k: v for k, v in generated().items() if k != "event_attributes"},
            "event_attributes.object.object_id": "p1",
            "event_attributes.position.ordinal": "2",
        },
        {"product_id": "p1", "position": 2},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("document", "changes"), DRIFT)
def test_what_other_versions_of_ubi_write(
    tmp_path: Path, store: BehaviourStore, document: Any, changes: dict[str, Any]
) -> None:
    report = store.import_events([write(tmp_path / "a.jsonl", [document])])
    expected = {
        "user_id": "c1", "kind": "click", "at": datetime(2024, 6, 1, 10, 30),  # noqa: DTZ001
        "product_id": "B08N5WRWNW", "query": None, "session_id": "s1", "request_id": "q1",
        "position": 1, "dwell_ms": None, "quantity": None, "value": None,
        "discount": None,
    }  # fmt: skip
    assert stored(store) == [tuple({**expected, **changes}.values())]
    assert report.formats == {"ubi": 1}


@pytest.mark.parametrize("suffix", ["jsonl", "ndjson.gz", "json", "parquet", "csv", "csv.gz"])
def test_the_same_log_in_another_file_adds_nothing(
    tmp_path: Path, store: BehaviourStore, suffix: str
) -> None:
    documents = [
        {**TUTORIAL_QUERY, "user_query": "oat, \"milk\""},
        generated(), generated(action_name="purchase"), generated(action_name="view"),
    ]  # fmt: skip
    first = write(tmp_path / "first.jsonl", documents)
    assert store.import_events([first]).imported == 7
    before = stored(store)
    target = tmp_path / f"again.{suffix}"
    if suffix == "json":
        target.write_text(json.dumps(documents))
    elif suffix in ("jsonl", "ndjson.gz"):
        write(target, documents)
    else:
        form, columns = "(FORMAT parquet)", "*"
        if suffix != "parquet":
            form = "(FORMAT csv, HEADER)"
            columns = """* REPLACE (to_json(event_attributes) AS event_attributes,
                to_json(query_response_hit_ids) AS query_response_hit_ids)"""
        source = f"read_json('{first}', format = 'newline_delimited')"
        duckdb.execute(f"COPY (SELECT {columns} FROM {source}) TO '{target}' {form}")
    report = store.import_events([target])
    assert (report.formats, report.imported, report.rejected_count) == ({"ubi": 1}, 0, 0)
    assert stored(store) == before


def test_the_generator_s_flat_tables(tmp_path: Path, store: BehaviourStore) -> None:
    # Columns as in save_to_csv of ubi_data_generator.py.
    (tmp_path / "ubi_events.csv").write_text(
        "object_id,rank,object_id_field,application,action_name,query_id,session_id,client_id,"
        "timestamp\nB1,0,product_id,esci,impression,q,s,c,2024-06-01T10:30:00.000Z\n"
        "B1,0,product_id,esci,click,q,s,c,2024-06-01T10:30:01.000Z\nbroken\n"
        "B1,0,product_id,esci,jump,q,s,c,2024-06-01T10:30:01.000Z\n"
    )
    (tmp_path / "ubi_queries.csv").write_text(
        "application,query_id,client_id,user_query,timestamp\n"
        "esci,q,c,laptop,2024-06-01T10:30:00.000Z\n"
    )
    report = store.import_events([tmp_path / "ubi_*.csv"])
    assert stored(store, "kind", "product_id", "query", "position") == [
        ("search", None, "laptop", None),
        ("impression", "B1", "laptop", 1),
        ("click", "B1", "laptop", 1),
    ]
    assert [(row.row, row.field) for row in report.rejected] == [(3, "row"), (4, "kind")]
    assert [row.data is None for row in store.rejected()] == [True, False]


def test_ordinals_that_start_from_0_by_setting(tmp_path: Path, store: BehaviourStore) -> None:
    file = write(tmp_path / "a.jsonl", [attributed(position={"ordinal": 0}), attributed()])
    report = store.import_events([file])
    assert report.rejected[0].reason.endswith("set cleaning.ordinals_from = 0")
    other = BehaviourStore(tmp_path / "other")
    assert other.import_events([file], reading=Reading.of(ordinals_from=0)).imported == 2
    assert stored(other, "position") == [(1,), (2,)]
    other.close()


def test_a_mapping_names_paths_in_documents(tmp_path: Path, store: BehaviourStore) -> None:
    document = attributed(object={"object_id": "p", "object_detail": {"sku": "p-7", "sum": 9.5}})
    mapping = {
        "product_id": "event_attributes.object.object_detail.sku",
        "value": "event_attributes.object.object_detail.sum",
    }
    store.import_events([write(tmp_path / "a.jsonl", [document])], mapping=mapping)
    assert stored(store, "product_id", "value") == [("p-7", 9.5)]


def test_a_purchase_history_names_no_kind(tmp_path: Path, store: BehaviourStore) -> None:
    file = tmp_path / "sales.csv"
    file.write_text("customer,sku,sold,units,paid\nc,p,2025-05-01T12:00:00Z,2,9.98\n")
    mapping = {
        "user_id": "customer", "product_id": "sku", "at": "sold", "quantity": "units",
        "value": "paid",
    }  # fmt: skip
    reading = Reading.of(mapping=mapping, default_kind="purchase")
    store.import_events([file], reading=reading)
    assert stored(store, "user_id", "kind", "product_id", "quantity", "value") == [
        ("c", EventKind.PURCHASE, "p", 2.0, 9.98)
    ]
    with pytest.raises(ConfigError, match="--kind bought: unknown; the kinds are search"):
        Reading.of(default_kind="bought")


def test_a_format_can_be_insisted_on(tmp_path: Path, store: BehaviourStore) -> None:
    file = write(tmp_path / "a.jsonl", [generated()])
    report = store.import_events([file], reading=Reading.of(log_format="metarank"))
    assert report.rejected[0].reason == "missing; it is item, user, ranking or interaction"
    with pytest.raises(ConfigError, match="--format ubis: unknown; the formats are native, ubi"):
        Reading.of(log_format="ubis")
