"""The SQL that cleans event files by the types of their columns, and what makes a row bad."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from reranker.schema import EventKind
from retrieval.behaviour_files import FIELDS, EventFile, quoted, source

COLUMNS = ", ".join(quoted(field) for field in FIELDS)
_KINDS = ", ".join(EventKind)
_SPACE = "' ' || chr(9) || chr(10) || chr(13)"
_MILLISECONDS_FROM = 100_000_000_000
"""Smallest number that is read as milliseconds: as seconds it would be the year 5138."""
_OFFSET = r":\d{2}(\.\d+)?\s*([A-Za-z][A-Za-z_/]*|[+-]\d{2}(:?\d{2})?)$"
_EPOCH = r"^\d+(\.\d*)?$"
_NUMBERS = {"position": "INTEGER", "dwell_ms": "BIGINT", "quantity": "DOUBLE", "value": "DOUBLE"}
_FLOATS = frozenset({"FLOAT", "DOUBLE"})
_INTEGERS = frozenset(
    f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG")
) | {"INTEGER", "UINTEGER"}


def _long(field: str) -> str:
    # Bytes are counted at once, characters one by one.
    return f"strlen({field}) > 256 AND length({field}) > 256"


# Field at fault, condition, and reason as SQL; the first that holds is reported.
RULES = (
    ("row", "fault IS NOT NULL", "fault"),
    ("user_id", "user_id IS NULL", "'missing'"),
    ("user_id", _long("user_id"), "'longer than 256 characters'"),
    ("kind", "NOT given_kind", "'missing'"),
    ("kind", "kind IS NULL", f"'unknown kind ' || raw_kind || '; the kinds are {_KINDS}'"),
    ("at", "NOT given_at", "'missing'"),
    ("at", '"at" IS NULL', "'not a time: ' || raw_at || '; write ISO 8601 or epoch seconds'"),
    (
        "product_id",
        "product_id IS NULL AND kind <> 'search'",
        "'missing; ' || kind || ' needs one'",
    ),
    ("product_id", _long("product_id"), "'longer than 256 characters'"),
    ("query", "query IS NULL AND kind = 'search'", "'missing; search needs one'"),
    ("position", "given_position AND position IS NULL", "'not a whole number'"),
    ("position", "position < 1", "'below 1'"),
    ("dwell_ms", "given_dwell_ms AND dwell_ms IS NULL", "'not a whole number'"),
    ("dwell_ms", "dwell_ms < 0", "'negative'"),
    ("quantity", "given_quantity AND quantity IS NULL", "'not a number'"),
    ("quantity", "quantity <= 0", "'not above 0'"),
    ("value", "given_value AND value IS NULL", "'not a number'"),
)


def incoming(files: Sequence[EventFile]) -> str:
    """Return the SELECT of all rows of all files, cleaned, with ``good`` telling the sound ones."""
    ordered = sorted(files, key=lambda file: (file.staged, file.columns))
    parts = [
        _cleaned(columns, staged, [file.parquet for file in group])
        for (staged, columns), group in groupby(ordered, lambda file: (file.staged, file.columns))
    ]
    bad = " OR ".join(f"coalesce({when}, false)" for _, when, _ in RULES)
    return f"SELECT *, NOT ({bad}) AS good FROM ({' UNION ALL '.join(parts)})"


def _cleaned(columns: Sequence[tuple[str, str, str]], staged: bool, paths: Sequence[Path]) -> str:
    given = {field: (quoted(column), kind) for field, column, kind in columns}
    sources = [given.get(field, ("CAST(NULL AS VARCHAR)", "VARCHAR")) for field in FIELDS]
    cleaned = [
        part
        for field, (column, kind) in zip(FIELDS, sources, strict=True)
        for part in _clean(field, column, kind)
    ]
    fault = "fault" if staged else "NULL::VARCHAR AS fault"
    names = ", ".join(source(path) for path in paths)
    return f"""SELECT filename, file_row_number + 1 AS row, {fault}, {", ".join(cleaned)}
        FROM read_parquet([{names}], filename = true, file_row_number = true)"""


def _clean(field: str, column: str, kind: str) -> list[str]:
    """Return the SQL of one field: its value, and what the rules need besides."""
    raw = _text(column, kind)
    clean = raw
    extra = []
    if field == "kind":
        clean = f"TRY_CAST(lower({raw}) AS event_kind)"
    elif field == "at":
        clean, naive = _time(column, kind, raw)
        extra = [f"{naive} AS naive"]
    elif field in _NUMBERS:
        clean = _number(column, kind, raw, _NUMBERS[field])
    else:
        return [f"{raw} AS {quoted(field)}"]
    given = _given(column, kind, raw)
    return [
        f"{raw} AS raw_{field}",
        f"{given} AS given_{field}",
        f"{clean} AS {quoted(field)}",
        *extra,
    ]


def _given(column: str, kind: str, raw: str) -> str:
    # Not by way of the text: to write out every number and time would take seconds a million.
    if kind == "VARCHAR":
        return f"({raw}) IS NOT NULL"
    present = f"{column} IS NOT NULL"
    return f"({present} AND NOT isnan({column}))" if kind in _FLOATS else f"({present})"


def _text(column: str, kind: str) -> str:
    if kind == "VARCHAR":
        # Trimming all is slower than the sort: only what begins or ends with white space is.
        ragged = f"{column} < '!' OR {column}[-1] <= ' '"
        return f"CASE WHEN {ragged} THEN nullif(trim({column}, {_SPACE}), '') ELSE {column} END"
    if kind in _FLOATS:
        # pandas makes floats of whole numbers as soon as one is missing, and NaN of the missing.
        whole = f"TRY_CAST(TRY_CAST({column} AS BIGINT) AS VARCHAR)"
        return f"""CASE WHEN isnan({column}) THEN NULL WHEN {column} = trunc({column})
            THEN coalesce({whole}, {column}::VARCHAR) ELSE {column}::VARCHAR END"""
    return f"CAST({column} AS VARCHAR)"


def _number(column: str, kind: str, raw: str, wanted: str) -> str:
    if kind in _INTEGERS:
        return f"TRY_CAST({column} AS {wanted})"
    number = f"TRY_CAST({raw if kind == 'VARCHAR' else column} AS DOUBLE)"
    sound = f"isfinite({number})"
    if wanted != "DOUBLE":
        sound += f" AND {number} = trunc({number})"
    return f"CASE WHEN {sound} THEN TRY_CAST({number} AS {wanted}) END"


def _time(column: str, kind: str, raw: str) -> tuple[str, str]:
    """Return the SQL of the time in UTC, and of whether it lacked an offset."""
    naive = "false"
    if kind == "TIMESTAMP WITH TIME ZONE":
        time = f"timezone('UTC', {column})"
    elif kind == "DATE" or kind.startswith("TIMESTAMP"):
        time, naive = f"TRY_CAST({column} AS TIMESTAMP)", "true"
    elif kind == "VARCHAR":
        stamp = f"timezone('UTC', TRY_CAST({raw} AS TIMESTAMPTZ))"
        number = f"regexp_matches({raw}, '{_EPOCH}')"
        time = f"CASE WHEN {number} THEN {_epoch(raw)} ELSE {stamp} END"
        naive = f"NOT regexp_matches({raw}, '{_OFFSET}') AND NOT {number}"
    else:
        time = _epoch(column)
    # The types of Python and of the readers end at these years; 'infinity' goes with them.
    bounds = "TIMESTAMP '0001-01-02' AND TIMESTAMP '9999-12-30'"
    return f"CASE WHEN {time} BETWEEN {bounds} THEN {time} END", naive


def _epoch(column: str) -> str:
    number = f"TRY_CAST({column} AS DOUBLE)"
    scale = f"CASE WHEN {number} < {_MILLISECONDS_FROM} THEN 1000000 ELSE 1000 END"
    return f"TRY(make_timestamp(TRY_CAST({number} * {scale} AS BIGINT)))"
