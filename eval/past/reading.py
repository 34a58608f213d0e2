"""Read what shoppers chose before: histories, training purchases, or an event table.

Two forms, told apart by their columns (Parquet, JSONL, JSONL.gz; the long form also as CSV):

- wide, a row for each shopper or purchase: ``product_ids`` or ``history`` (oldest first), and where
  there are any ``user_id``, ``times`` or ``history_at`` (one for each), and what was chosen last in
  ``target`` or ``targets`` with its time ``at``;
- long, a row for each event: ``product_id``, and where there are any ``user_id``, ``at``, ``kind``
  (rows of another kind than purchase are passed over where a purchase is among them).
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from eval.cases.fields import RowReader
from eval.past.guard import to_microseconds
from eval.past.purchases import UNTIMED, Purchases, ShopperSequence
from reranker.errors import DataError
from retrieval.catalogue_files import header, records
from retrieval.files import expand

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet", ".csv", ".csv.gz")
_WIDE = ("product_ids", "history")
_COLUMNS = frozenset(
    {*_WIDE, "user_id", "times", "history_at", "target", "targets", "at", "product_id", "kind"}
)
_REPORT_EVERY = 5000


def read_purchases(path: Path, *, progress: Callable[[int], None] | None = None) -> Purchases:
    """Read a file of either form.

    Raises:
        DataError: the file cannot be read, has neither form, or a row is wrong; the message names
            the row and the field.
    """
    (path,) = expand([path], SUFFIXES)
    names = header(path)
    if names is not None and not {*_WIDE, "product_id"} & set(names):
        raise DataError(
            f"{path}: no column product_ids, history or product_id; the columns are "
            f"{', '.join(names)}"
        )
    rows = _rows(path, progress)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path}: no rows")
    wide = any(name in first for name in _WIDE)
    every = _chain(first, rows)
    return Purchases.of(_wide(path, every) if wide else _long(path, every))


def _rows(path: Path, progress: Callable[[int], None] | None) -> Iterator[Mapping[str, Any]]:
    try:
        for record in records(path, _COLUMNS):
            if record.fault is not None:
                raise DataError(f"{path}, row {record.row}: {record.fault}")
            if progress is not None and record.row % _REPORT_EVERY == 0:
                progress(record.row)
            yield record.values
    except (ValueError, OverflowError) as error:  # a column of values that Python cannot hold
        raise DataError(f"{path}: holds a value that cannot be read: {error}") from error


def _chain(
    first: Mapping[str, Any], rest: Iterator[Mapping[str, Any]]
) -> Iterator[tuple[int, Mapping[str, Any]]]:
    yield 1, first
    yield from enumerate(rest, 2)


def _wide(path: Path, rows: Iterator[tuple[int, Mapping[str, Any]]]) -> Iterator[ShopperSequence]:
    for number, values in rows:
        given = {**values}
        given.setdefault("history", values.get("product_ids"))
        given.setdefault("history_at", values.get("times"))
        row = RowReader(given)
        products = row.history()
        times = row.history_at(products)
        user = row.user_id()
        targets = [target.product_id for target in row.targets() if target.grade]
        at = row.at() if targets else None
        _check(path, number, row)
        at_us = [to_microseconds(moment) for moment in times or ()] or [UNTIMED] * len(products)
        last = UNTIMED if at is None else to_microseconds(at)
        yield ShopperSequence(user, (*products, *targets), (*at_us, *[last] * len(targets)))


def _long(path: Path, rows: Iterator[tuple[int, Mapping[str, Any]]]) -> Iterator[ShopperSequence]:
    found: dict[tuple[str | None, int], list[tuple[int, str, bool]]] = {}
    some_purchase = False
    for number, values in rows:
        event = str(values.get("kind") or "purchase")
        if event in ("search", "impression"):
            continue
        if values.get("product_id") in (None, ""):
            raise DataError(f"{path}, row {number}, product_id: missing; name what was chosen")
        row = RowReader({**values, "history": [values["product_id"]]})
        user, products, at = row.user_id(), row.history(), row.at()
        _check(path, number, row)
        bought = event == "purchase"
        some_purchase |= bought
        at_us = UNTIMED if at is None else to_microseconds(at)
        # Rows of nobody are each of a shopper of their own.
        found.setdefault((user, 0 if user is not None else number), []).append(
            (at_us, products[0], bought)
        )
    for (user, _), events in found.items():
        events.sort(key=lambda event: event[0])
        kept = [event for event in events if event[2] or not some_purchase]
        if kept:
            yield ShopperSequence(user, tuple(e[1] for e in kept), tuple(e[0] for e in kept))


def _check(path: Path, number: int, row: RowReader) -> None:
    """Refuse a row with a fault; that it lacks a target or a zone is none here."""
    faults = [f for f in row.findings if f.kind not in ("targets-none", "at-no-zone")]
    if faults:
        raise DataError(f"{path}, row {number}, {faults[0].field}: {faults[0].what}")
