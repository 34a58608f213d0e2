"""Import of the shop's products: every row becomes a `Product` or a `RejectedProduct`.

An import reads all files, merges them into the catalogue and replaces the file of the catalogue in
one step; killed on the way, it leaves everything as it was.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

import numpy as np
from filelock import FileLock, Timeout

from reranker.errors import DataError
from reranker.schema import Product, Value
from retrieval.catalogue_fields import ColumnPlan, RefusedError
from retrieval.catalogue_files import Record, count_rows, header, records
from retrieval.files import expand, replacing
from retrieval.imports import REJECTED_IN_MEMORY, RejectedRow, Writable
from retrieval.product_table import ProductTable

Progress = Callable[[int, int | None], None]
"""Called with the number of rows read, and how many there are in all (None: not known)."""

REJECTED_FILE = "rejected.jsonl"
_REPORT_EVERY = 5000


class RejectedProduct(RejectedRow):
    """One row that did not become a product.

    Attributes:
        field: of `Product`, or ``row`` where the row could not be read.
        product_id: None where the row gives none that can be read.
    """

    product_id: str | None = None


class ImportReport(Value):
    """What an import did.

    Attributes:
        files: in the order in which they were read.
        rows: read in all; each is added, changed, unchanged or rejected.
        deleted: products that were in the catalogue and not in the files, with ``replace``.
        rejected: the first refused rows, in the order of the files; all of them are in
            ``rejected.jsonl`` by the catalogue.
        rejected_count: number of all refused rows.
        ignored_columns: columns that no field and no attribute takes.
    """

    files: tuple[Writable, ...]
    rows: int
    added: int
    changed: int
    unchanged: int
    deleted: int
    rejected: tuple[RejectedProduct, ...]
    rejected_count: int
    ignored_columns: tuple[Writable, ...]


def import_catalogue(
    paths: Iterable[Path | str],
    target: Path,
    *,
    mapping: Mapping[str, str] | None = None,
    attribute_columns: Sequence[str] = (),
    replace: bool = False,
    max_rejected: float = 1.0,
    progress: Progress | None = None,
) -> ImportReport:
    """Merge product files into a catalogue.

    Args:
        paths: files, folders or glob patterns; CSV, TSV, JSONL (or these as .gz) and Parquet.
        target: the catalogue, ``<store>/catalogue/products.arrow``; made where it is missing.
        mapping: fields of `Product` to columns; other fields take the column of their own name.
        attribute_columns: columns that become attributes, besides an ``attributes`` column that
            holds a JSON object.
        replace: products that no row names leave the catalogue. One whose row was rejected stays
            as it was.
        max_rejected: share of rows, 0 to 1, above which nothing is imported.
        progress: called every few thousand rows.

    Raises:
        ConfigError: the mapping names an unknown field.
        DataError: a file cannot be used, more than the allowed share or all of the rows are
            rejected, with ``replace`` a rejected row does not tell its product, or another import
            is running. The catalogue is as before, and the rejected rows are in
            ``rejected.jsonl``.
    """
    plan = ColumnPlan.of(mapping or {}, attribute_columns)
    files = expand(paths)
    ignored = _check_headers(files, plan)
    with _alone(target):
        table = ProductTable.open(target) if target.exists() else ProductTable.empty()
        with (
            replacing(target.parent / REJECTED_FILE) as temporary,
            temporary.open("w", encoding="utf-8") as sink,
        ):
            reading = _Reading(files, plan, progress, ignored, sink)
            merged, added, changed, unchanged = table.upsert(reading.products())
        reading.check(max_rejected)
        deleted = 0
        if replace:
            merged, deleted = _keep_only(merged, reading.named())
        if merged is not table or not target.exists():
            merged.save(target)
    return ImportReport(
        files=tuple(map(str, files)),
        rows=reading.rows,
        added=added,
        changed=changed,
        unchanged=unchanged,
        deleted=deleted,
        rejected=tuple(reading.rejected),
        rejected_count=reading.rejected_count,
        ignored_columns=tuple(reading.ignored),
    )


@dataclass
class _Reading:
    """The rows of all files as products, and the account of them."""

    files: Sequence[Path]
    plan: ColumnPlan
    progress: Progress | None
    ignored: dict[str, None]
    sink: TextIO
    rows: int = 0
    rejected: list[RejectedProduct] = field(default_factory=list)
    rejected_count: int = 0
    rejected_ids: set[str] = field(default_factory=set)
    nameless: RejectedProduct | None = None
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)

    def products(self) -> Iterator[Product]:
        total = count_rows(self.files)
        known = self.plan.used | self.ignored.keys()
        for place, path in enumerate(self.files):
            for record in records(path, self.plan.used):
                if not record.values.keys() <= known:
                    self.ignored.update(
                        dict.fromkeys(name for name in record.values if name not in known)
                    )
                    known = known | record.values.keys()
                self.rows += 1
                if self.progress is not None and self.rows % _REPORT_EVERY == 0:
                    self.progress(self.rows, total)
                product = self._accept(place, record)
                if product is not None:
                    yield product
        if self.progress is not None:
            self.progress(self.rows, self.rows)

    def check(self, max_rejected: float) -> None:
        if not self.rows:
            raise DataError(f"{self.files[0]}: no rows; nothing was changed")
        share = self.rejected_count / self.rows
        if share == 1 or share > max_rejected:
            first = self.rejected[0]
            raise DataError(
                f"{self.rejected_count} of {self.rows} rows were rejected, so nothing was "
                f"imported; the first: {first.file} row {first.row}, {first.field}: "
                f"{first.reason}; all are in {REJECTED_FILE} by the catalogue"
            )

    def named(self) -> set[str]:
        """Return the ids of all products that the files name, in rows accepted or rejected.

        Raises:
            DataError: a rejected row does not tell which product it is about.
        """
        if self.nameless is not None:
            row = self.nameless
            raise DataError(
                f"{row.file} row {row.row}, {row.field}: {row.reason}; the rejected row does not "
                "tell its product_id, so what to delete is not known and nothing was changed; "
                "correct the row or remove it (an import without --replace leaves it out)"
            )
        return self.rejected_ids | self.seen.keys()

    def _accept(self, place: int, record: Record) -> Product | None:
        try:
            if record.fault is not None:
                raise RefusedError("row", record.fault)
            product = self.plan.product(record.values)
            first = self.seen.setdefault(product.product_id, (place, record.row))
            if first != (place, record.row):
                where = f"{self.files[first[0]]} row {first[1]}"
                raise RefusedError("product_id", f"comes twice; the first is {where}")
        except RefusedError as refused:
            self._reject(
                RejectedProduct(
                    file=str(self.files[place]),
                    row=record.row,
                    field=refused.field,
                    reason=refused.reason,
                    product_id=self.plan.product_id(record.values),
                )
            )
            return None
        return product

    def _reject(self, row: RejectedProduct) -> None:
        self.sink.write(f"{row.model_dump_json()}\n")
        self.rejected_count += 1
        if self.rejected_count <= REJECTED_IN_MEMORY:
            self.rejected.append(row)
        refused_itself = row.field == "product_id" and row.product_id not in self.seen
        if row.product_id is not None and not refused_itself:
            self.rejected_ids.add(row.product_id)
        elif self.nameless is None:
            self.nameless = row


def _check_headers(files: Sequence[Path], plan: ColumnPlan) -> dict[str, None]:
    """Look at the headers of all files before anything is read; return the unused columns."""
    ignored: dict[str, None] = {}
    for path in files:
        names = header(path)
        if names is not None:
            plan.check(path, names)
            ignored.update(dict.fromkeys(name for name in names if name not in plan.used))
    return ignored


def _keep_only(table: ProductTable, product_ids: Iterable[str]) -> tuple[ProductTable, int]:
    absent = np.ones(len(table), np.bool_)
    absent[table.rows_of_ids(list(product_ids))] = False
    return table.delete(table.product_ids(np.flatnonzero(absent)))


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Keep other imports out, and sweep up after one that was killed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(target.with_name(f"{target.name}.lock"), timeout=0):
            for name in (target.name, REJECTED_FILE):
                for leftover in target.parent.glob(f"{name}.*.tmp"):
                    leftover.unlink()
            yield
    except Timeout:
        raise DataError(f"{target}: another import is running; wait until it is done") from None
