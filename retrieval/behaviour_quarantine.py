"""The rows that an import refused, kept in the behaviour database.

A row is kept until its file is imported anew, once for each reason, however many events it would
have made. Its text is as in the file: whoever erases a shopper must erase it here as well, by
``user_id``.
"""

from collections.abc import Sequence
from typing import Annotated, NamedTuple

import duckdb
from pydantic import Field

from reranker.errors import DataError
from retrieval.behaviour_files import EventFile
from retrieval.behaviour_sql import Rule
from retrieval.event_formats.reading import FIELDS
from retrieval.event_formats.sql import literal, quoted, source
from retrieval.imports import REJECTED_IN_MEMORY, RejectedRow, Writable

QUARANTINE_DDL = """CREATE TABLE IF NOT EXISTS quarantine (file VARCHAR NOT NULL,
    row BIGINT NOT NULL, "check" VARCHAR NOT NULL, field VARCHAR NOT NULL,
    reason VARCHAR NOT NULL, events BIGINT NOT NULL, user_id VARCHAR, data VARCHAR)"""
_RAW = frozenset({"kind", "at", "position", "dwell_ms", "quantity", "value"})


class QuarantinedRow(RejectedRow):
    """One row in quarantine.

    Attributes:
        check: what kind of fault it has, as the report of the import sums them up.
        events: number of events that it would have made.
        user_id: the shopper, where the row tells.
        data: the row as JSON: its document, its fields as text, or the ``line`` that is neither.
    """

    check: str
    events: Annotated[int, Field(ge=1)]
    user_id: Writable | None
    data: Writable | None


def quarantine(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[EventFile],
    rules: Sequence[Rule],
) -> None:
    """Put the refused rows of ``judged`` and ``malformed`` into the quarantine.

    What an earlier import of the same files left there is replaced. Without rules, that is all.
    """
    connection.execute(QUARANTINE_DDL)
    names = ", ".join(
        f"({literal(file.parquet)}, {literal(file.path.resolve())})" for file in files
    )
    connection.execute(
        f"CREATE TEMP TABLE origin AS SELECT * FROM (VALUES {names}) t(filename, file)"
    )
    connection.execute("DELETE FROM quarantine WHERE file IN (SELECT file FROM origin)")
    if rules:
        connection.execute(f"INSERT INTO quarantine {_refused(files, rules)}")


def first_rejected(
    connection: duckdb.DuckDBPyConnection, files: Sequence[EventFile]
) -> tuple[RejectedRow, ...]:
    """Return the first rows that `quarantine` has put there, under their files' given names."""
    given = {str(file.path.resolve()): str(file.path) for file in files}
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
    """Return what is in quarantine, by file and row; nothing where no import has made the table."""
    present = "SELECT EXISTS (FROM duckdb_tables() WHERE table_name = 'quarantine')"
    if not connection.execute(present).fetchall()[0][0]:
        return ()
    bound = "" if limit is None else f"LIMIT {int(limit)}"
    names = tuple(QuarantinedRow.model_fields)
    columns = ", ".join(map(quoted, names))
    rows = connection.execute(f"SELECT {columns} FROM quarantine ORDER BY file, row {bound}")
    return tuple(QuarantinedRow(**dict(zip(names, row, strict=True))) for row in rows.fetchall())


def _refused(files: Sequence[EventFile], rules: Sequence[Rule]) -> str:
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
                user_id,
                CASE WHEN line IS NOT NULL THEN {_line("line")} ELSE {_fields()} END AS data
            FROM judged i WHERE NOT kept AND NOT ignored),
        documented AS (SELECT bad.* REPLACE (coalesce(d.document, data) AS data)
            FROM bad LEFT JOIN {_documents(files)} d USING (filename, row)),
        placed AS (SELECT b.* REPLACE (b.row + coalesce(gap.nth, 0) AS row)
            FROM documented b ASOF LEFT JOIN (SELECT *, row - nth AS before FROM gap) gap
            ON b.filename = gap.filename AND b.row > gap.before),
        listed AS (FROM placed UNION ALL
            SELECT filename, row, 'unreadable', 'row', reason, NULL, {_line("line")}
            FROM malformed)
        SELECT file, row, "check", field, reason, count(*), min(user_id), min(data)
        FROM listed JOIN origin USING (filename) GROUP BY ALL ORDER BY file, row"""


def _line(column: str) -> str:
    return f"json_object('line', {column})::VARCHAR"


def _fields() -> str:
    parts = ", ".join(
        f"{quoted(name)} := {f'raw_{name}' if name in _RAW else quoted(name)}" for name in FIELDS
    )
    return f"json_merge_patch('{{}}', to_json(struct_pack({parts})))::VARCHAR"


def _documents(files: Sequence[EventFile]) -> str:
    """Return the relation of the documents of foreign logs, by what is scanned and row."""
    foreign = [file for file in files if file.documents is not None]
    if not foreign:
        return "(SELECT NULL::VARCHAR AS filename, NULL::BIGINT AS row, NULL AS document)"
    copies = ", ".join(source(file.documents) for file in foreign if file.documents)
    names = ", ".join(
        f"({literal(file.documents)}, {literal(file.parquet)})"
        for file in foreign
        if file.documents
    )
    return f"""(SELECT scanned AS filename, file_row_number + 1 AS row,
            CASE WHEN fault IS NULL THEN json(document)::VARCHAR
                ELSE {_line("document")} END AS document
        FROM read_parquet([{copies}], filename = true, file_row_number = true) r
        JOIN (VALUES {names}) n(copy, scanned) ON r.filename = n.copy)"""
