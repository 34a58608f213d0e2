"""The set-based import of behaviour events: cleaned, judged and sorted by DuckDB alone.

Few passes over the files: they count and find what is wrong or there already, the last one inserts
in the order of shopper and time. Rows never pass through Python, so that millions of them stream in
bounded memory; and all happens in one transaction, so that a killed import leaves nothing behind.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
from pydantic import Field

from reranker.errors import DataError
from reranker.ports import Progress
from reranker.schema import Value
from reranker.settings import CleaningSettings, Database
from retrieval.behaviour.checks import (
    NOMINEE,
    Finding,
    Products,
    counted_only,
    judged,
    late_rules,
    survey,
)
from retrieval.behaviour.cleaning import incoming, native_requests, queries, user_ids
from retrieval.behaviour.csv_records import MALFORMED_DDL
from retrieval.behaviour.event_files import EventFile, prepare, unreadable
from retrieval.behaviour.identities import learn, protected
from retrieval.behaviour.postgres_table import Table
from retrieval.behaviour.pseudonyms import Pseudonyms
from retrieval.behaviour.quarantine import counts, first_rejected, quarantine, too_many
from retrieval.behaviour.rules import Clock, rules
from retrieval.behaviour.schema import COLUMNS, FIELDS
from retrieval.behaviour.scratch import scratch_folder
from retrieval.behaviour.scrubbing import Scrubber
from retrieval.event_formats import requests
from retrieval.event_formats.links import link
from retrieval.event_formats.reading import Reading
from retrieval.event_formats.sql import EVENT_SUFFIXES, quoted, source
from retrieval.files import expand
from retrieval.imports import RejectedRow


class ImportReport(Value):
    """What became of every event: ``events = imported + duplicates + ignored + rejected_count``.

    Attributes:
        files: number of files read.
        formats: number of files in each format, as their content shows or the caller insists.
        rows: records read. In files of native events each is one event; a document of a log may
            make several events or none.
        events: made of the rows.
        duplicates: events identical in every field to an earlier one, here or in the store; or,
            in logs, told twice (a search as query and as event, what was shown as hits and as
            impressions).
        ignored: events whose action or age is left out on request, and documents that are no
            behaviour.
        naive_times: accepted events whose time had no offset and was taken as UTC.
        findings: what was dropped, repaired, counted only or not checked, and why.
        rejected: the first refused rows; all are in the quarantine of the store.
        rejected_count: number of all refused events.
    """

    files: int = Field(ge=0)
    formats: Mapping[str, int] = Field(default_factory=dict)
    rows: int = Field(ge=0)
    events: int = Field(ge=0)
    imported: int = Field(ge=0)
    duplicates: int = Field(ge=0)
    ignored: int = Field(0, ge=0)
    naive_times: int = Field(0, ge=0)
    findings: tuple[Finding, ...] = ()
    rejected: tuple[RejectedRow, ...] = ()
    rejected_count: int = Field(0, ge=0)


@dataclass(frozen=True)
class ImportPlan:
    """How an import reads and judges.

    Attributes:
        pseudonyms: of the store.
        scrubber: of queries.
        retain_days: age from which events are left out; None keeps all.
        products: of the catalogue; None where there is none.
        max_rejected: share of the events, 0 to 1, above which nothing is imported.
    """

    reading: Reading
    cleaning: CleaningSettings
    pseudonyms: Pseudonyms
    scrubber: Scrubber
    retain_days: int | None = None
    products: Products | None = None
    max_rejected: float = 1.0


@dataclass(frozen=True)
class _Count:
    """What the first pass has counted."""

    rows: int
    kept: int
    refused: int
    ignored: int
    naive: int
    repaired: int
    distinct: int


def import_files(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[Path | str],
    *,
    plan: ImportPlan,
    progress: Progress,
    folder: Path,
) -> ImportReport:
    """Import event files into the table ``event`` inside the caller's transaction.

    Args:
        connection: of the store; temporary tables of this import are left on it.
        paths: files, folders, glob patterns, and tables of databases (see `Table.of`).
        plan: how to read and to judge.
        progress: told what is being done.
        folder: takes the scratch files.

    Raises:
        ConfigError: a table is not named, or what reads its database is not installed.
        DataError: a file cannot be read or lacks a column, or too many events are refused; the
            caller then has to roll back.
    """
    found = _found(paths)
    connection.execute(MALFORMED_DDL)
    with scratch_folder(folder) as scratch:
        files = []
        for done, path in enumerate(found):
            progress(f"reading {path.name}", done, len(found))
            files.append(prepare(connection, path, plan.reading, scratch))
        with _naming_the_culprit(connection, files):
            return _import(connection, files, plan, progress)


def _found(paths: Sequence[Path | str]) -> list[Path | Table]:
    tables = [Table.of(str(path)) for path in paths if Database.is_meant(path)]
    files = [path for path in paths if not Database.is_meant(path)]
    return [*tables, *(expand(files, EVENT_SUFFIXES) if files or not tables else ())]


def _import(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[EventFile],
    plan: ImportPlan,
    progress: Progress,
) -> ImportReport:
    clock = _clock(plan)
    scrubs = learn(connection, user_ids(files), queries(files), plan.pseudonyms, plan.scrubber)
    foreign = [source(file.parquet) for file in files if file.is_foreign]
    told = False
    if foreign:
        copies = f"read_parquet([{', '.join(foreign)}], filename = true)"
        relation = f"({protected(copies, scrubs=scrubs, client=True)})"
        told = link(connection, relation, plan.reading.actions, native_requests(files))
    cleaned = incoming(files, plan.reading, clock, scrubs=scrubs, told=told)
    connection.execute(f"CREATE TEMP VIEW incoming AS {cleaned}")
    progress("checking events", 0, 2)
    survey(connection, plan.products)
    late = late_rules(connection, plan.cleaning, plan.products)
    connection.execute(f"CREATE TEMP VIEW judged AS {judged(late)}")
    count = _count(connection, surveyed=not late)
    malformed = _number(connection, "SELECT count(*) FROM malformed")
    repeated = _find_repeated(connection, within=count.distinct < count.kept)
    counted = counted_only(connection, plan.products, plan.cleaning)
    connection.execute("DROP TABLE survey")  # its memory is the sort's
    logs = requests.tally(connection) if foreign else requests.Tally()
    native = _native_rows(connection, files)
    told_twice = logs.events - (count.rows - native)
    events = native + malformed + logs.events + logs.without
    refused = count.refused + malformed
    quarantine(connection, files, [*rules(clock), *late] if refused else [])
    if refused and refused / events > plan.max_rejected:
        raise too_many(connection, files, refused, events)
    progress("sorting and inserting events", 1, 2)
    imported = _insert(connection, count, files, repeated=repeated)
    progress("sorting and inserting events", 2, 2)
    report = ImportReport(
        files=len(files),
        formats=Counter(file.format for file in files),
        rows=native + malformed + logs.rows,
        events=events,
        imported=imported,
        duplicates=count.kept - imported + told_twice,
        ignored=count.ignored + logs.without,
        naive_times=count.naive,
        rejected=first_rejected(connection, files),
        rejected_count=refused,
    )
    findings = [*_findings(connection, report, count.repaired), *counted]
    return report.model_copy(update={"findings": tuple(findings)})


def _clock(plan: ImportPlan) -> Clock:
    cleaning = plan.cleaning
    now = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
    earliest = datetime.combine(cleaning.earliest, datetime.min.time())
    latest = now + timedelta(hours=cleaning.clock_tolerance_hours)
    days = plan.retain_days
    kept_from = None if days is None else now - timedelta(days=days)
    return Clock(earliest, latest, cleaning.repair_clock, kept_from)


def _count(connection: duckdb.DuckDBPyConnection, *, surveyed: bool) -> _Count:
    """Count the rows by what becomes of them; the survey knows unless there are late rules."""
    relation = "(SELECT *, good AS kept FROM survey)"
    if not surveyed:
        relation = f"(SELECT *, CASE WHEN kept THEN {NOMINEE} END AS nominee FROM judged)"
    (counted,) = connection.execute(
        f"""SELECT count(*), count(*) FILTER (kept), count(*) FILTER (NOT kept AND NOT ignored),
        count(*) FILTER (ignored), count(*) FILTER (kept AND naive),
        count(*) FILTER (kept AND repaired), count(DISTINCT nominee) FROM {relation}"""
    ).fetchall()
    return _Count(*counted)


def _insert(
    connection: duckdb.DuckDBPyConnection,
    count: _Count,
    files: Sequence[EventFile],
    *,
    repeated: bool,
) -> int:
    # What no file gives need not be carried through the sort.
    fields = {"shopper", "kind", *(field for file in files for field, *_ in file.columns)}
    given = ", ".join(quoted(name) for name in FIELDS if name in fields)
    order = "shopper" if repeated or any(file.is_foreign for file in files) else "place"
    if repeated:
        rows = f"""SELECT {COLUMNS} FROM judged WHERE kept AND {NOMINEE} NOT IN (FROM repeated)
            UNION ALL (SELECT {COLUMNS} FROM judged WHERE kept AND {NOMINEE} IN (FROM repeated)
            EXCEPT SELECT {COLUMNS} FROM event WHERE {NOMINEE} IN (FROM repeated))"""
    else:
        condition = "WHERE kept" if count.kept < count.rows else ""
        rows = f"SELECT {COLUMNS}, place FROM judged {condition}"
    return _number(
        connection,
        f'INSERT INTO event ({given}) SELECT {given} FROM ({rows}) ORDER BY {order}, "at"',
    )


def _native_rows(connection: duckdb.DuckDBPyConnection, files: Sequence[EventFile]) -> int:
    names = ", ".join(source(file.parquet) for file in files if not file.is_foreign)
    return _number(connection, f"SELECT count(*) FROM read_parquet([{names}])") if names else 0


def _number(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    return int(connection.execute(query).fetchall()[0][0])


def _findings(
    connection: duckdb.DuckDBPyConnection, report: ImportReport, repaired: int
) -> list[Finding]:
    found = []

    def add(check: str, outcome: str, events: int, detail: str) -> None:
        if events:
            found.append(Finding(check=check, outcome=outcome, events=events, detail=detail))

    add("duplicate", "dropped", report.duplicates, "identical to an earlier event, or told twice")
    add("clock", "repaired", repaired, "milliseconds and seconds were taken for each other")
    add("clock", "read as UTC", report.naive_times, "times without a zone")
    for check, field, events, example in counts(connection):
        add(check, "quarantined", events, f"{field}: {example}")
    what = "actions to ignore, other documents, and events older than privacy.retain_days"
    add("not taken", "left out", report.ignored, what)
    return found


def _find_repeated(connection: duckdb.DuckDBPyConnection, *, within: bool) -> bool:
    """Put the hashes of rows that may be duplicates into ``repeated``; tell whether there are any.

    A hash of the telling fields only nominates: whether rows are identical is decided by all
    fields. Almost all rows of an ordinary import are settled by their hash, at a low cost.
    """
    parts = []
    if within:
        parts.append(
            """SELECT nominee AS h FROM survey WHERE nominee IS NOT NULL
            GROUP BY h HAVING count(*) > 1"""
        )
    if connection.execute("SELECT EXISTS (FROM event)").fetchall()[0][0]:
        parts.append(
            f"""SELECT DISTINCT nominee AS h FROM survey
            WHERE h IN (SELECT {NOMINEE} FROM event WHERE "at" BETWEEN
                getvariable('span')[1] AND getvariable('span')[2])"""
        )
        connection.execute(
            """SET VARIABLE span = (SELECT [min("at"), max("at")] FROM incoming WHERE good)"""
        )
    if not parts:
        return False
    connection.execute(f"CREATE TEMP TABLE repeated AS {' UNION '.join(parts)}")
    return bool(connection.execute("SELECT EXISTS (FROM repeated)").fetchall()[0][0])


@contextmanager
def _naming_the_culprit(
    connection: duckdb.DuckDBPyConnection, files: Sequence[EventFile]
) -> Iterator[None]:
    """Turn a failure half way through a file into an error that names the file."""
    try:
        yield
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except duckdb.Error as error:
        connection.rollback()
        for file in files:
            try:
                connection.execute(
                    f"SELECT max(hash(COLUMNS(*))) FROM read_parquet({source(file.parquet)})"
                )
            except duckdb.Error as cause:
                raise unreadable(file.name, cause) from error
        raise DataError(f"the import failed and was undone: {error}") from error
