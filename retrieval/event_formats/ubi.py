"""OpenSearch User Behavior Insights 1.3: documents of ``ubi_queries`` and ``ubi_events``.

Source of the schema: https://o19s.github.io/ubi/schema/1.3.0/ (event.schema.json and
query.request.schema.json). What plugins and collectors of other versions write is taken as well.

| of a document | becomes |
|---|---|
| ``action_name`` | the kind, by `retrieval.event_formats.actions` |
| ``user_id``, else ``client_id`` | the shopper; without both, that of the query or its events |
| ``timestamp`` | the time: ISO 8601 or epoch |
| ``query_id`` | the request; it also finds the query's text of the same shopper |
| ``event_attributes.object.object_id`` | the product |
| ``event_attributes.position.ordinal`` | the position |
| ``event_attributes.dwell_time`` (seconds), ``.quantity`` | dwell time, quantity |
| ``user_query`` of a query | a search event |
| ``query_response_hit_ids`` of a query | impressions, unless events tell what was shown |
"""

from collections.abc import Mapping
from pathlib import Path

from retrieval.event_formats.documents import documents
from retrieval.event_formats.sql import JsonFields, entry, first_fault, timestamp

_NAMES = ("origin", "kind", "product_id", "position", "query")
_EVENT = "event_attributes"
_HITS = ("query_response_hit_ids", "query_response_object_ids", "query_response_objects_ids")
_PATHS: Mapping[str, tuple[str, ...]] = {
    "user_id": (
        *("user_id", f"{_EVENT}.user_id", f"{_EVENT}.object.user_id", f"{_EVENT}.client_id"),
        "client_id",
    ),
    "kind": ("action_name",),
    "at": ("timestamp", "@timestamp"),
    "product_id": (f"{_EVENT}.object.object_id", f"{_EVENT}.object_id", "object_id"),
    "query": ("user_query", f"{_EVENT}.user_query"),
    "client_id": ("client_id", f"{_EVENT}.client_id"),
    "session_id": ("session_id", f"{_EVENT}.session_id"),
    "request_id": ("query_id", f"{_EVENT}.query_id"),
    "position": (f"{_EVENT}.position.ordinal", "position.ordinal", "ordinal", "position"),
    "dwell_ms": (f"{_EVENT}.dwell_ms", "dwell_ms"),
    "quantity": (f"{_EVENT}.quantity", "quantity"),
    "value": (),
    "discount": (),
}
_RANK = (f"{_EVENT}.rank", "rank")
_DWELL_SECONDS = (f"{_EVENT}.dwell_time", "dwell_time")
_LARGE_INTEGER = "^-?[0-9]{1,15}$"


def events(copy: Path, mapping: Mapping[str, str], ordinals_from: int) -> str:
    """Return the SQL of the native events in a copy of documents.

    Args:
        copy: written by `retrieval.event_formats.documents`.
        mapping: field to path in a document, in place of the usual ones.
        ordinals_from: the first ordinal of a list, 0 or 1.
    """
    look = JsonFields()
    field = _fields(look, mapping)
    types = [look.type_of(name) for name in _HITS]
    hits = _hits(look)
    is_query = f"({field['kind']} IS NULL AND ({_present(look)}))"
    columns = {
        "user_id": field["user_id"],
        "client_id": field["client_id"],
        "at": field["at"],
        "session_id": field["session_id"],
        "request_id": field["request_id"],
        "dwell_ms": _dwell(look, field["dwell_ms"]),
        "quantity": field["quantity"],
        "value": field["value"],
        "discount": field["discount"],
    }
    position = _position(look, field["position"], ordinals_from, mapped="position" in mapping)
    event = entry(
        {
            "origin": "'event'",
            "kind": field["kind"],
            "product_id": field["product_id"],
            "position": position,
            "query": f"coalesce({field['query']}, {_message(look)})",
        },
        _NAMES,
    )
    faults = first_fault(_faults(look, field, is_query, types, ordinals_from))
    taken = ", ".join(f"{value} AS {name}" for name, value in columns.items())
    relation = look.select(documents(copy))
    return f"""SELECT * EXCLUDE (entries), unnest(entries, recursive := true) FROM (
        SELECT source_row, {faults}, {taken},
        CASE WHEN {is_query} THEN {_query_entries(field, hits)} ELSE [{event}] END AS entries
        FROM {relation})"""


def _fields(look: JsonFields, mapping: Mapping[str, str]) -> dict[str, str]:
    """Return the SQL of each field as text."""
    found = {}
    for name, usual in _PATHS.items():
        paths = (mapping[name],) if name in mapping else usual
        found[name] = look.text(*paths) if paths else "NULL"
    return found


def _query_entries(field: Mapping[str, str], hits: str) -> str:
    search = entry({"origin": "'query'", "kind": "'search'", "query": field["query"]}, _NAMES)
    hit = entry(
        {
            "origin": "'hits'",
            "kind": "'impression'",
            "product_id": "hit",
            "position": "place",
            "query": field["query"],
        },
        _NAMES,
    )
    shown = f"list_transform({hits}, lambda hit, place: {hit})"
    nothing = entry({"origin": "'none'"}, _NAMES)
    # A query that is wrong in itself is reported once, not again for each of its hits.
    sound = f"""coalesce({timestamp(field["at"])} IS NOT NULL
        OR TRY_CAST({field["at"]} AS DOUBLE) IS NOT NULL, false)"""
    return f"""CASE WHEN NOT {sound} THEN [{search}]
        WHEN {field["query"]} IS NULL AND coalesce(len({hits}), 0) = 0 THEN [{nothing}]
        ELSE list_concat(CASE WHEN {field["query"]} IS NULL THEN [] ELSE [{search}] END,
            coalesce({shown}, [])) END"""


def _present(look: JsonFields) -> str:
    names = ("user_query", "query_response_id", *_HITS)
    return " OR ".join(f"{look.type_of(name)} IS NOT NULL" for name in names)


def _hits(look: JsonFields) -> str:
    """Return the SQL of the list of hits; a table holds it as text."""
    parts = []
    for name in _HITS:
        text = look.text(name)
        parts.append(
            f"""CASE WHEN {look.type_of(name)} = 'ARRAY'
            THEN json_extract_string(document, '$."{name}"[*]')
            WHEN json_valid({text}) AND json_type({text}) = 'ARRAY'
            THEN json_extract_string({text}, '$[*]') END"""
        )
    return f"coalesce({', '.join(parts)})"


def _position(look: JsonFields, ordinal: str, first: int, *, mapped: bool) -> str:
    if mapped:
        return ordinal
    counted = _next(ordinal) if first == 0 else ordinal
    # The data generator of the plugin writes `rank`, from 0.
    return f"coalesce({counted}, {_next(look.text(*_RANK))})"


def _next(number: str) -> str:
    whole = f"regexp_matches({number}, '{_LARGE_INTEGER}')"
    return f"CASE WHEN {whole} THEN (TRY_CAST({number} AS BIGINT) + 1)::VARCHAR ELSE {number} END"


def _dwell(look: JsonFields, milliseconds: str) -> str:
    seconds = look.text(*_DWELL_SECONDS)
    number = f"TRY_CAST({seconds} AS DOUBLE)"
    return f"""coalesce({milliseconds}, CASE WHEN isfinite({number}) AND abs({number}) < 1e12
        THEN round({number} * 1000)::BIGINT::VARCHAR ELSE {seconds} END)"""


def _message(look: JsonFields) -> str:
    kind = f"upper({look.text('message_type')})"
    return f"CASE WHEN {kind} = 'QUERY' THEN {look.text('message')} END"


def _faults(
    look: JsonFields, field: Mapping[str, str], is_query: str, hits: list[str], first: int
) -> list[tuple[str, str, str]]:
    neither = "neither a UBI event (action_name) nor a UBI query (user_query)"
    found = [
        ("row", "fault IS NOT NULL", "fault"),
        ("kind", look.is_nested("action_name"), "'action_name must be text'"),
        ("row", f"{field['kind']} IS NULL AND NOT {is_query}", f"'{neither}'"),
        (
            "event_attributes",
            f"{look.type_of(_EVENT)} NOT IN ('OBJECT', 'NULL')",
            "'must be an object'",
        ),
        ("at", look.is_nested("timestamp"), "'timestamp must be text or a number'"),
        (
            "user_id",
            look.is_nested("user_id", "client_id"),
            "'user_id and client_id must be text or a number'",
        ),
        ("request_id", look.is_nested("query_id"), "'query_id must be text or a number'"),
        (
            "product_id",
            look.is_nested(f"{_EVENT}.object.object_id", "object_id"),
            "'event_attributes.object.object_id must be text or a number'",
        ),
        (
            "position",
            look.is_nested(f"{_EVENT}.position.ordinal"),
            "'event_attributes.position.ordinal must be a whole number'",
        ),
    ]
    if first == 1:
        zero = f"{field['position']} = '0'"
        hint = "below 1; where this log counts from 0, set cleaning.ordinals_from = 0"
        found.append(("position", zero, f"'{hint}'"))
    for name, kind in zip(_HITS, hits, strict=True):
        wrong = f"{kind} NOT IN ('ARRAY', 'NULL', 'VARCHAR')"
        found.append(("product_id", f"{is_query} AND {wrong}", f"'{name} must be a list of ids'"))
    return found
