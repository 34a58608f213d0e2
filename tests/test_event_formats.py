"""Event standards: what OpenSearch UBI and Metarank publish and write comes in as it is."""

import gzip
import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest

from reranker.errors import ConfigError
from reranker.schema import EventKind
from retrieval.behaviour import BehaviourStore
from retrieval.event_formats.reading import Reading
from shop import stored

# Source: opensearch-project/documentation-website, _search-plugins/ubi/
# ubi-aws-managed-services-tutorial.md (the list of hits is cut after three).
TUTORIAL_QUERY = {
    "query_response_id": "117d75fb-ea76-41dc-9d1d-1d7bba548bd8",
    "user_query": "laptop",
    "query_id": "d194b734-70a4-41dc-b103-b26a56a277b5",
    "application": "Chorus",
    "query_response_hit_ids": ["B076YX2LML", "B07S3T59VP", "B075ZGJSL1"],
    "query_attributes": {},
    "client_id": "CLIENT-9a9968ac-664b-42d7-9a9e-96f412b5ab49",
    "timestamp": "2025-01-23T13:18:22.274+0000",
}
TUTORIAL_EVENT = {
    "action_name": "product_hover",
    "client_id": "CLIENT-9a9968ac-664b-42d7-9a9e-96f412b5ab49",
    "query_id": "d194b734-70a4-41dc-b103-b26a56a277b5",
    "page_id": "/",
    "message_type": "INFO",
    "message": "Integral 2GB SD Card memory card (undefined)",
    "timestamp": 1724944081669,
    "event_attributes": {
        "object": {
            "object_id_field": "product",
            "object_id": "1625640",
            "description": "Integral 2GB SD Card memory card",
            "object_detail": None,
        }
    },
}
# Source: opensearch-project/user-behavior-insights, README.md: what is stored of a query.
README_RESPONSE = {
    "took": 3,
    "hits": {
        "total": {"value": 1, "relation": "eq"},
        "hits": [
            {
                "_index": "ubi_queries",
                "_id": "6CrooY8BzxoaOvIPKtWj",
                "_score": 1,
                "_source": {
                    "query_response_id": "e4bdd289-0875-421f-bc34-aa71eb8e1cb3",
                    "user_query": "toner",
                    "query_id": "12300d16cb-b6f1-4012-93ebcc49cac90426",
                    "query_response_object_ids": ["9"],
                    "client_id": None,
                    "query": '{"query":{"match":{"name":{"query":"toner"}}}}',
                    "timestamp": 1716408298072,
                },
            }
        ],
    },
}
# Source: o19s/ubi, samples/event-opensearch.json (fields of the object cut).
SAMPLE_EVENT = {
    "action_name": "page_exit",
    "user_id": "1821196507152684",
    "query_id": "00112233-4455-6677-8899-aabbccddeeff",
    "session_id": "c3d22be7-6bdc-4250-91e1-fc8a92a9b1f9",
    "page_id": "/docs/latest/",
    "timestamp": "2024-05-16T12:34:56.789Z",
    "message_type": "INFO",
    "message": "On page /docs/latest/ for 3.35 seconds",
    "event_attributes": {"position": {}, "object": {"idleTimeoutMs": 5000}},
}
# Source: ubisearch.dev/tools, the blueprint for ingestion; it has no timestamp yet.
BLUEPRINT_EVENT = {
    "type": "event",
    "action_name": "click",
    "query_id": "99999999-4455-6677-8899-aabbccddeeff",
    "event_attributes": {
        "position": {"ordinal": 1},
        "object": {"object_id": "1234", "object_id_field": "ean", "user_id": "abc"},
    },
}
# Source: metarank/metarank, doc/event-schema.md (without its comments) and doc/api.md.
METARANK = [
    {
        "event": "item",
        "id": "81f46c34-a4bb-469c-8708-f8127cd67d27",
        "timestamp": "1599391467000",
        "item": "item1",
        "fields": [
            {"name": "title", "value": "You favourite cat"},
            {"name": "color", "value": ["white", "black"]},
            {"name": "is_cute", "value": True},
        ],
    },
    {
        "event": "user",
        "id": "81f46c34-a4bb-469c-8708-f8127cd67d27",
        "timestamp": "1599391467000",
        "user": "user1",
        "fields": [{"name": "age", "value": 33}, {"name": "gender", "value": "m"}],
    },
    {
        "event": "ranking",
        "id": "81f46c34-a4bb-469c-8708-f8127cd67d27",
        "timestamp": "1599391467000",
        "user": "user1",
        "session": "session1",
        "fields": [{"name": "query", "value": "cat"}, {"name": "source", "value": "search"}],
        "items": [
            {"id": "item3", "relevancy": 2.0},
            {"id": "item1", "relevancy": 1.0},
            {"id": "item2", "relevancy": 0.5},
        ],
    },
    {
        "event": "interaction",
        "id": "0f4c0036-04fb-4409-b2c6-7163a59f6b7d",
        "ranking": "81f46c34-a4bb-469c-8708-f8127cd67d27",
        "timestamp": "1599391467000",
        "user": "user1",
        "session": "session1",
        "type": "purchase",
        "item": "item1",
        "fields": [{"name": "count", "value": 1}, {"name": "shipping", "value": "DHL"}],
    },
    {
        "event": "ranking",
        "id": "id1",
        "items": [{"id": "72998"}, {"id": "589"}],
        "user": "alice",
        "session": "alice1",
        "timestamp": 1661431894711,
    },
]


def generated(**changes: Any) -> dict[str, Any]:
    """An event as ubi-data-generator/ubi_data_generator.py of the plugin writes it."""
    return {
        "application": "esci_ubi_sample",
        "action_name": "click",
        "query_id": "q1",
        "session_id": "s1",
        "client_id": "c1",
        "timestamp": "2024-06-01T10:30:00.000Z",
        "message_type": None,
        "message": None,
        "event_attributes": {
            "object": {"object_id": "B08N5WRWNW", "object_id_field": "product_id"},
            "rank": 0,
        },
        **changes,
    }


def attributed(**attributes: Any) -> dict[str, Any]:
    given = {"object": {"object_id": "p1"}, "position": {"ordinal": 1}}
    return generated(event_attributes={**given, **attributes})


def interaction(**changes: Any) -> dict[str, Any]:
    return {**METARANK[3], **changes}


def ranking(**changes: Any) -> dict[str, Any]:
    return {**METARANK[2], **changes}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with BehaviourStore(tmp_path / "store") as opened:
        yield opened


def write(path: Path, documents: list[Any]) -> Path:
    text = "".join(
        (each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)) + "\n"
        for each in documents
    )
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


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


AS_TEXT = attributed()["event_attributes"]
DRIFT = [
    (generated(session_id=None), {"session_id": None}),
    ({k: v for k, v in generated().items() if k != "session_id"}, {"session_id": None}),
    (generated(timestamp=1717237800000), {}),
    (generated(timestamp="1717237800"), {}),
    (generated(timestamp="2024-06-01T12:30:00+02:00"), {}),
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


def test_hits_are_impressions_only_where_none_are_logged(
    tmp_path: Path, store: BehaviourStore
) -> None:
    query = {**TUTORIAL_QUERY, "query_id": "q1", "client_id": "c1"}
    shown = generated(action_name="impression")
    searched = generated(action_name="on_search", message_type="QUERY", message="laptop")
    bulk = [
        {"index": {"_index": "ubi_queries"}}, query, {"index": {"_index": "ubi_events"}}, shown,
        {"create": {"_index": "ubi_events"}}, generated(), searched,
    ]  # fmt: skip
    file = write(tmp_path / "bulk.ndjson", bulk)
    report = store.import_events([file])
    assert stored(store, "kind", "product_id", "query") == [
        ("search", None, "laptop"),
        ("impression", "B08N5WRWNW", "laptop"),
        ("click", "B08N5WRWNW", "laptop"),
    ]
    # Three hits and the search that the client has logged, too, are told twice.
    assert (report.rows, report.events, report.imported, report.duplicates) == (4, 7, 3, 4)
    for files in ([file], [write(tmp_path / "queries.jsonl", [query])]):
        again = store.import_events(files)
        assert (again.imported, again.duplicates) == (0, again.events)


@pytest.mark.parametrize("query_first", [True, False])
def test_queries_reach_their_events_in_any_order(
    tmp_path: Path, store: BehaviourStore, query_first: bool
) -> None:
    query = {key: value for key, value in TUTORIAL_QUERY.items() if key != "query_response_hit_ids"}
    queries = write(tmp_path / "queries.jsonl", [{**query, "query_id": "q1", "client_id": "c1"}])
    nameless = generated(client_id=None) if query_first else generated()
    events = write(tmp_path / "events.jsonl", [nameless])
    order = [queries, events] if query_first else [events, queries]
    assert [store.import_events([file]).imported for file in order] == [1, 1]
    assert stored(store, "user_id", "kind", "query") == [
        ("c1", "search", "laptop"), ("c1", "click", "laptop"),
    ]  # fmt: skip
    assert [store.import_events([file]).imported for file in order] == [0, 0]


def test_a_query_without_a_shopper_takes_that_of_its_events(
    tmp_path: Path, store: BehaviourStore
) -> None:
    query = {**TUTORIAL_QUERY, "query_id": "q1", "client_id": None}
    store.import_events([write(tmp_path / "a.jsonl", [query, generated()])])
    assert {row[0] for row in stored(store, "user_id")} == {"c1"}
    assert len(stored(store)) == 5


def asked(user: str | None, query: str, **changes: Any) -> dict[str, Any]:
    """A query without hits, by a request id that other shoppers may use as well."""
    at = "2024-06-01T10:29:00Z"
    return {"user_query": query, "query_id": "1", "client_id": user, "timestamp": at, **changes}


def clicked(user: str | None, **changes: Any) -> dict[str, Any]:
    return generated(**{"query_id": "1", "client_id": user, "session_id": None, **changes})


def queries_of(store: BehaviourStore) -> dict[str, str | None]:
    rows = stored(store, "user_id", "query", where="kind = 'click'")
    assert len(rows) == len(dict(rows))
    return dict(rows)


@pytest.mark.parametrize("order", [[0, 1], [1, 0], None])
def test_a_request_id_that_shoppers_share_mixes_none_of_them(
    tmp_path: Path, store: BehaviourStore, order: list[int] | None
) -> None:
    queries = write(tmp_path / "queries.jsonl", [asked("ben", "beer"), asked("cem", "cake")])
    events = write(tmp_path / "events.jsonl", [clicked(name) for name in ("anna", "ben", "cem")])
    files = [queries, events]
    for _ in range(2):
        for step in [files] if order is None else [[files[place]] for place in order]:
            store.import_events(step)
    assert queries_of(store) == {"anna": None, "ben": "beer", "cem": "cake"}
    assert store.count() == 5


def test_native_events_of_another_shopper_stay_as_they_are(
    tmp_path: Path, store: BehaviourStore
) -> None:
    native = "user_id,kind,at,product_id,request_id\n" + "".join(
        f"{name},click,2024-06-01T10:30:00Z,p,1\n" for name in ("anna", "ben")
    )
    (tmp_path / "native.csv").write_text(native)
    store.import_events([tmp_path / "native.csv"])
    store.import_events([write(tmp_path / "a.jsonl", [asked("ben", "beer")])])
    assert queries_of(store) == {"anna": None, "ben": "beer"}


@pytest.mark.parametrize("stored", [True, False])
def test_a_shopper_is_filled_in_only_where_there_is_no_other(
    tmp_path: Path, store: BehaviourStore, stored: bool
) -> None:
    first = write(tmp_path / "a.jsonl", [clicked("anna")])
    nameless = asked(None, "secret", query_response_hit_ids=["h1", "h2"])
    second = write(tmp_path / "b.jsonl", [clicked("ben"), nameless, clicked(None)])
    if stored:
        store.import_events([first])
        report = store.import_events([second])
    else:
        report = store.import_events([first, second])
    assert queries_of(store) == {"anna": None, "ben": None}
    assert store.count() == 2
    reason = "missing, and 2 shoppers have request 1: log the shopper with it"
    assert [(row.row, row.field, row.reason, row.events) for row in store.rejected()] == [
        (2, "user_id", reason, 3), (3, "user_id", reason, 1),
    ]  # fmt: skip
    assert {row.check for row in store.rejected()} == {"incomplete"}
    assert report.events == report.imported + report.rejected_count + report.duplicates


def test_native_events_of_the_same_import_count_as_well(
    tmp_path: Path, store: BehaviourStore
) -> None:
    native = "user_id,kind,at,product_id,request_id\nben,click,2024-06-01T10:30:00Z,p, 1\n"
    (tmp_path / "native.csv").write_text(native)
    log = write(tmp_path / "a.jsonl", [clicked("anna"), asked(None, "secret")])
    report = store.import_events([log, tmp_path / "native.csv"])
    assert report.rejected[0].reason.startswith("missing, and 2 shoppers have request 1:")
    assert queries_of(store) == {"anna": None, "ben": None}


def test_sessions_that_both_name_keep_requests_apart(tmp_path: Path, store: BehaviourStore) -> None:
    documents = [
        asked("anna", "milk", session_id="s1"), asked("anna", "toner", session_id="s2"),
        *(clicked("anna", session_id=session, action_name=action) for session, action in
          (("s1", "click"), ("s2", "purchase"), ("s3", "view"), (None, "add_to_cart"))),
        asked("ben", "beer", session_id="s1"), clicked("ben", session_id=None),
        asked(None, "wine", session_id="s9", query_id="2"),
        clicked("cem", session_id="s8", query_id="2"),
        asked("dan", "tea", session_id="s1"), clicked("dan", session_id="s2"),
    ]  # fmt: skip
    file = write(tmp_path / "a.jsonl", documents)
    store.import_events([file])
    rows = stored(store, "kind", "query", where="user_id = 'anna' AND kind <> 'search'")
    assert dict(rows) == {"click": "milk", "purchase": "toner", "view": None, "cart": None}
    assert queries_of(store) == {"anna": "milk", "ben": "beer", "cem": None, "dan": None}
    (row,) = store.rejected()
    assert row.reason == "missing, and request 2 is of another session: log the shopper with it"
    assert store.import_events([file]).imported == 0


def test_a_request_id_used_again_neither_guesses_nor_adds(
    tmp_path: Path, store: BehaviourStore
) -> None:
    first = write(tmp_path / "a.jsonl", [asked("anna", "milk"), clicked("anna")])
    later = "2024-07-01T10:30:00Z"
    again = [asked("anna", "toner", timestamp=later), clicked("anna", timestamp=later)]
    second = write(tmp_path / "b.jsonl", again)
    assert [store.import_events([file]).imported for file in (first, second)] == [2, 2]
    rows = store._rows("""SELECT query FROM event WHERE kind = 'click' ORDER BY "at" """)
    assert rows == [("milk",), (None,)]
    for files in ([first], [second], [first, second]):
        assert store.import_events(files).imported == 0


def test_what_was_shown_to_another_shopper_hides_no_hits(
    tmp_path: Path, store: BehaviourStore
) -> None:
    documents = [
        asked("ben", "beer", query_response_hit_ids=["h1", "h2"]),
        clicked("anna", action_name="impression"),
        clicked("anna", action_name="search", user_query="milk", event_attributes={}),
    ]
    store.import_events([write(tmp_path / "a.jsonl", documents)])
    assert stored(store, "user_id", "kind", "product_id", "query") == [
        ("anna", "search", None, "milk"), ("anna", "impression", "B08N5WRWNW", "milk"),
        ("ben", "search", None, "beer"), ("ben", "impression", "h1", "beer"),
        ("ben", "impression", "h2", "beer"),
    ]  # fmt: skip


@pytest.mark.parametrize("order", [[0, 1], [1, 0], None])
def test_a_signed_in_user_has_the_query_of_the_client(
    tmp_path: Path, store: BehaviourStore, order: list[int] | None
) -> None:
    hits = ["B08N5WRWNW", "h2"]
    queries = [
        asked("c1", "milk", query_response_hit_ids=hits), asked("kiosk", "beer", query_id="2"),
    ]  # fmt: skip
    events = [
        clicked("c1", user_id="anna"), clicked("c1", user_id="anna", action_name="impression"),
        *(clicked("kiosk", user_id=name, query_id="2") for name in ("ben", "cem")),
    ]  # fmt: skip
    files = [write(tmp_path / "q.jsonl", queries), write(tmp_path / "e.jsonl", events)]
    steps = [files] if order is None else [[files[place]] for place in order]
    for step in steps:
        store.import_events(step)
    assert queries_of(store) == {"anna": "milk", "ben": None, "cem": None}
    shown = Counter(user for (user,) in stored(store, "user_id", where="kind = 'impression'"))
    # Hits that came before it was known what was shown stay.
    assert shown == ({"anna": 1, "c1": 2} if order == [0, 1] else {"anna": 1})
    for step in steps:
        assert store.import_events(step).imported == 0


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
