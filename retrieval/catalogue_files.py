"""Reads the rows of catalogue files: CSV, TSV and JSONL (also as .gz), and Parquet.

A row that cannot be read becomes a record with a fault, and reading goes on with the next one; only
a file that cannot be read at all is an error.
"""

import csv
import glob
import gzip
import json
import zlib
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from reranker.errors import DataError

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_SUFFIXES = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet")
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_PARQUET_BATCH = 4096


class Record(NamedTuple):
    """One row as it stands in a file.

    Attributes:
        row: 1-based. For CSV, TSV and JSONL the number of the row's first line as an editor shows
            it (the header of a CSV is line 1); for Parquet the number of the row.
        values: by column; of a row with a fault what could be read of it.
        fault: why the row cannot be used; None where it can be.
    """

    row: int
    values: Mapping[str, Any]
    fault: str | None = None


def expand(paths: Iterable[Path | str]) -> tuple[Path, ...]:
    """Return the files meant by files, folders (searched in depth) and glob patterns, each once.

    Raises:
        DataError: one does not exist, holds no catalogue file, or has an unknown suffix.
    """
    found: dict[Path, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_expand_one(Path(path))))
    if not found:
        raise DataError("no catalogue files were given: name files, folders or glob patterns")
    return tuple(found)


def header(path: Path) -> tuple[str, ...] | None:
    """Return the names of a file's columns; None for JSONL, where each row has its own.

    Raises:
        DataError: the file is empty or cannot be read.
    """
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; leave it out or export it again")
    kind = _kind(path)
    if kind == ".parquet":
        with _readable(path), pq.ParquetFile(path) as file:
            return tuple(file.schema_arrow.names)
    with _opened(path) as stream:
        lines = _Lines(stream)
        if kind == ".jsonl":
            next(lines, None)
            return None
        first = next(csv.reader(lines, delimiter=_DELIMITERS[kind]), None)
    if not first:
        raise DataError(f"{path}: the first line must name the columns; it is blank")
    if lines.taken[0].fault:
        raise DataError(f"{path}: the header: {lines.taken[0].fault}")
    return tuple(name.strip() for name in first)


def count_rows(paths: Sequence[Path]) -> int | None:
    """Return the number of rows of all files if that is known without reading them."""
    if any(_kind(path) != ".parquet" for path in paths):
        return None
    return sum(int(pq.read_metadata(path).num_rows) for path in paths)


def records(path: Path, columns: Collection[str]) -> Iterator[Record]:
    """Yield the rows of a file, with (at least) the values of some of its columns.

    Raises:
        DataError: the file is damaged.
    """
    kind = _kind(path)
    if kind == ".parquet":
        yield from _parquet_records(path, columns)
        return
    with _opened(path) as stream:
        if kind == ".jsonl":
            yield from _jsonl_records(stream)
        else:
            yield from _csv_records(stream, _DELIMITERS[kind], columns)


def _expand_one(path: Path) -> Iterable[Path]:
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if _kind(file) and file.is_file())
        if not inside:
            raise DataError(f"{path}: the folder holds no file with {', '.join(_SUFFIXES)}")
        return inside
    if path.exists():
        matches = [path]
    else:
        matches = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207 - patterns may be absolute
        matches = [match for match in matches if match.is_file()]
    if not matches:
        raise DataError(f"{path}: there is no such file; check the path or the pattern")
    for match in matches:
        if not _kind(match):
            raise DataError(f"{match}: unknown kind of file; use one of {', '.join(_SUFFIXES)}")
    return matches


def _kind(path: Path) -> str:
    """Return the suffix that tells how a file is read, without .gz; empty if it is unknown."""
    name = path.name.lower()
    suffix = next((each for each in _SUFFIXES if name.endswith(each)), "")
    return suffix.removesuffix(".gz")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException) as error:
        message = f"{path}: the file is damaged or not what its suffix says ({error}); export again"
        raise DataError(message) from error


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    zipped = path.name.lower().endswith(".gz")
    with _readable(path), gzip.open(path) if zipped else path.open("rb") as stream:
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


def _jsonl_records(stream: BinaryIO) -> Iterator[Record]:
    lines = _Lines(stream)
    for number, text in enumerate(lines, start=1):
        line = lines.taken.pop()
        if not text.strip():
            continue
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


def _csv_records(stream: BinaryIO, delimiter: str, columns: Collection[str]) -> Iterator[Record]:
    lines = _Lines(stream)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names = [name.strip() for name in next(reader, [])]
    wanted = [(place, name) for place, name in enumerate(names) if name in columns]
    number = 1 + len(lines.taken)
    while True:
        lines.taken.clear()
        try:
            fields = next(reader)
            fault = _wrong_width(len(fields), len(names))
        except StopIteration:
            return
        except csv.Error as error:
            fields, fault = [], f"not CSV: {error}; is a quotation mark left open?"
        if fault is not None:
            # An open quotation mark swallows the lines behind it: let them have their own turn.
            lines.give_back_all_but_first()
        if fields or fault is not None:
            broken = next((line.fault for line in lines.taken if line.fault), None)
            values = {name: fields[place] for place, name in wanted if place < len(fields)}
            yield Record(number, values, broken or fault)
        number += len(lines.taken)


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
