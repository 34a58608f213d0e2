"""The catalogue as an immutable, columnar snapshot in one memory-mapped Arrow file.

Rows are ordered by `key`, a number that a product keeps for life and that is never given out
again: vector and word indexes refer to it, and a later snapshot can be compared with theirs. A
catalogue that begins anew counts its keys from 0 again and has another ``identity``. Hashes
are 64-bit BLAKE2b: among ten million products two texts share one with a probability of about
3 in a million, which is accepted for `row_hashes` and `text_hashes` (a change could be overlooked)
but not for product ids, which are always compared in full.
"""

from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from reranker.errors import DataError
from reranker.schema import Filters, Product
from retrieval.arrow_file import checksum, write
from retrieval.files import replacing
from retrieval.product_columns import (
    ENCODED_SCHEMA,
    FIELDS,
    PLAIN_SCHEMA,
    BoolArray,
    FilterColumns,
    HashArray,
    IdColumn,
    IntArray,
    attributes_of,
    decode,
    encode,
    listed,
    mask_of,
    read,
    refuse_twice,
    restored,
    text_of,
)
from retrieval.product_lookup import ProductLookup

Rows = Sequence[int] | IntArray
_CACHED_MASKS = 8
_FORMAT = {b"format": b"shelfwise-products/1"}
_REMEDY = "run `shelfwise catalogue import`"


class ProductTable:
    """One version of the catalogue. Build it with `open`, `empty` and `upsert`; read it anywhere.

    Rows are numbered 0 to ``len(table) - 1``. Nothing is ever mutated, so that threads share it.

    Attributes:
        identity: random, the same in all versions of one catalogue; None where the file has none.
        lookup: rows and titles that were asked for before, for all who ask this table.
    """

    def __init__(
        self, batch: Any, next_key: int, identity: str | None, saved: "_Saved | None" = None
    ) -> None:
        self._batch = batch
        self._next_key = next_key
        self.identity = identity
        self._saved = saved
        self._ids = IdColumn(batch)
        # These hold columns, not self: what is remembered must not keep an outdated table alive.
        self.lookup = ProductLookup(self._ids, partial(_titles, batch))
        self._mask = lru_cache(maxsize=_CACHED_MASKS)(partial(mask_of, FilterColumns(batch)))

    @classmethod
    def empty(cls) -> "ProductTable":
        """Return a table without products, with which a catalogue begins."""
        return cls(encode(PLAIN_SCHEMA.empty_table(), np.empty(0, np.int64)), 0, _new_identity())

    @classmethod
    def open(cls, path: Path) -> "ProductTable":
        """Map a saved table into memory; `verify` tells whether its content is sound, too.

        Raises:
            DataError: the file is missing, corrupt or of another format.
        """
        try:
            reader = pa.ipc.open_file(pa.memory_map(str(path)))
            metadata = dict(reader.schema.metadata or {})
            next_key = int(metadata.pop(b"next_key", b"-1"))
            identity = metadata.pop(b"identity", b"").decode() or None
            checksum = metadata.pop(b"checksum", b"")
            batch = reader.get_batch(0)
            batch.validate()
        except FileNotFoundError:
            raise DataError(f"{path}: there is no catalogue; {_REMEDY}") from None
        except (OSError, ValueError, IndexError) as error:
            raise _corrupt(path, error) from error
        if metadata != _FORMAT or next_key < 0 or not checksum or batch.schema != ENCODED_SCHEMA:
            raise DataError(f"{path}: not a catalogue of this version; delete it and {_REMEDY}")
        return cls(batch, next_key, identity, _Saved(path, checksum))

    def save(self, path: Path) -> None:
        """Write the table so that readers see either the old file or the new one, whole."""
        metadata = {
            **_FORMAT,
            b"next_key": str(self._next_key).encode(),
            b"checksum": self._checksum(),
        }
        if self.identity is not None:
            metadata[b"identity"] = self.identity.encode()
        with replacing(path) as temporary, pa.OSFile(str(temporary), "wb") as sink:
            write(self._batch.replace_schema_metadata(metadata), sink)

    def verify(self) -> None:
        """Read a saved table in full and make sure that not a byte of its content has changed.

        Takes about a second for each gigabyte. A table that was never saved is sound.

        Raises:
            DataError: the file is damaged.
        """
        if self._saved is None:
            return
        try:
            self._batch.validate(full=True)
        except pa.ArrowInvalid as error:
            raise _corrupt(self._saved.path, error) from error
        if self._saved.checksum != self._checksum():
            raise _corrupt(self._saved.path, "its checksum is another")

    def __len__(self) -> int:
        return int(self._batch.num_rows)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the content: it changes whenever a row comes, goes or changes."""
        digest = blake2b(self.keys.tobytes(), digest_size=16)
        digest.update(self.row_hashes.tobytes())
        return digest.hexdigest()

    @cached_property
    def keys(self) -> IntArray:
        """Key of each row, ascending."""
        return self._numbers("key")

    @cached_property
    def row_hashes(self) -> HashArray:
        """Hash of all fields of each row; the same in every version."""
        return self._numbers("row_hash")

    @cached_property
    def text_hashes(self) -> HashArray:
        """Hash of exactly what `texts` returns for each row; the same in every version."""
        return self._numbers("text_hash")

    def rows_of_ids(self, product_ids: Sequence[str]) -> IntArray:
        """Return the row of each product id, -1 where there is none."""
        return self._ids.rows(product_ids)

    def rows_of_keys(self, keys: npt.ArrayLike) -> IntArray:
        """Return the row of each key, -1 where there is none."""
        wanted = np.asarray(keys, np.int64)
        rows = np.searchsorted(self.keys, wanted).astype(np.int64)
        inside = rows < len(self)
        inside[inside] = self.keys[rows[inside]] == wanted[inside]
        return np.where(inside, rows, -1)

    def products(self, rows: Rows) -> tuple[Product, ...]:
        """Return the products of some rows, in their order.

        Raises:
            IndexError: there is no such row.
        """
        columns = self._columns(rows, FIELDS)
        return tuple(restored(*values) for values in zip(*columns.values(), strict=True))

    def product_ids(self, rows: Rows) -> list[str]:
        """Return the product ids of some rows, in their order."""
        return self._columns(rows, ("product_id",))["product_id"]

    def titles(self, rows: Rows) -> list[str]:
        """Return the titles of some rows, in their order."""
        return _titles(self._batch, rows)

    def headings(self, rows: Rows) -> list[str]:
        """Return title, brand and category of some rows, each in one line."""
        columns = self._columns(rows, ("title", "brand", "category")).values()
        return [" ".join(part or "" for part in parts) for parts in zip(*columns, strict=True)]

    def texts(self, rows: Rows) -> list[str]:
        """Return what is embedded and indexed of some rows: see `text_of`."""
        names = ("title", "brand", "category", "attributes", "description")
        columns = self._columns(rows, names)
        columns["attributes"] = [attributes_of(text) for text in columns["attributes"]]
        return [text_of(*values) for values in zip(*columns.values(), strict=True)]

    def column(self, name: str) -> Any:
        """Return a stored column of `ENCODED_SCHEMA` as an Arrow array: all rows at no cost."""
        return self._batch[name]

    def mask(self, filters: Filters) -> BoolArray:
        """Tell for each row whether it meets the filters, exactly as `Filters.matches` does.

        The array is shared between callers and read-only.
        """
        return self._mask(filters)

    def upsert(self, products: Iterable[Product]) -> tuple["ProductTable", int, int, int]:
        """Add new products and replace known ones.

        Args:
            products: consumed once and in batches; product ids must differ.

        Returns:
            The new table, and the numbers of products added, changed and left as they were.

        Raises:
            DataError: a product id comes twice.
        """
        incoming = read(products)
        refuse_twice(incoming)
        ids = incoming["product_id"].combine_chunks()
        rows = self._ids.rows_by_hash(incoming["id_hash"].to_numpy(), ids)
        new = np.flatnonzero(rows < 0)
        known = np.flatnonzero(rows >= 0)
        differs = self.row_hashes[rows[known]] != incoming["row_hash"].to_numpy()[known]
        changed = known[differs]
        unchanged = len(known) - len(changed)
        if not len(new) and not len(changed):
            return self, 0, 0, unchanged
        source = np.arange(len(self) + len(new))
        source[rows[changed]] = len(self) + changed
        source[len(self) :] = len(self) + new
        merged = pa.concat_tables([decode(self._batch), incoming]).take(pa.array(source))
        keys = np.concatenate([self.keys, self._next_key + np.arange(len(new))])
        return self._next(merged, keys, len(new)), len(new), len(changed), unchanged

    def delete(self, product_ids: Sequence[str]) -> tuple["ProductTable", int]:
        """Return a table without some products, and how many were there; unknown ids are fine."""
        rows = self.rows_of_ids(product_ids)
        kept = np.ones(len(self), np.bool_)
        kept[rows[rows >= 0]] = False
        deleted = len(self) - int(kept.sum())
        if not deleted:
            return self, 0
        plain = decode(self._batch).filter(pa.array(kept))
        return self._next(plain, self.keys[kept]), deleted

    def _next(self, plain: Any, keys: IntArray, new: int = 0) -> "ProductTable":
        identity = self.identity or _new_identity()
        return ProductTable(encode(plain, keys), self._next_key + new, identity)

    def _checksum(self) -> bytes:
        return checksum(self._batch, f"{self._next_key}{self.identity or ''}").encode()

    def _numbers(self, name: str) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = self._batch[name].to_numpy()
        return values

    def _columns(self, rows: Rows, names: Sequence[str]) -> dict[str, list[Any]]:
        return _taken(self._batch, rows, names)


def _taken(batch: Any, rows: Rows, names: Sequence[str]) -> dict[str, list[Any]]:
    if not len(rows):  # common, and Arrow takes as long over nothing as over a handful
        return {name: [] for name in names}
    taken = batch.select(list(names)).take(pa.array(rows, pa.int64()))
    return {name: listed(taken[name]) for name in names}


def _titles(batch: Any, rows: Rows) -> list[str]:
    return _taken(batch, rows, ("title",))["title"]


class _Saved(NamedTuple):
    path: Path
    checksum: bytes


def _new_identity() -> str:
    return uuid4().hex


def _corrupt(path: Path, fault: object) -> DataError:
    return DataError(f"{path}: the catalogue is corrupt ({fault}); delete it and {_REMEDY}")


__all__ = ["BoolArray", "HashArray", "IntArray", "ProductTable", "Rows", "replacing"]
