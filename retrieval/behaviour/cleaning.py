"""The SQL that cleans event files, by the types of their columns."""

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from retrieval.behaviour.event_files import EventFile
from retrieval.behaviour.identities import Replaced, protected
from retrieval.behaviour.rules import Clock, rules
from retrieval.event_formats.reading import FIELDS, Reading
from retrieval.event_formats.requests import linked
from retrieval.event_formats.sql import FLOATS, as_text, quoted, source, timestamp

_EPOCH_UNITS = ((100_000_000_000, 1_000_000), (100_000_000_000_000, 1000), (10**17, 1))
"""Smallest number of the next unit, and microseconds in this one: s, ms, us, and then ns."""
_OFFSET = r"(:\d{2}|T\d{4}(\d\d)?)(\.\d+)?\s*([A-Za-z][A-Za-z_/]*|[+-]\d{2}(:?\d{2})?)$"
_EPOCH = r"^\d+(\.\d*)?$"
_NUMBERS = {
    "position": "INTEGER",
    "dwell_ms": "BIGINT",
    "quantity": "DOUBLE",
    "value": "DOUBLE",
    "discount": "DOUBLE",
}
_NANOSECONDS = {"TIMESTAMP_NS": "true", "TIMESTAMPTZ_NS": "false"}
"""DuckDB's types of times in nanoseconds, to whether they lack a zone."""
_INTEGERS = frozenset(
    f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG")
) | {"INTEGER", "UINTEGER"}


def incoming(
    files: Sequence[EventFile],
    reading: Reading,
    clock: Clock,
    *,
    scrubs: Replaced,
    told: bool = False,
) -> str:
    """Return the SELECT of all rows of all files, cleaned, with ``good`` telling the sound ones.

    Besides the fields: ``shopper`` (the pseudonym), ``filename`` and ``row`` of the source,
    ``repaired`` (the time was mended), ``ignored`` (an action or an age that is left out),
    ``naive`` (a time without a zone), ``user_fault`` (why a log's missing shopper stays so).

    Args:
        files: in the form that `retrieval.behaviour.event_files.prepare` gives them.
        reading: how to take them.
        clock: what times are believed and kept.
        scrubs: which queries `retrieval.behaviour.identities.learn` has found to be replaced.
        told: whether `retrieval.event_formats.links.link` has found queries that events came in
            with before.
    """
    native = sorted(
        (file for file in files if not file.is_foreign),
        key=lambda file: (file.staged, file.columns),
    )
    parts = [
        _cleaned(columns, [file.parquet for file in group], reading, staged=staged, scrubs=scrubs)
        for (staged, columns), group in groupby(native, lambda file: (file.staged, file.columns))
    ]
    foreign = [file for file in files if file.is_foreign]
    if foreign:
        events = _select(foreign[0].columns, reading, linked(reading.actions), _FOREIGN)
        parts.append(_as_told(events) if told else events)
    # OR is true as soon as one part is, whatever is unknown of the others.
    bad = " OR ".join(f"({rule.when})" for rule in rules(clock))
    old = (
        f""" OR coalesce("at" < TIMESTAMP '{clock.kept_from}', false)""" if clock.kept_from else ""
    )
    return f"""SELECT *, NOT coalesce(ignored OR {bad}, false) AS good FROM (
        SELECT * REPLACE (ignored{old} AS ignored) FROM (
            SELECT * REPLACE (CASE WHEN odd_time THEN {_mended(clock)} ELSE "at" END AS "at"),
                odd_time AND "at" IS NOT NULL AS repaired
            FROM (SELECT *, "at" NOT BETWEEN TIMESTAMP '{clock.earliest}'
                AND TIMESTAMP '{clock.latest}' AS odd_time FROM ({" UNION ALL ".join(parts)}))))"""


def user_ids(files: Sequence[EventFile]) -> list[str]:
    """Return SELECTs of all user ids in files, not yet trimmed."""
    found = []
    for file in files:
        names = ("user_id", "client_id") if file.is_foreign else ("user_id",)
        found += [f"SELECT {text} FROM {file.relation}" for text in _as_given(file, names)]
    return found


def queries(files: Sequence[EventFile]) -> list[str]:
    """Return SELECTs of all user ids and queries in files, not yet trimmed."""
    return [
        f"SELECT {', '.join(_as_given(file, ('user_id', 'query')))} FROM {file.relation}"
        for file in files
    ]


def native_requests(files: Sequence[EventFile]) -> list[str]:
    """Return SELECTs of the ``request_id``, ``shopper`` and ``session_id`` of native events.

    Logs in the same import may use the same requests: see `retrieval.event_formats.links`.
    """
    found = []
    names = ("request_id", "user_id", "session_id")
    for file in files:
        if not file.is_foreign and any(field == "request_id" for field, *_ in file.columns):
            request, user, session = _as_given(file, names)
            found.append(
                f"""SELECT {as_text("request", "VARCHAR")}, p.shopper,
                    nullif({as_text("session", "VARCHAR")}, p.user_id)
                FROM (SELECT {request} AS request, {user} AS given, {session} AS session
                    FROM {file.relation}) r LEFT JOIN pseudonym p ON r.given = p.given"""
            )
    return found


def _as_given(file: EventFile, names: Sequence[str]) -> list[str]:
    """Return the SQL of fields as text, before it is trimmed."""
    columns = {field: (quoted(column), kind) for field, column, kind in file.columns}
    if file.is_foreign:
        return list(names)
    return [_untrimmed(*columns[name]) if name in columns else "NULL::VARCHAR" for name in names]


def _untrimmed(column: str, kind: str) -> str:
    return column if kind == "VARCHAR" else as_text(column, kind)


def _as_told(events: str) -> str:
    """Give events whose query is not clear any more the one that they came in with before.

    Without it, the same event would differ from itself as soon as its shopper asks something else
    by the same request id, and an import that is repeated would add it again.
    """
    return f"""SELECT e.* REPLACE (coalesce(e.query, told.query) AS query) FROM ({events}) e
        LEFT JOIN told ON e.request_id = told.request_id AND e.shopper = told.shopper
            AND e.session_id IS NOT DISTINCT FROM told.session_id AND e.kind = told.kind
            AND e."at" = told."at" AND e.product_id = told.product_id"""


def _mended(clock: Clock) -> str:
    """Return the SQL of a time outside the clock's range; of one that cannot be, NULL."""
    shorter = 'make_timestamp(epoch_us("at") // 1000)'
    longer = 'make_timestamp(epoch_us("at") * 1000)'
    sound = f"BETWEEN TIMESTAMP '{clock.earliest}' AND TIMESTAMP '{clock.latest}'"
    # The types of Python and of the readers end at these years; 'infinity' goes with them.
    bounds = "TIMESTAMP '0001-01-02' AND TIMESTAMP '9999-12-30'"
    mended = f"""WHEN NOT isfinite("at") THEN NULL
        WHEN "at" > TIMESTAMP '9999-12-30' AND {shorter} {sound} THEN {shorter}
        WHEN "at" BETWEEN TIMESTAMP '1970-01-02' AND TIMESTAMP '1971-01-01'
            AND {longer} {sound} THEN {longer}"""
    return f"""CASE {mended if clock.repair else ""} WHEN "at" BETWEEN {bounds} THEN "at" END"""


class _Source(NamedTuple):
    row: str
    fault: str
    fault_field: str
    user_fault: str = "NULL::VARCHAR"
    more: str = ""


_FOREIGN = _Source("source_row", "fault", "fault_field", "user_fault", ", shopper, place")
_COPY = _Source("file_row_number + 1", "fault", "'row'")
_PARQUET = _Source("file_row_number + 1", "NULL::VARCHAR", "'row'")


def _cleaned(
    columns: Sequence[tuple[str, str, str]],
    paths: Sequence[Path],
    reading: Reading,
    *,
    staged: bool,
    scrubs: Replaced,
) -> str:
    names = ", ".join(source(path) for path in paths)
    relation = f"read_parquet([{names}], filename = true, file_row_number = true)"
    rows = _select(columns, reading, relation, _COPY if staged else _PARQUET)
    return protected(f"({rows})", scrubs=scrubs)


def _select(
    columns: Sequence[tuple[str, str, str]], reading: Reading, relation: str, taken: _Source
) -> str:
    given = {field: (quoted(column), kind) for field, column, kind in columns}
    sources = [given.get(field, ("CAST(NULL AS VARCHAR)", "VARCHAR")) for field in FIELDS]
    cleaned = [
        part
        for field, (column, kind) in zip(FIELDS, sources, strict=True)
        for part in (
            # `protected` finds the pseudonym by it, and gives it trimmed.
            [f"{_untrimmed(column, kind)} AS user_id"]
            if field == "user_id"
            else _clean(field, column, kind, reading)
        )
    ]
    return f"""SELECT filename, {taken.row} AS row, {taken.fault} AS fault,
        {taken.fault_field} AS fault_field, {taken.user_fault} AS user_fault,
        {", ".join(cleaned)}{taken.more} FROM {relation}"""


def _clean(field: str, column: str, kind: str, reading: Reading) -> list[str]:
    """Return the SQL of one field: its value, and what the rules need besides."""
    raw = as_text(column, kind)
    clean = raw
    extra = []
    given = _given(column, kind, raw)
    if field == "kind":
        if reading.default_kind is not None:
            raw, given = f"coalesce({raw}, '{reading.default_kind}')", "true"
        clean = reading.actions.kind(raw)
        extra = [f"{reading.actions.ignored(raw)} AS ignored"]
    elif field == "at":
        clean, naive = _time(column, kind, raw)
        extra = [f"{naive} AS naive"]
    elif field in _NUMBERS:
        clean = _number(column, kind, raw, _NUMBERS[field])
    else:
        return [f"{raw} AS {quoted(field)}"]
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
    return f"({present} AND NOT isnan({column}))" if kind in FLOATS else f"({present})"


def _number(column: str, kind: str, raw: str, wanted: str) -> str:
    if kind in _INTEGERS:
        return f"TRY_CAST({column} AS {wanted})"
    if kind == wanted == "DOUBLE":
        return f"CASE WHEN isfinite({column}) THEN {column} END"
    number = f"TRY_CAST({raw if kind == 'VARCHAR' else column} AS DOUBLE)"
    sound = f"isfinite({number})"
    if wanted != "DOUBLE":
        sound += f" AND {number} = trunc({number})"
    return f"CASE WHEN {sound} THEN TRY_CAST({number} AS {wanted}) END"


def _time(column: str, kind: str, raw: str) -> tuple[str, str]:
    """Return the SQL of the time in UTC, and of whether it lacked an offset."""
    naive = "false"
    if kind == "TIMESTAMP WITH TIME ZONE":
        # Plain arithmetic: to go by the time zone costs more than all else about a row.
        time = f"CASE WHEN isfinite({column}) THEN make_timestamp(epoch_us({column})) END"
    elif kind in _NANOSECONDS:
        # Rounded, as an epoch is: stores have such events, and know them again by their time.
        zoneless = f"make_timestamp_ns(epoch_ns({column}))"
        time, naive = f"TRY_CAST({zoneless} AS TIMESTAMP)", _NANOSECONDS[kind]
    elif kind == "DATE" or kind.startswith("TIMESTAMP"):
        time, naive = f"TRY_CAST({column} AS TIMESTAMP)", "true"
    elif kind == "VARCHAR":
        stamp = f"timezone('UTC', {timestamp(raw)})"
        number = f"regexp_matches({raw}, '{_EPOCH}')"
        time = f"CASE WHEN {number} THEN {_epoch(raw)} ELSE {stamp} END"
        naive = f"NOT regexp_matches({raw}, '{_OFFSET}') AND NOT {number}"
    else:
        time = _epoch(column)
    return time, naive


def _epoch(column: str) -> str:
    number = f"TRY_CAST({column} AS DOUBLE)"
    scales = " ".join(f"WHEN {number} < {below} THEN {scale}" for below, scale in _EPOCH_UNITS)
    return f"TRY(make_timestamp(TRY_CAST({number} * CASE {scales} ELSE 0.001 END AS BIGINT)))"
