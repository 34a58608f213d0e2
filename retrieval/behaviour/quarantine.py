"""The rows that an import refused, kept in the behaviour database.

A row is kept until its file is imported anew, once for each reason, however many events it would
have made. Of its content only the fields of an event are kept, with a pseudonym in place of the
user id: whatever else a log says of its shoppers stays in the file. E-mail addresses are masked in
all fields, since columns that have shifted are a common fault.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import duckdb
from pydantic import Field

from reranker.errors import DataError
from retrieval.behaviour.event_files import EventFile
from retrieval.behaviour.rules import Rule
from retrieval.behaviour.schema import PSEUDONYM
from retrieval.event_formats.reading import FIELDS
from retrieval.event_formats.sql import literal, quoted
from retrieval.imports import REJECTED_IN_MEMORY, RejectedRow, Writable

_RAW = frozenset({"kind", "at", "position", "dwell_ms", "quantity", "value", "discount"})


_E_MAIL = r"[\pL\pN_.+%'-]+@[\pL\pN_-]+(\.[\pL\pN_-]+)+"


class QuarantinedRow(RejectedRow):
    """One row in quarantine.

    Attributes:
        check: what kind of fault it has, as the report of the import sums them up.
        events: number of events that it would have made.
        shopper: the pseudonym, where the row tells the shopper.
        data: the fields of the event as JSON, as far as the row could be read.
    """

    check: str
    events: Annotated[int, Field(ge=1)]
    shopper: str | None
    data: Writable | None


def quarantine(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[EventFile],
    rules: Sequence[Rule],
) -> None:
    """Put the refused rows of ``judged`` and ``malformed`` into the quarantine.

    What an earlier import of the same files left there is replaced. Without rules, that is all.
    """
    names = ", ".join(f"({literal(file.parquet)}, {literal(file.origin)})" for file in files)
    connection.execute(
        f"CREATE TEMP TABLE origin AS SELECT * FROM (VALUES {names}) t(filename, file)"
    )
    connection.execute("DELETE FROM quarantine WHERE file IN (SELECT file FROM origin)")
    if rules:
        connection.execute(f"INSERT INTO quarantine {_refused(rules)}")


def first_rejected(
    connection: duckdb.DuckDBPyConnection, files: Sequence[EventFile]
) -> tuple[RejectedRow, ...]:
    """Return the first rows that `quarantine` has put there, under their files' given names."""
    given = {file.origin: file.name for file in files}
    rows = connection.execute(
        f"""SELECT file, row, field, reason FROM quarantine
        WHERE file IN (SELECT file FROM origin) ORDER BY ALL LIMIT {REJECTED_IN_MEMORY}"""
    ).fetchall()
    return tuple(
        RejectedRow(file=given[file], row=row, field=field, reason=reason)
        for file, row, field, reason in rows
    )


class Refusals(NamedTuple):
    """How many events were refused for faults of one kind in one field, with an example."""

    check: str
    field: str
    events: int
    example: str


def counts(connection: duckdb.DuckDBPyConnection) -> list[Refusals]:
    """Sum up what `quarantine` has put there."""
    rows = connection.execute(
        """SELECT "check", field, sum(events)::BIGINT, min_by(reason, (file, row)) FROM quarantine
        WHERE file IN (SELECT file FROM origin) GROUP BY ALL ORDER BY "check", field"""
    ).fetchall()
    return [Refusals(*row) for row in rows]


def too_many(
    connection: duckdb.DuckDBPyConnection, files: Sequence[EventFile], refused: int, events: int
) -> DataError:
    """Return the error for an import that is undone for what `quarantine` has put there."""
    first = first_rejected(connection, files)[0]
    kinds = ", ".join(f"{each.events} {each.check} ({each.field})" for each in counts(connection))
    return DataError(
        f"{refused} of {events} events were rejected, so nothing was imported: {kinds}; the first: "
        f"{first.file} row {first.row}, {first.field}: {first.reason}; correct the files, or allow "
        "a larger share by --max-rejected"
    )


def read(
    connection: duckdb.DuckDBPyConnection, limit: int | None = None
) -> tuple[QuarantinedRow, ...]:
    """Return what is in quarantine, by file and row."""
    bound = "" if limit is None else f"LIMIT {int(limit)}"
    names = tuple(QuarantinedRow.model_fields)
    columns = ", ".join(map(quoted, names)).replace('"shopper"', PSEUDONYM)
    rows = connection.execute(f"SELECT {columns} FROM quarantine ORDER BY file, row {bound}")
    return tuple(QuarantinedRow(**dict(zip(names, row, strict=True))) for row in rows.fetchall())


def _refused(rules: Sequence[Rule]) -> str:
    def case(part: str) -> str:
        return f"CASE {part} END"

    check = case(" ".join(f"WHEN {rule.when} THEN {literal(rule.check)}" for rule in rules))
    reason = case(" ".join(f"WHEN {rule.when} THEN {rule.reason}" for rule in rules))
    field = case(
        " ".join(
            f"WHEN {rule.when} THEN "
            + ("coalesce(fault_field, 'row')" if rule.field == "row" else literal(rule.field))
            for rule in rules
        )
    )
    # A record that did not parse is not in the copy: those behind it would count too low.
    return f"""
        WITH gap AS (SELECT filename, row,
                row_number() OVER (PARTITION BY filename ORDER BY row) AS nth FROM malformed),
        bad AS (SELECT filename, row, {check} AS "check", {field} AS field, {reason} AS reason,
                shopper, {_fields()} AS data
            FROM judged i WHERE NOT kept AND NOT ignored),
        placed AS (SELECT b.* REPLACE (b.row + coalesce(gap.nth, 0) AS row)
            FROM bad b ASOF LEFT JOIN (SELECT *, row - nth AS before FROM gap) gap
            ON b.filename = gap.filename AND b.row > gap.before),
        listed AS (FROM placed UNION ALL
            SELECT filename, row, 'unreadable', 'row', reason, NULL, NULL FROM malformed)
        SELECT file, row, "check", field, {_masked("reason")} AS reason, count(*), min(shopper),
            min({_masked("data")}), (current_timestamp AT TIME ZONE 'UTC')::TIMESTAMP
        FROM listed JOIN origin USING (filename) GROUP BY ALL ORDER BY file, row"""


def _masked(text: str) -> str:
    return f"regexp_replace({text}, {literal(_E_MAIL)}, '[e-mail]', 'g')"


def _fields() -> str:
    parts = ", ".join(
        f"{quoted(name)} := {f'raw_{name}' if name in _RAW else quoted(name)}"
        for name in FIELDS
        if name != "user_id"
    )
    return f"nullif(json_merge_patch('{{}}', to_json(struct_pack({parts})))::VARCHAR, '{{}}')"
