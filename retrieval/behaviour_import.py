"""The set-based import of behaviour events: cleaned, judged and sorted by DuckDB alone.

Two passes over the files: the first counts and finds what is wrong or there already, the second
inserts in the order of shopper and time. Rows never pass through Python, so that millions of them
stream in bounded memory; and all happens in one transaction, so that a killed import leaves
nothing behind.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import duckdb
from pydantic import Field

from reranker.errors import DataError
from reranker.ports import Progress
from reranker.schema import Value
from retrieval.behaviour_files import (
    MALFORMED_DDL,
    EventFile,
    check_mapping,
    literal,
    prepare,
    source,
    unreadable,
)
from retrieval.behaviour_sql import COLUMNS, RULES, incoming
from retrieval.files import expand, replacing
from retrieval.imports import REJECTED_IN_MEMORY, RejectedRow

KEY = "hash(user_id)"
"""The sort key: an integer sorts faster than a text, and its zone maps never lose precision."""
_NOMINEE = 'hash(user_id, kind, "at", product_id, query)'
_SCRATCH = "behaviour-import-"


class ImportReport(Value):
    """What became of every row: ``rows = imported + duplicates + rejected_count``.

    Attributes:
        files: number of files read.
        duplicates: rows identical in every field to an earlier one, here or in the store.
        naive_times: accepted rows whose time had no offset and was taken as UTC.
        rejected: the first refused rows.
        rejected_count: number of all refused rows.
        rejected_file: where all refused rows are listed; None without any.
    """

    files: int = Field(ge=0)
    rows: int = Field(ge=0)
    imported: int = Field(ge=0)
    duplicates: int = Field(ge=0)
    naive_times: int = Field(ge=0)
    rejected: tuple[RejectedRow, ...] = ()
    rejected_count: int = Field(0, ge=0)
    rejected_file: str | None = None


def import_files(
    connection: duckdb.DuckDBPyConnection,
    paths: Sequence[Path | str],
    *,
    mapping: Mapping[str, str],
    progress: Progress,
    folder: Path,
) -> ImportReport:
    """Import event files into the table ``event`` inside the caller's transaction.

    Args:
        connection: of the store; temporary tables of this import are left on it.
        paths: files, folders and glob patterns.
        mapping: field to column, where the names differ.
        progress: told what is being done.
        folder: takes the scratch files and `behaviour-rejected.jsonl`.

    Raises:
        ConfigError: the mapping names an unknown field.
        DataError: a file cannot be read or lacks a column.
    """
    check_mapping(mapping)
    found = expand(paths)
    connection.execute(MALFORMED_DDL)
    for leftover in folder.glob(f"{_SCRATCH}*"):  # of an import that was killed
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=_SCRATCH) as scratch:
        files = []
        for done, path in enumerate(found):
            progress(f"reading {path.name}", done, len(found))
            files.append(prepare(connection, path, mapping, Path(scratch)))
        with _naming_the_culprit(connection, files):
            return _import(connection, files, progress, folder / "behaviour-rejected.jsonl")


def _import(
    connection: duckdb.DuckDBPyConnection,
    files: Sequence[EventFile],
    progress: Progress,
    rejected_path: Path,
) -> ImportReport:
    connection.execute(f"CREATE TEMP VIEW incoming AS {incoming(files)}")
    progress("checking events", 0, 2)
    rows, good, naive, distinct = connection.execute(
        f"""SELECT count(*), count(*) FILTER (good), count(*) FILTER (good AND naive),
        count(DISTINCT CASE WHEN good THEN {_NOMINEE} END) FROM incoming"""
    ).fetchall()[0]
    malformed = connection.execute("SELECT count(*) FROM malformed").fetchall()[0][0]
    repeated = _find_repeated(connection, within=distinct < good)
    progress("sorting and inserting events", 1, 2)
    if repeated:
        source = f"""SELECT {COLUMNS} FROM incoming WHERE good AND {_NOMINEE} NOT IN (FROM repeated)
            UNION ALL (SELECT {COLUMNS} FROM incoming WHERE good AND {_NOMINEE} IN (FROM repeated)
            EXCEPT SELECT {COLUMNS} FROM event WHERE {_NOMINEE} IN (FROM repeated))"""
    else:
        condition = "WHERE good" if good < rows else ""
        source = f"SELECT {COLUMNS} FROM incoming {condition}"
    imported = connection.execute(
        f'INSERT INTO event SELECT {KEY} AS key, * FROM ({source}) ORDER BY key, "at"'
    ).fetchall()[0][0]
    rejected = _keep_rejected(connection, files, rejected_path, rows - good + malformed)
    progress("sorting and inserting events", 2, 2)
    return ImportReport(
        files=len(files),
        rows=rows + malformed,
        imported=imported,
        duplicates=good - imported,
        naive_times=naive,
        rejected=rejected,
        rejected_count=rows - good + malformed,
        rejected_file=str(rejected_path) if rejected else None,
    )


def _find_repeated(connection: duckdb.DuckDBPyConnection, *, within: bool) -> bool:
    """Put the hashes of rows that may be duplicates into ``repeated``; tell whether there are any.

    A hash of the telling fields only nominates: whether rows are identical is decided by all
    fields. Almost all rows of an ordinary import are settled by their hash, at a low cost.
    """
    parts = []
    if within:
        parts.append(
            f"SELECT {_NOMINEE} AS h FROM incoming WHERE good GROUP BY h HAVING count(*) > 1"
        )
    if connection.execute("SELECT EXISTS (FROM event)").fetchall()[0][0]:
        parts.append(
            f"""SELECT DISTINCT h FROM (SELECT {_NOMINEE} AS h FROM incoming WHERE good)
            WHERE h IN (SELECT {_NOMINEE} FROM event WHERE "at" BETWEEN
            (SELECT min("at") FROM incoming WHERE good) AND
            (SELECT max("at") FROM incoming WHERE good))"""
        )
    if not parts:
        return False
    connection.execute(f"CREATE TEMP TABLE repeated AS {' UNION '.join(parts)}")
    return bool(connection.execute("SELECT EXISTS (FROM repeated)").fetchall()[0][0])


def _keep_rejected(
    connection: duckdb.DuckDBPyConnection, files: Sequence[EventFile], path: Path, count: int
) -> tuple[RejectedRow, ...]:
    """List all refused rows in a file, in their order; return the first of them."""
    if not count:
        path.unlink(missing_ok=True)
        return ()
    field = " ".join(f"WHEN {when} THEN '{name}'" for name, when, _ in RULES)
    reason = " ".join(f"WHEN {when} THEN {text}" for _, when, text in RULES)
    names = ", ".join(f"({literal(file.parquet)}, {literal(file.path)})" for file in files)
    # A record that did not parse is not in the copy: those behind it would count too low.
    query = f"""
        WITH source(filename, file) AS (VALUES {names}),
        gap AS (SELECT filename, row, row_number() OVER (PARTITION BY filename ORDER BY row) AS nth
            FROM malformed),
        bad AS (SELECT b.filename, b.row + coalesce(gap.nth, 0) AS row, field, reason
            FROM (SELECT filename, row, CASE {field} END AS field, CASE {reason} END AS reason
                FROM incoming WHERE NOT good) b
            ASOF LEFT JOIN (SELECT *, row - nth AS before FROM gap) gap
            ON b.filename = gap.filename AND b.row > gap.before),
        listed AS (FROM bad UNION ALL SELECT filename, row, 'row', reason FROM malformed)
        SELECT file, row, field, reason FROM listed JOIN source USING (filename) ORDER BY 1, 2"""
    with replacing(path) as temporary:
        connection.execute(f"COPY ({query}) TO {literal(temporary)} (FORMAT json)")
        with temporary.open(encoding="utf-8") as lines:
            first = islice(lines, REJECTED_IN_MEMORY)
            return tuple(RejectedRow.model_validate_json(line) for line in first)


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
                raise unreadable(file.path, cause) from error
        raise DataError(f"the import failed and was undone: {error}") from error
