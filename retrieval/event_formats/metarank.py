"""Metarank's events: item, user, ranking and interaction.

Source of the schema: https://github.com/metarank/metarank/blob/master/doc/event-schema.md.

| of an event | becomes |
|---|---|
| ranking: ``items`` | an impression each, its position the place in the list |
| ranking: the field ``query`` | a search event, and the query of all events of the ranking |
| interaction: ``type`` | the kind, by `retrieval.event_formats.actions` |
| interaction: ``item``, ``ranking`` | the product, the request |
| interaction: the field ``count`` or ``quantity`` | the quantity |
| ``user``, else ``session`` | the shopper; without both, that of the same ranking's events |
| ``timestamp`` | the time: epoch milliseconds, as text or number, or ISO 8601 |
| item, user | nothing: they tell of products and shoppers, and are counted only |
"""

from collections.abc import Mapping
from pathlib import Path

from retrieval.event_formats.documents import documents
from retrieval.event_formats.sql import JsonFields, entry, first_fault, timestamp, trimmed

_NAMES = ("origin", "kind", "product_id", "position", "query", "request_id", "quantity")


def events(copy: Path, mapping: Mapping[str, str]) -> str:
    """Return the SQL of the native events in a copy of documents.

    Args:
        copy: written by `retrieval.event_formats.documents`.
        mapping: field to path in a document, in place of the usual ones.
    """
    look = JsonFields()

    def text(field: str, *paths: str) -> str:
        return look.text(mapping[field]) if field in mapping else look.text(*paths)

    event = f"lower({look.text('event')})"
    query = text("query", "query") if "query" in mapping else _field("query")
    quantity = text("quantity", "quantity") if "quantity" in mapping else (
        f"coalesce({_field('count')}, {_field('quantity')})"
    )  # fmt: skip
    columns = {
        "user_id": text("user_id", "user", "session"),
        "client_id": look.text("session"),
        "at": text("at", "timestamp"),
        "session_id": text("session_id", "session"),
        "dwell_ms": text("dwell_ms", "dwell_ms"),
        "value": look.text(mapping["value"]) if "value" in mapping else "NULL",
        "discount": look.text(mapping["discount"]) if "discount" in mapping else "NULL",
    }
    interaction = entry(
        {
            "origin": "'event'",
            "kind": text("kind", "type"),
            "product_id": text("product_id", "item"),
            "position": look.text(mapping["position"]) if "position" in mapping else "NULL",
            "request_id": text("request_id", "ranking"),
            "quantity": quantity,
        },
        _NAMES,
    )
    faults = first_fault(_faults(look, event))
    taken = ", ".join(f"{value} AS {name}" for name, value in columns.items())
    nothing = entry({"origin": "'none'"}, _NAMES)
    relation = look.select(documents(copy))
    return f"""SELECT * EXCLUDE (entries), unnest(entries, recursive := true) FROM (
        SELECT source_row, {faults}, {taken},
        CASE WHEN fault IS NOT NULL THEN [{interaction}]
            WHEN {event} = 'ranking' THEN {_ranking(look, columns, query)}
            WHEN {event} IN ('item', 'user') THEN [{nothing}]
            ELSE [{interaction}] END AS entries
        FROM {relation})"""


def _ranking(look: JsonFields, columns: Mapping[str, str], query: str) -> str:
    request = look.text("id")
    search = entry(
        {"origin": "'query'", "kind": "'search'", "query": query, "request_id": request}, _NAMES
    )
    item = entry(
        {
            "origin": "'event'",
            "kind": "'impression'",
            "product_id": "json_extract_string(item, '$.id')",
            "position": "place",
            "query": query,
            "request_id": request,
        },
        _NAMES,
    )
    items = "json_extract(document, '$.items[*]')"
    nothing = entry({"origin": "'none'"}, _NAMES)
    impression = entry({"origin": "'event'", "kind": "'impression'"}, _NAMES)
    at = columns["at"]
    # A ranking that is wrong in itself is reported once, not again for each of its items.
    sound = f"""({request} IS NOT NULL AND coalesce({look.type_of("items")} = 'ARRAY', false)
        AND coalesce({timestamp(at)} IS NOT NULL
            OR TRY_CAST({at} AS DOUBLE) IS NOT NULL, false))"""
    return f"""CASE WHEN NOT {sound} THEN [{impression}]
        WHEN {query} IS NULL AND len({items}) = 0 THEN [{nothing}]
        ELSE list_concat(CASE WHEN {query} IS NULL THEN [] ELSE [{search}] END,
            list_transform({items}, lambda item, place: {item})) END"""


def _field(name: str) -> str:
    """Return the SQL of a value in ``fields``, a list of names and values."""
    return trimmed(
        f"""json_extract_string(list_filter(json_extract(document, '$.fields[*]'),
        lambda each: json_extract_string(each, '$.name') = '{name}')[1], '$.value')"""
    )


def _faults(look: JsonFields, event: str) -> list[tuple[str, str, str]]:
    ranking = f"{event} = 'ranking'"
    interaction = f"{event} = 'interaction'"
    known = "item, user, ranking or interaction"
    without_id = """len(list_filter(json_extract(document, '$.items[*]'), lambda each:
        coalesce(json_type(each, '$.id') NOT IN ('VARCHAR', 'UBIGINT', 'BIGINT'), true))) > 0"""
    return [
        ("row", "fault IS NOT NULL", "fault"),
        ("event", f"{event} IS NULL", f"'missing; it is {known}'"),
        (
            "event",
            f"{event} NOT IN ('item', 'user', 'ranking', 'interaction')",
            f"'unknown event ' || {event} || '; it is {known}'",
        ),
        ("at", look.is_nested("timestamp"), "'timestamp must be text or a number'"),
        ("user_id", look.is_nested("user"), "'user must be text or a number'"),
        (
            "request_id",
            f"{ranking} AND {look.text('id')} IS NULL",
            "'missing; a ranking needs an id'",
        ),
        (
            "items",
            f"{ranking} AND coalesce({look.type_of('items')} <> 'ARRAY', true)",
            "'must be a list of objects with an id'",
        ),
        ("items", f"{ranking} AND {without_id}", "'an item has no id'"),
        ("kind", f"{interaction} AND {look.is_nested('type')}", "'type must be text'"),
        (
            "product_id",
            f"{interaction} AND {look.is_nested('item')}",
            "'item must be text or a number'",
        ),
    ]
