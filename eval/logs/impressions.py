"""Files of impressions (`reranker.schema.Impression`), and what events say became of them.

On disk one row is one `Impression` (JSONL, or Parquet with a nested ``items`` column).
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reranker.errors import DataError
from reranker.schema import GRADES, BehaviourEvent, Impression, Value


class Joined(Value):
    """Impressions with the grades that events gave them.

    Attributes:
        matched: events that belong to a shown item.
        unmatched: events of these kinds that belong to none (no such request or product).
    """

    impressions: tuple[Impression, ...]
    matched: int
    unmatched: int


def join_outcomes(impressions: Iterable[Impression], events: Iterable[BehaviourEvent]) -> Joined:
    """Give shown items the grade of what was done with them, by request_id and product_id."""
    best: dict[tuple[str, str], int] = {}
    counts: dict[tuple[str, str], int] = {}
    relevant = 0
    for event in events:
        if event.kind not in GRADES:
            continue
        relevant += 1
        key = (event.request_id or "", event.product_id or "")
        best[key] = max(best.get(key, 0), GRADES[event.kind])
        counts[key] = counts.get(key, 0) + 1
    joined, matched = [], 0
    for impression in impressions:
        keys = [(impression.request_id, item.product_id) for item in impression.items]
        matched += sum(counts.get(key, 0) for key in keys)
        graded = tuple(
            item.model_copy(update={"grade": max(item.grade, best.get(key, 0))})
            for item, key in zip(impression.items, keys, strict=True)
        )
        joined.append(impression.model_copy(update={"items": graded}))
    return Joined(impressions=tuple(joined), matched=matched, unmatched=relevant - matched)


def read_impressions(file: Path) -> Iterator[Impression]:
    """Read impressions from a Parquet or JSONL file, one list a row.

    Raises:
        DataError: the file cannot be read, or a row is wrong; the message names the row and field.
    """
    rows = _parquet_rows(file) if file.suffix == ".parquet" else _json_rows(file)
    for place, row in rows:
        try:
            yield Impression.model_validate(row)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(str(part) for part in first["loc"]) or "the row"
            message = f"{file.name}, {place}: {field}: {first['msg']} (got {first['input']!r:.80})"
            raise DataError(message) from error


def write_impressions(file: Path, impressions: Iterable[Impression]) -> None:
    """Write impressions in the form that `read_impressions` reads, by the file's suffix."""
    if file.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist([row.model_dump() for row in impressions]), file)
        return
    with file.open("w", encoding="utf-8") as target:
        target.writelines(row.model_dump_json() + "\n" for row in impressions)


def _json_rows(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        with file.open(encoding="utf-8") as source:
            for number, line in enumerate(source, 1):
                if line.strip():
                    yield f"line {number}", json.loads(line)
    except (OSError, ValueError) as error:
        message = f"{file.name}: not readable as JSONL, one impression a line: {error}"
        raise DataError(message) from error


def _parquet_rows(file: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        number = 0
        with pq.ParquetFile(file) as table:
            for batch in table.iter_batches():
                for row in batch.to_pylist():
                    number += 1
                    yield f"row {number}", row
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file.name}: not readable as Parquet: {error}") from error
