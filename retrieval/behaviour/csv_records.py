"""What DuckDB does not tell of a CSV file: its header, and which records it could not parse."""

import csv
import gzip
import itertools
from pathlib import Path
from typing import TextIO

import duckdb

from reranker.errors import DataError
from retrieval.files import delimiter, is_zipped

MALFORMED_DDL = """CREATE TEMP TABLE malformed
    (filename VARCHAR, row BIGINT, reason VARCHAR)"""


def note_malformed(connection: duckdb.DuckDBPyConnection, path: Path, cut: str, copy: Path) -> None:
    """Keep the records that DuckDB could not parse, under the name of what will be scanned.

    Args:
        connection: has the table of `MALFORMED_DDL`, and what ``read_csv`` has rejected.
        path: of the file.
        cut: what parts its columns.
        copy: what will be scanned.

    Raises:
        DataError: the file is not UTF-8.
    """
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
        min_by(error_message, column_idx)
        FROM reject_errors GROUP BY line""",
        {"copy": str(copy), "blank": _blank_lines(path, cut) if faulty else []},
    )
    connection.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")


def csv_header(path: Path) -> tuple[list[str], str]:
    """Return the names of the columns, and what parts them.

    Raises:
        DataError: there are none.
    """
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
