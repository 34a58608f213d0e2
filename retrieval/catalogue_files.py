"""Reads the rows of catalogue files: CSV, TSV and JSONL (also as .gz), and Parquet.

A row that cannot be read becomes a record with a fault, and reading goes on with the next one; only
a file that cannot be read at all is an error.
"""

import csv
import gzip
import json
import zlib
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from reranker.errors import DataError
from retrieval.files import delimiter, is_zipped, kind

_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_PARQUET_BATCH = 4096


class Record(NamedTuple):
    """One row as it stands in a file.

    Attributes:
        row: 1-based number of the record; a header and blank lines do not count.
        values: by column; of a row with a fault what could be read of it.
        fault: why the row cannot be used; None where it can be.
    """

    row: int
    values: Mapping[str, Any]
    fault: str | None = None


def header(path: Path) -> tuple[str, ...] | None:
    """Return the names of a file's columns; None for JSONL, where each row has its own.

    Raises:
        DataError: the file has no header or cannot be read.
    """
    if kind(path) == ".parquet":
        with _readable(path), pq.ParquetFile(path) as file:
            return tuple(file.schema_arrow.names)
    with _opened(path) as stream:
        lines = _Lines(stream)
        if kind(path) == ".jsonl":
            next(lines, None)
            return None
        first = next(csv.reader(lines, delimiter=delimiter(path, lines.peek())), None)
    if not first:
        raise DataError(f"{path}: the first line must name the columns; it is blank")
    if lines.taken[0].fault:
        raise DataError(f"{path}: the header: {lines.taken[0].fault}")
    return tuple(name.strip() for name in first)


def count_rows(paths: Sequence[Path]) -> int | None:
    """Return the number of rows of all files if that is known without reading them."""
    if any(kind(path) != ".parquet" for path in paths):
        return None
    return sum(int(pq.read_metadata(path).num_rows) for path in paths)


def records(path: Path, columns: Collection[str]) -> Iterator[Record]:
    """Yield the rows of a file, with (at least) the values of some of its columns.

    Raises:
        DataError: the file is damaged.
    """
    if kind(path) == ".parquet":
        yield from _parquet_records(path, columns)
        return
    with _opened(path) as stream:
        lines = _Lines(stream)
        if kind(path) == ".jsonl":
            yield from _jsonl_records(lines)
        else:
            yield from _csv_records(lines, delimiter(path, lines.peek()), columns)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        message = f"{path}: the file is damaged or not what its suffix says ({error}); export again"
        raise DataError(message) from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    with _readable(path), gzip.open(path) if is_zipped(path) else path.open("rb") as stream:
        yield cast("BinaryIO", stream)


class _Line(NamedTuple):
    text: str
    fault: str | None


class _Lines:
    """Decodes a file line by line, so that broken bytes spoil one line, and takes lines back."""

    def __init__(self, stream: BinaryIO) -> None:
        self.taken: list[_Line] = []
        self._stream = stream
        self._returned: deque[_Line] = deque()
        self._position = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else self._decode(next(self._stream))
        self.taken.append(line)
        return line.text

    def peek(self) -> str:
        """Return the text of the next line without taking it; empty at the end."""
        text = next(self, "")
        if self.taken:
            self._returned.appendleft(self.taken.pop())
        return text

    def give_back_all_but_first(self) -> None:
        """Let the lines that were taken come again, without the first."""
        self._returned.extendleft(reversed(self.taken[1:]))
        del self.taken[1:]

    def _decode(self, raw: bytes) -> _Line:
        start = self._position
        self._position += len(raw)
        if start == 0 and raw.startswith(_UTF16_MARKS):
            raise OSError("it is UTF-16; save it as UTF-8")
        try:
            text = raw.decode()
        except UnicodeDecodeError as error:
            at = start + error.start
            fault = f"byte 0x{raw[error.start]:02x} at position {at} of the file is not UTF-8"
            return _Line(raw.decode(errors="replace"), f"{fault}; save it as UTF-8")
        return _Line(text.removeprefix("\ufeff") if start == 0 else text, None)


def _jsonl_records(lines: _Lines) -> Iterator[Record]:
    number = 0
    for text in lines:
        line = lines.taken.pop()
        if text.strip():
            number += 1
            values, fault = _json_object(text)
            yield Record(number, values, line.fault or fault)


def _json_object(text: str) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return {}, f"not JSON: {error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON: {error}"
    if not isinstance(value, dict):
        return {}, f"not a JSON object but {type(value).__name__}"
    return value, None


def _csv_records(lines: _Lines, cut: str, columns: Collection[str]) -> Iterator[Record]:
    reader = csv.reader(lines, delimiter=cut, strict=True)
    names = [name.strip() for name in next(reader, [])]
    wanted = [(place, name) for place, name in enumerate(names) if name in columns]
    number = 0
    while True:
        lines.taken.clear()
        try:
            fields = next(reader)
            fault = _wrong_width(len(fields), len(names))
        except StopIteration:
            return
        except csv.Error as error:
            fields, fault = [], f"not CSV: {error}; is a quotation mark left open?"
        trusted = len(fields)
        if fault is not None:
            # Which field is one too many is not known: only the first is surely in its place.
            trusted = int(bool(fields) and len(lines.taken) == 1)
            # An open quotation mark swallows the lines behind it: let them have their own turn.
            lines.give_back_all_but_first()
        if fields or fault is not None:
            number += 1
            broken = next((line.fault for line in lines.taken if line.fault), None)
            values = {name: fields[place] for place, name in wanted if place < trusted}
            yield Record(number, values, broken or fault)


def _wrong_width(found: int, expected: int) -> str | None:
    if found in (0, expected):  # no fields at all: a blank line, which means nothing
        return None
    return f"{found} fields where the header has {expected}"


def _parquet_records(path: Path, columns: Collection[str]) -> Iterator[Record]:
    with _readable(path), pq.ParquetFile(path) as file:
        wanted = [name for name in file.schema_arrow.names if name in columns]
        number = 1
        for batch in file.iter_batches(_PARQUET_BATCH, columns=wanted):
            for offset, record in enumerate(_parquet_batch(batch)):
                yield record._replace(row=number + offset)
            number += batch.num_rows


def _parquet_batch(batch: Any) -> list[Record]:
    try:
        return [Record(1, values) for values in batch.to_pylist()]
    except UnicodeDecodeError:
        return [_parquet_row(batch, place) for place in range(batch.num_rows)]


def _parquet_row(batch: Any, place: int) -> Record:
    values: dict[str, Any] = {}
    fault = None
    for name in batch.schema.names:
        try:
            values[name] = batch[name][place].as_py()
        except UnicodeDecodeError as error:
            byte = f"byte 0x{error.object[error.start]:02x} at position {error.start}"
            fault = f"{byte} of column {name!r} is not UTF-8"
    return Record(1, values, fault)
