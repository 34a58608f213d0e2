"""Queries and the events that follow them, joined by request ids that shoppers may share."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from event_documents import TUTORIAL_QUERY, generated, write
from retrieval.behaviour import BehaviourStore
from shop import stored


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
