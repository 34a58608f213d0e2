"""Event files of all kinds, brought into the one form that the import reads: Parquet.

Text files are parsed once, by DuckDB, into a Parquet copy in a scratch folder: every later pass
then costs little, in any format, and rows keep their numbers. Logs in a foreign format are copied
as documents first, and their events from there; tables of a database are copied as they are.
"""

import gzip
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import duckdb

from reranker.errors import DataError
from retrieval.behaviour.csv_records import csv_header, note_malformed
from retrieval.behaviour.postgres_table import Table
from retrieval.event_formats import documents, metarank, requests, ubi
from retrieval.event_formats.detection import Format
from retrieval.event_formats.reading import FIELDS, Reading
from retrieval.event_formats.sql import (
    EVENT_SUFFIXES,
    LINE_FAULT,
    as_text,
    lines,
    literal,
    pointer,
    quoted,
    source,
    text_source,
)
from retrieval.files import kind


@dataclass(frozen=True)
class EventFile:
    """One file, or table of a database, to import.

    Attributes:
        name: as given, for messages.
        origin: where it is, in full: quarantined rows are kept by it.
        format: which the file is in.
        parquet: what to scan: the file itself, or its copy in the scratch folder.
        columns: for each field that the file has, its column and the column's DuckDB type.
        staged: whether ``parquet`` is a copy; copies have a ``fault`` column.
    """

    name: str
    origin: str
    parquet: Path
    columns: tuple[tuple[str, str, str], ...]
    staged: bool
    format: Format = "native"

    @property
    def is_foreign(self) -> bool:
        """Whether these are the events of a log, which have to be linked."""
        return self.format != "native"

    def text_of(self, field: str) -> str:
        """Return the SQL of a field as trimmed text; NULL where the file does not have it."""
        found = (
            as_text(quoted(column), kind) for name, column, kind in self.columns if name == field
        )
        return next(found, "NULL::VARCHAR")

    @property
    def relation(self) -> str:
        """SQL of the rows of ``parquet``, with their places in it, from 0: ``file_row_number``."""
        return f"read_parquet({source(self.parquet)}, file_row_number = true)"


def _all_text(fields: Sequence[str]) -> tuple[tuple[str, str, str], ...]:
    return tuple((name, name, "VARCHAR") for name in fields)


def prepare(
    connection: duckdb.DuckDBPyConnection, path: Path | Table, reading: Reading, scratch: Path
) -> EventFile:
    """Return a file in the form that the import scans.

    Args:
        connection: has the table of `retrieval.behaviour.csv_records.MALFORMED_DDL`, which takes
            records that cannot be parsed.
        path: one of those that `retrieval.files.expand` returned, or a table of a database.
        reading: how to take it.
        scratch: folder for copies.

    Raises:
        ConfigError: what reads the database is not installed.
        DataError: the file cannot be read at all, or lacks a column that every event needs.
    """
    copy = scratch / f"{len(list(scratch.iterdir()))}.parquet"
    if isinstance(path, Table):
        fetched = copy.with_suffix(".table.parquet")
        path.fetch(fetched)
        file = _parquet(connection, fetched, reading, copy, path.name)
        return replace(file, name=path.name, origin=path.name)
    try:
        match kind(path, EVENT_SUFFIXES):
            case ".parquet":
                return _parquet(connection, path, reading, copy, path)
            case ".jsonl" | ".ndjson":
                return _json_lines(connection, path, reading, copy)
            case ".json":
                return _json(connection, path, reading, copy)
            case _:
                return _csv(connection, path, reading, copy)
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except (duckdb.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path | str, error: Exception) -> DataError:
    """Return the error for a file whose content is not what its name says."""
    message = str(error)
    first = message.splitlines()[0] if message else type(error).__name__
    if isinstance(error, UnicodeDecodeError) or "unicode" in message:
        return DataError(f"{path}: not UTF-8 text ({first}); convert it to UTF-8")
    return DataError(f"{path}: corrupt or not of the kind its name says ({first}); write it anew")


def _present(path: Path | str, reading: Reading, found: Sequence[str]) -> dict[str, str]:
    """Return field to column for what the file has; refuse it without what it must have."""
    wanted = reading.wanted
    present = {name: column for name, column in wanted.items() if column in found}
    needed = [
        name for name in reading.fields if name in reading.mapping or name in reading.required
    ]
    missing = [name for name in needed if name not in present]
    if missing:
        columns = ", ".join(wanted[name] for name in missing)
        remedy = " ".join(f"--map {name}=COLUMN" for name in missing)
        raise DataError(
            f"{path}: missing column {columns}; the file has {', '.join(found) or 'none'}; "
            f"if it goes by another name, say `{remedy}`"
        )
    return present


def _foreign(
    connection: duckdb.DuckDBPyConnection, path: Path, reading: Reading, copy: Path, format_: Format
) -> EventFile:
    """Copy the events of a copy of documents; return what is to be scanned."""
    if format_ == "ubi":
        query = ubi.events(copy, reading.mapping, reading.ordinals_from)
    else:
        query = metarank.events(copy, reading.mapping)
    target = copy.with_suffix(".events.parquet")
    requests.write(connection, query, target)
    return _file(path, target, _all_text(FIELDS), staged=True, format_=format_)


def _file(
    path: Path,
    parquet: Path,
    columns: tuple[tuple[str, str, str], ...],
    *,
    staged: bool,
    format_: Format = "native",
) -> EventFile:
    return EventFile(str(path), str(path.resolve()), parquet, columns, staged, format_)


def _parquet(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    reading: Reading,
    copy: Path,
    name: Path | str,
) -> EventFile:
    relation = f"read_parquet({source(path)})"
    described = connection.execute(f"DESCRIBE SELECT * FROM {relation}")
    types = {str(row[0]): str(row[1]) for row in described.fetchall()}
    format_ = reading.format_of(list(types))
    if format_ != "native":
        documents.copy_table(connection, relation, [(quoted(name), name) for name in types], copy)
        return _foreign(connection, path, reading, copy, format_)
    present = _present(name, reading, list(types))
    columns = tuple((name, column, types[column]) for name, column in present.items())
    return _file(path, path, columns, staged=False)


def _csv(
    connection: duckdb.DuckDBPyConnection, path: Path, reading: Reading, copy: Path
) -> EventFile:
    header, cut = csv_header(path)
    format_ = reading.format_of(header)
    # Columns get names of our own: those of the file may repeat or differ in case only.
    types = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(header)))
    relation = f"""read_csv({text_source(path)}, columns = {{{types}}}, header = true,
        delim = {literal(cut)}, quote = '"', escape = '"', store_rejects = true,
        rejects_limit = 0)"""
    if format_ == "native":
        present = _present(path, reading, header)
        taken = ", ".join(
            f"c{header.index(column)} AS {quoted(name)}" for name, column in present.items()
        )
        connection.execute(
            f"""COPY (SELECT {taken}, NULL::VARCHAR AS fault FROM {relation})
            TO {literal(copy)} (FORMAT parquet)"""
        )
        columns = tuple((name, name, "VARCHAR") for name in present)
        note_malformed(connection, path, cut, copy)
        return _file(path, copy, columns, staged=True)
    names = [(f"c{place}", name) for place, name in enumerate(header)]
    documents.copy_table(connection, relation, names, copy)
    file = _foreign(connection, path, reading, copy, format_)
    note_malformed(connection, path, cut, file.parquet)
    return file


def _json_lines(
    connection: duckdb.DuckDBPyConnection, path: Path, reading: Reading, copy: Path
) -> EventFile:
    relation = lines(path)
    found = documents.sample_names(connection, relation, "line")
    format_ = reading.format_of(found)
    if format_ != "native":
        documents.copy_lines(connection, path, copy)
        return _foreign(connection, path, reading, copy, format_)
    return _native_documents(connection, path, reading, copy, (relation, found))


def _json(
    connection: duckdb.DuckDBPyConnection, path: Path, reading: Reading, copy: Path
) -> EventFile:
    documents.copy_json(connection, path, copy)
    relation = f"read_parquet({source(copy)})"
    found = documents.sample_names(connection, relation, "document")
    format_ = reading.format_of(found)
    if format_ != "native":
        return _foreign(connection, path, reading, copy, format_)
    relation = f"(SELECT document AS line FROM {relation})"
    target = copy.with_suffix(".events.parquet")
    return _native_documents(connection, path, reading, target, (relation, found))


def _native_documents(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    reading: Reading,
    copy: Path,
    content: tuple[str, Sequence[str]],
) -> EventFile:
    relation, found = content
    _present(path, reading, found)
    # All fields are looked for, since a rare one may first come far down.
    pointers = ", ".join(literal(pointer(column)) for column in reading.wanted.values())
    taken = ", ".join(
        f"found[{place}] AS {quoted(name)}" for place, name in enumerate(reading.fields, start=1)
    )
    connection.execute(
        f"""COPY (SELECT {taken}, fault FROM (
            SELECT coalesce({LINE_FAULT}, CASE WHEN json_type(line) <> 'OBJECT'
                THEN 'not a JSON object' END) AS fault,
            CASE WHEN fault IS NULL THEN json_extract_string(line, [{pointers}]) END AS found
        FROM {relation}) WHERE fault IS DISTINCT FROM 'blank')
        TO {literal(copy)} (FORMAT parquet)"""
    )
    return _file(path, copy, _all_text(reading.fields), staged=True)
