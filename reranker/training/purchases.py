"""Purchases to learn from: what somebody bought, and what was known before.

Two forms of files are read, as Parquet, CSV or JSON lines:

- purchases: ``user_id``, ``history`` (product ids, oldest first) and ``target`` (one id), and where
  they are known ``query``, ``candidates`` and ``at`` (the moment of the purchase); besides, one a
  candidate, ``grades`` (where more than one was wanted) and ``scores`` (what a better ranker
  believes, to be distilled), and of the candidate named first ``propensity`` (how likely it was to
  be shown first; for the objective ``policy``);
- histories: ``user_id`` and ``product_ids``, oldest first. They are counted (what is popular, what
  is bought together) and never asked for.
"""

import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    AwareDatetime,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from reranker.errors import DataError
from reranker.schema import Identifier, Value, is_blank

_COLUMNS = {
    "purchases": ("user_id", "history", "target"),
    "histories": ("user_id", "product_ids"),
}


class Purchase(Value):
    """One purchase, and what had happened before it.

    Attributes:
        history: products bought before, oldest first.
        target: the product bought.
        query: what was searched for; None where nothing was. A blank one becomes None.
        candidates: what was on offer, the target among it; empty where that is not known.
        grades: how much each candidate was wanted; empty: the target alone.
        item_weights: of each candidate in the loss, where it was wanted; empty: all alike.
        scores: a teacher's, one a candidate; empty: none.
        weight: of the list in the loss.
        propensity: probability with which the first candidate was shown first, where a policy told.
        along: what was bought together with the target: no example of what was not bought.
        at: the moment of the purchase; None where it is not known.
    """

    user_id: Identifier
    history: tuple[Identifier, ...]
    target: Identifier
    query: str | None = None
    candidates: tuple[Identifier, ...] = ()
    grades: tuple[Annotated[FiniteFloat, Field(ge=0)], ...] = ()
    item_weights: tuple[Annotated[FiniteFloat, Field(gt=0)], ...] = ()
    scores: tuple[FiniteFloat, ...] = ()
    weight: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    propensity: Annotated[float, Field(gt=0, le=1)] | None = None
    along: tuple[Identifier, ...] = ()
    at: AwareDatetime | None = None

    @field_validator("query")
    @classmethod
    def _not_blank(cls, query: str | None) -> str | None:
        return None if query is None or is_blank(query) else query

    @model_validator(mode="after")
    def _one_a_candidate(self) -> Self:
        for name in ("grades", "item_weights", "scores"):
            given = getattr(self, name)
            if given and len(given) != len(self.candidates):
                raise ValueError(
                    f"{name}: there are {len(given)} for {len(self.candidates)} candidates"
                )
        return self


class Split(Value):
    """Purchases to train on and purchases of other shoppers to validate on."""

    train: tuple[Purchase, ...]
    validation: tuple[Purchase, ...]


def read_purchases(file: Path) -> tuple[Purchase, ...]:
    """Read a file of purchases.

    Raises:
        DataError: naming the file, and where one is wrong the row and the field.
    """
    return tuple(_rows(file, "purchases"))


def read_histories(file: Path) -> tuple[tuple[str, ...], ...]:
    """Read a file of histories; whose they are is not kept.

    Raises:
        DataError: the file cannot be read, or lacks a column.
    """
    found = _table(file, "histories").column("product_ids").to_pylist()
    return tuple(tuple(map(str, ids or ())) for ids in found)


def drawn_shoppers(purchases: Iterable[Purchase], count: int, *, seed: int) -> frozenset[str]:
    """Return so many shoppers to hold back, the first by a hash of their id.

    Raises:
        DataError: there are no more shoppers than that.
    """
    shoppers = {one.user_id for one in purchases}
    if len(shoppers) <= count:
        message = (
            f"the purchases are of {len(shoppers)} shoppers and {count} are to be held back: "
            "lower training.validation_shoppers"
        )
        raise DataError(message)
    return frozenset(sorted(shoppers, key=lambda user: _draw(user, seed))[:count])


def split_by_shopper(purchases: Sequence[Purchase], held: Collection[str], *, seed: int) -> Split:
    """Hold back the purchases of some shoppers.

    Purchases of a shopper who is held back are in neither part but the last of each, which is
    validated on: nobody is in both.

    Args:
        purchases: of all shoppers.
        held: ids of the shoppers to hold back; some may have no purchases here.
        seed: of the draw, in whose order they are validated on.
    """
    last = {one.user_id: one for one in purchases if one.user_id in held}
    return Split(
        train=tuple(one for one in purchases if one.user_id not in held),
        validation=tuple(last[user] for user in sorted(last, key=lambda user: _draw(user, seed))),
    )


def fingerprint(purchases: Iterable[Purchase]) -> str:
    """Return a SHA-256 that changes with any purchase, and not with their order."""
    total = 0
    for purchase in purchases:
        # Fields that later releases add must not change it.
        told = purchase.model_dump_json(exclude_defaults=True)
        digest = hashlib.sha256(told.encode()).digest()
        total = (total + int.from_bytes(digest, "big")) % (1 << 256)
    return f"{total:064x}"


def _draw(user_id: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}\n{user_id}".encode()).digest()


def _rows(file: Path, form: str) -> Iterator[Purchase]:
    table = _table(file, form)
    known = [name for name in Purchase.model_fields if name in table.column_names]
    for number, row in enumerate(table.select(known).to_pylist(), start=1):
        given = {name: _readable(value) for name, value in row.items() if value is not None}
        try:
            yield Purchase(**given)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(map(str, problem["loc"]))
            raise DataError(f"{file}, row {number}, {field}: {problem['msg']}") from None


def _readable(value: Any) -> Any:
    """Return lists written as JSON text (CSV has no others) as lists; take times as UTC."""
    if isinstance(value, str) and value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    if isinstance(value, datetime) and value.tzinfo is None:
        return value.replace(tzinfo=UTC)
    return value


def _table(file: Path, form: str) -> Any:
    import duckdb

    if not file.is_file():
        raise DataError(f"{file}: there is no such file of {form}")
    try:
        with duckdb.connect() as connection:
            path = str(file).replace("'", "''")
            table = connection.sql(f"SELECT * FROM '{path}'").to_arrow_table()
    except duckdb.Error as error:
        reason = str(error).split("\n", maxsplit=1)[0]
        raise DataError(
            f"{file}: it cannot be read ({reason}): give Parquet, CSV or JSON lines"
        ) from error
    missing = [name for name in _COLUMNS[form] if name not in table.column_names]
    if missing:
        has = ", ".join(table.column_names)
        raise DataError(f"{file}: {form} need the column {missing[0]}; the file has {has}")
    return table
