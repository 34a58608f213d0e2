"""Logged lists: what was shown where, with which propensity, and what became of it.

On disk one row is one `Impression` (JSONL, or Parquet with a nested ``items`` column). In memory
they are columns (`LoggedLists`): a row for each shown item, which is what estimators compute on.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from eval.estimates import Floats, Integers, codes
from reranker.errors import DataError
from reranker.schema import BehaviourEvent, EventKind, Identifier, Value

GRADES: Mapping[EventKind, int] = {
    EventKind.CLICK: 1,
    EventKind.FAVOURITE: 2,
    EventKind.CART: 2,
    EventKind.PURCHASE: 3,
}
"""What an event makes of a shown item; the highest counts. A view (of the page) is no click."""

Probability = Annotated[float, Field(gt=0, le=1)]


class ShownItem(Value):
    """A product in its place on a list that was shown.

    Attributes:
        position: 1-based.
        propensity: probability that the policy puts this product in this place for this request;
            None where the policy did not tell.
        prefix_propensity: probability of the whole list down to and with this place.
        grade: 0 shown, 1 clicked, 2 favourite or cart, 3 bought.
    """

    product_id: Identifier
    position: Annotated[int, Field(ge=1)]
    propensity: Probability | None = None
    prefix_propensity: Probability | None = None
    grade: Annotated[int, Field(ge=0)] = 0


class Impression(Value):
    """One list that was shown.

    Attributes:
        user_id: None for an anonymous shopper, who counts as a shopper of their own.
        policy: name of what ordered the list.
        items: by position; places may be missing, no place or product comes twice.
    """

    request_id: Identifier
    user_id: Identifier | None = None
    query: str | None = None
    at: AwareDatetime | None = None
    policy: str = ""
    items: Annotated[tuple[ShownItem, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        for name in ("position", "product_id"):
            values = [getattr(item, name) for item in self.items]
            if twice := [value for value in dict.fromkeys(values) if values.count(value) > 1]:
                message = f"items: {name} {twice[0]!r} comes twice in one list"
                raise ValueError(message)
        return self


@dataclass(frozen=True)
class LoggedLists:
    """Logged lists as columns. R requests, N shown items sorted by request, then position.

    Attributes:
        request_ids: R names.
        shoppers: R numbers; anonymous requests have a number each.
        queries: R numbers into ``query_names``.
        products: names of the products.
        request: N row numbers of requests.
        product: N numbers into ``products``.
        position: N, 1-based.
        propensity: N, of the item in its place; NaN where unknown.
        prefix_propensity: N, of the list down to the place; NaN where unknown.
        grade: N, see `ShownItem`.
    """

    request_ids: tuple[str, ...]
    shoppers: Integers
    queries: Integers
    query_names: tuple[str, ...]
    products: tuple[str, ...]
    request: Integers
    product: Integers
    position: Integers
    propensity: Floats
    prefix_propensity: Floats
    grade: Integers

    def __post_init__(self) -> None:
        rows = {len(getattr(self, name)) for name in _ROW_COLUMNS}
        if len(rows) != 1 or {len(self.shoppers), len(self.queries)} != {len(self.request_ids)}:
            raise DataError("logged lists: the columns differ in length")
        key = self.request * (int(self.position.max(initial=0)) + 1) + self.position
        if len(key) == 0 or (np.diff(key) <= 0).any():
            raise DataError("logged lists: rows have to be sorted by request, then position")
        if len(np.unique(self.request)) != len(self.request_ids):
            raise DataError("logged lists: every request has to show at least one item")
        for field in fields(self):
            column = getattr(self, field.name)
            if isinstance(column, np.ndarray):
                column.setflags(write=False)

    def __len__(self) -> int:
        return len(self.request_ids)

    @cached_property
    def last_rows(self) -> Integers:
        """The row of each request's last item."""
        return np.flatnonzero(np.diff(self.request, append=len(self))).astype(np.int64)

    @cached_property
    def list_propensity(self) -> Floats:
        """Probability of each whole list; NaN where unknown."""
        return self.prefix_propensity[self.last_rows]

    @cached_property
    def list_length(self) -> Integers:
        """Number of items that each request showed."""
        return np.bincount(self.request, minlength=len(self)).astype(np.int64)

    def reached(self, grade: int = 1) -> Floats:
        """Return 1.0 for each row whose grade is at least this one, else 0.0."""
        return (self.grade >= grade).astype(np.float64)

    def select(self, requests: Integers) -> "LoggedLists":
        """Return only these requests (sorted, unique row numbers)."""
        kept = np.full(len(self), -1, np.int64)
        kept[requests] = np.arange(len(requests))
        rows = kept[self.request] >= 0
        columns = {name: getattr(self, name)[rows] for name in _ROW_COLUMNS if name != "request"}
        return LoggedLists(
            request_ids=tuple(self.request_ids[i] for i in requests),
            shoppers=self.shoppers[requests],
            queries=self.queries[requests],
            query_names=self.query_names,
            products=self.products,
            request=kept[self.request][rows],
            **columns,
        )

    @classmethod
    def from_impressions(cls, impressions: Iterable[Impression]) -> Self:
        """Gather impressions into columns.

        Raises:
            DataError: there is none, or a request_id comes twice.
        """
        gathered = list(impressions)
        if not gathered:
            raise DataError("the log holds no impressions")
        names = [impression.request_id for impression in gathered]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DataError(f"request_id {twice!r} comes twice in the log: one list a request")
        return cls(**_columns(gathered))


_ROW_COLUMNS = ("request", "product", "position", "propensity", "prefix_propensity", "grade")


def _columns(gathered: Sequence[Impression]) -> dict[str, Any]:
    items = [sorted(impression.items, key=lambda item: item.position) for impression in gathered]
    flat = [item for shown in items for item in shown]
    products = [item.product_id for item in flat]
    queries = [impression.query or "" for impression in gathered]
    users = [i.user_id or ("anonymous", row) for row, i in enumerate(gathered)]
    return {
        "request_ids": tuple(impression.request_id for impression in gathered),
        "shoppers": codes(users),
        "queries": codes(queries),
        "query_names": tuple(dict.fromkeys(queries)),
        "products": tuple(dict.fromkeys(products)),
        "request": np.repeat(np.arange(len(items)), [len(shown) for shown in items]),
        "product": codes(products),
        "position": np.array([item.position for item in flat], np.int64),
        "propensity": _known([item.propensity for item in flat]),
        "prefix_propensity": _known([item.prefix_propensity for item in flat]),
        "grade": np.array([item.grade for item in flat], np.int64),
    }


def _known(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


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
