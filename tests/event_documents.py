"""Documents as OpenSearch UBI and Metarank publish and write them, to be imported by tests."""

import gzip
import json
from pathlib import Path
from typing import Any

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


def write(path: Path, documents: list[Any]) -> Path:
    text = "".join(
        (each if isinstance(each, str) else json.dumps(each, ensure_ascii=False)) + "\n"
        for each in documents
    )
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path
