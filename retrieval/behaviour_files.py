"""Event files of all kinds, brought into the one form that the import reads: Parquet.

Text files are parsed once, by DuckDB, into a Parquet copy in a scratch folder: every later pass
then costs little, in any format, and rows keep their numbers.
"""

import csv
import gzip
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import duckdb

from reranker.errors import ConfigError, DataError
from reranker.schema import BehaviourEvent
from retrieval.files import delimiter, is_zipped, kind

FIELDS = tuple(BehaviourEvent.model_fields)
REQUIRED = ("user_id", "kind", "at")
MALFORMED_DDL = "CREATE TEMP TABLE malformed (filename VARCHAR, row BIGINT, reason VARCHAR)"
_UNIT_SEPARATOR = "\x1f"
_KEY_SAMPLE = 1000
_MAGIC = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class EventFile:
    """One file to import.

    Attributes:
        path: as given, for messages.
        parquet: what to scan: the file itself, or its copy in the scratch folder.
        columns: for each field that the file has, its column and the column's DuckDB type.
        staged: whether ``parquet`` is a copy; copies have a ``fault`` column.
    """

    path: Path
    parquet: Path
    columns: tuple[tuple[str, str, str], ...]
    staged: bool


def check_mapping(mapping: Mapping[str, str]) -> None:
    """Refuse a mapping of unknown fields.

    Raises:
        ConfigError: naming the field and those there are.
    """
    unknown = ", ".join(sorted(set(mapping) - set(FIELDS)))
    if unknown:
        raise ConfigError(f"--map: unknown field {unknown}; the fields are {', '.join(FIELDS)}")


def prepare(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    mapping: Mapping[str, str],
    scratch: Path,
) -> EventFile:
    """Return a file in the form that the import scans.

    Args:
        connection: has the table of `MALFORMED_DDL`, which takes records that cannot be parsed.
        path: one of those that `retrieval.files.expand` returned.
        mapping: field to column; a field that is not in it has the column of its own name.
        scratch: folder for the copies of text files.

    Raises:
        DataError: the file cannot be read at all, or lacks a column that every event needs.
    """
    wanted = {field: mapping.get(field, field) for field in FIELDS}
    try:
        if kind(path) == ".parquet":
            return _parquet(connection, path, wanted, mapping)
        copy = scratch / f"{len(list(scratch.iterdir()))}.parquet"
        stage = _stage_jsonl if kind(path) == ".jsonl" else _stage_csv
        present = stage(connection, path, wanted, mapping, copy)
    except (duckdb.OutOfMemoryException, duckdb.InterruptException):
        raise
    except (duckdb.Error, UnicodeDecodeError, EOFError, gzip.BadGzipFile) as error:
        raise unreadable(path, error) from error
    return EventFile(path, copy, tuple((field, field, "VARCHAR") for field in present), staged=True)


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a file whose content is not what its name says."""
    message = str(error)
    first = message.splitlines()[0] if message else type(error).__name__
    if isinstance(error, UnicodeDecodeError) or "unicode" in message:
        return DataError(f"{path}: not UTF-8 text ({first}); convert it to UTF-8")
    return DataError(f"{path}: corrupt or not of the kind its name says ({first}); write it anew")


def literal(text: str | Path) -> str:
    """Return a text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def source(path: Path) -> str:
    """Return a path as an SQL literal for DuckDB's readers, which take every path for a pattern."""
    return literal(_MAGIC.sub(r"[\g<0>]", str(path)))


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def _present(
    path: Path, wanted: Mapping[str, str], mapping: Mapping[str, str], found: Sequence[str]
) -> dict[str, str]:
    """Return field to column for what the file has; refuse it without what it must have."""
    present = {field: column for field, column in wanted.items() if column in found}
    needed = [field for field in FIELDS if field in mapping or field in REQUIRED]
    missing = [field for field in needed if field not in present]
    if missing:
        columns = ", ".join(wanted[field] for field in missing)
        remedy = " ".join(f"--map {field}=COLUMN" for field in missing)
        raise DataError(
            f"{path}: missing column {columns}; the file has {', '.join(found) or 'none'}; "
            f"if it goes by another name, say `{remedy}`"
        )
    return present


def _parquet(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    wanted: Mapping[str, str],
    mapping: Mapping[str, str],
) -> EventFile:
    described = connection.execute(f"DESCRIBE SELECT * FROM read_parquet({source(path)})")
    types = {str(row[0]): str(row[1]) for row in described.fetchall()}
    present = _present(path, wanted, mapping, list(types))
    columns = tuple((field, column, types[column]) for field, column in present.items())
    return EventFile(path, path, columns, staged=False)


def _stage_csv(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    wanted: Mapping[str, str],
    mapping: Mapping[str, str],
    copy: Path,
) -> Sequence[str]:
    header, cut = _csv_header(path)
    present = _present(path, wanted, mapping, header)
    # Columns get names of our own: those of the file may repeat or differ in case only.
    types = ", ".join(f"'c{index}': 'VARCHAR'" for index in range(len(header)))
    taken = ", ".join(f"c{header.index(column)} AS {field}" for field, column in _quoted(present))
    connection.execute(
        f"""COPY (SELECT {taken}, NULL::VARCHAR AS fault FROM read_csv({_text_source(path)},
        columns = {{{types}}}, header = true, delim = {literal(cut)},
        quote = '"', escape = '"', store_rejects = true, rejects_limit = 0))
        TO {literal(copy)} (FORMAT parquet)"""
    )
    broken = connection.execute(
        "SELECT min(line) - 1 FROM reject_errors WHERE error_type = 'INVALID ENCODING'"
    ).fetchall()[0][0]
    if broken is not None:
        raise DataError(f"{path}: row {broken} is not UTF-8 text; convert the file to UTF-8")
    # What DuckDB counts as lines are the header, the records and blank lines between them.
    faulty = connection.execute("SELECT EXISTS (FROM reject_errors)").fetchall()[0][0]
    connection.execute(
        """INSERT INTO malformed SELECT $copy,
        line - 1 - len(list_filter($blank::BIGINT[], lambda each: each < line)),
        min_by(error_message, column_idx) FROM reject_errors GROUP BY line""",
        {"copy": str(copy), "blank": _blank_lines(path, cut) if faulty else []},
    )
    connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
    return list(present)


def _csv_header(path: Path) -> tuple[list[str], str]:
    with _opened(path) as file:
        line = file.readline()
    cut = delimiter(path, line)
    header = next(csv.reader([line], delimiter=cut), [])
    if not any(name.strip() for name in header):
        raise DataError(f"{path}: the file has no header; its first row must name the columns")
    return [name.strip() for name in header], cut


def _blank_lines(path: Path, cut: str) -> list[int]:
    """Return the numbers of blank lines, where a record counts as one line and the header is 1."""
    blank = []
    with _opened(path) as file:
        reader = csv.reader(file, delimiter=cut)
        for line in itertools.count(1):
            try:
                if not next(reader):
                    blank.append(line)
            except StopIteration:
                break
            except csv.Error:  # a field too long for this reader: no blank line
                continue
    return blank


def _opened(path: Path) -> TextIO:
    if is_zipped(path):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _text_source(path: Path) -> str:
    """Return the first arguments of ``read_csv``, which would go by the suffix in lower case."""
    compression = "gzip" if is_zipped(path) else "none"
    return f"{source(path)}, compression = '{compression}', auto_detect = false"


def _stage_jsonl(
    connection: duckdb.DuckDBPyConnection,
    path: Path,
    wanted: Mapping[str, str],
    mapping: Mapping[str, str],
    copy: Path,
) -> Sequence[str]:
    # One column split by a character that JSON never holds as it is: a line comes whole.
    lines = f"""read_csv({_text_source(path)}, columns = {{'line': 'VARCHAR'}},
        header = false, delim = {literal(_UNIT_SEPARATOR)}, quote = '', escape = '')"""
    keys = connection.execute(
        f"""SELECT DISTINCT unnest(json_keys(line))
        FROM (SELECT line FROM {lines} LIMIT {_KEY_SAMPLE}) WHERE json_valid(line) ORDER BY 1"""
    )
    found = [str(row[0]) for row in keys.fetchall()]
    _present(path, wanted, mapping, found)
    # All fields are looked for, since a rare one may first come far down.
    present = wanted
    pointers = ", ".join(literal(f'$."{column}"') for column in present.values())
    taken = ", ".join(
        f"found[{place}] AS {field}" for place, (field, _) in enumerate(_quoted(present), start=1)
    )
    connection.execute(
        f"""COPY (SELECT {taken}, fault FROM (SELECT
            CASE WHEN coalesce(trim(line), '') = '' THEN 'blank'
                 WHEN NOT json_valid(line) THEN 'not JSON'
                 WHEN json_type(line) <> 'OBJECT' THEN 'not a JSON object' END AS fault,
            CASE WHEN fault IS NULL THEN json_extract_string(line, [{pointers}]) END AS found
        FROM {lines}) WHERE fault IS DISTINCT FROM 'blank') TO {literal(copy)} (FORMAT parquet)"""
    )
    return FIELDS


def _quoted(present: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(quoted(field), column) for field, column in present.items()]
