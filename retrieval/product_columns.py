"""Products as Arrow columns: what `ProductTable` stores, and how filters and ids are found in it.

A *plain* table has its texts as they are and is easy to join and cut; an *encoded* batch also has
keys, and its brands, categories and currencies as codes into a dictionary.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from itertools import islice
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import from_json

from reranker.errors import DataError
from reranker.schema import CATEGORY_SEPARATOR, Filters, Product, category_paths, folded_brand

IntArray = npt.NDArray[np.int64]
HashArray = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]

DESCRIPTION_LIMIT = 500
"""Characters of a description that are embedded and indexed; embedders cut off about there."""
FIELDS = tuple(Product.model_fields)
_FIELDS_SET = set(FIELDS)  # shared: nothing changes that of a frozen value
_set = object.__setattr__
PLAIN_SCHEMA = pa.schema(
    [
        pa.field("product_id", pa.large_string(), nullable=False),
        pa.field("title", pa.large_string(), nullable=False),
        pa.field("description", pa.large_string(), nullable=False),
        pa.field("brand", pa.large_string()),
        pa.field("category", pa.large_string()),
        pa.field("price", pa.float64()),
        pa.field("currency", pa.large_string()),
        pa.field("in_stock", pa.bool_(), nullable=False),
        pa.field("attributes", pa.large_string(), nullable=False),
        pa.field("id_hash", pa.uint64(), nullable=False),
        pa.field("row_hash", pa.uint64(), nullable=False),
        pa.field("text_hash", pa.uint64(), nullable=False),
    ]
)
_CODED = ("brand", "category", "currency")
_CODES = pa.dictionary(pa.int32(), pa.large_string())
ENCODED_SCHEMA = pa.schema(
    [pa.field("key", pa.int64(), nullable=False)]
    + [field.with_type(_CODES) if field.name in _CODED else field for field in PLAIN_SCHEMA]
)
_BATCH = 16_384
# Escaped JSON, because unlike repr() it is the same in every version of Python.
_CANONICAL = json.JSONEncoder(separators=(",", ":"))
_READABLE = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)


def read(products: Iterable[Product]) -> Any:
    """Return products as one plain table, taking them in batches so that values can be freed."""
    rest = iter(products)
    batches = []
    while batch := list(islice(rest, _BATCH)):
        batches.append(_read_batch(batch))
    return pa.Table.from_batches(batches, PLAIN_SCHEMA).combine_chunks()


def _read_batch(products: list[Product]) -> Any:
    columns: dict[str, Any] = {
        name: [getattr(product, name) for product in products] for name in FIELDS
    }
    columns["attributes"] = [_READABLE.encode(dict(each)) for each in columns["attributes"]]
    rows = zip(*(columns[name] for name in FIELDS), strict=True)
    columns["row_hash"] = hashes_of(map(_CANONICAL.encode, rows))
    columns["text_hash"] = hashes_of(product_text(product) for product in products)
    columns["id_hash"] = hashes_of(columns["product_id"])
    return pa.RecordBatch.from_pydict(columns, schema=PLAIN_SCHEMA)


def encode(plain: Any, keys: IntArray) -> Any:
    """Return a plain table and its keys as one record batch, the form that is stored."""
    arrays = [pa.array(keys)]
    for name in PLAIN_SCHEMA.names:
        array = plain[name].combine_chunks()
        arrays.append(array.dictionary_encode() if name in _CODED else array)
    return pa.RecordBatch.from_arrays(arrays, schema=ENCODED_SCHEMA)


def decode(batch: Any) -> Any:
    """Return the plain table of an encoded batch."""
    arrays = [
        batch[name].dictionary_decode() if name in _CODED else batch[name]
        for name in PLAIN_SCHEMA.names
    ]
    return pa.Table.from_arrays(arrays, schema=PLAIN_SCHEMA)


def listed(column: Any) -> list[Any]:
    """Return a column of an encoded batch as Python's values."""
    # Three times as fast as looking up dictionary codes one by one, which `to_pylist` does.
    coded = pa.types.is_dictionary(column.type)
    values: list[Any] = (column.dictionary_decode() if coded else column).to_pylist()
    return values


def attributes_of(stored: str) -> dict[str, str]:
    """Return the attributes of a product as they were before they were stored."""
    attributes: dict[str, str] = from_json(stored) if stored != "{}" else {}
    return attributes


def restored(*values: Any) -> Product:
    """Return the product of a stored row, given the values of `FIELDS`.

    It was validated on its way in. Restoring it, as unpickling does, takes a quarter of the time
    of validating it again.
    """
    fields = dict(zip(FIELDS, values, strict=True))
    fields["attributes"] = MappingProxyType(attributes_of(fields["attributes"]))
    product = object.__new__(Product)
    # One by one, as `Product.__setstate__` does through pydantic's slower checks of names.
    _set(product, "__dict__", fields)
    _set(product, "__pydantic_fields_set__", _FIELDS_SET)
    _set(product, "__pydantic_extra__", None)
    _set(product, "__pydantic_private__", None)
    return product


def hashes_of(texts: Iterable[str]) -> HashArray:
    """Return the 64-bit BLAKE2b hash of each text."""
    digests = b"".join(blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, "<u8").astype(np.uint64, copy=False)


def refuse_twice(plain: Any) -> None:
    """Make sure that the product ids of a plain table differ.

    Raises:
        DataError: naming the id that comes twice.
    """
    hashes = plain["id_hash"].to_numpy()
    if len(np.unique(hashes)) == len(hashes):
        return
    seen: set[str] = set()
    for product_id in plain["product_id"].to_pylist():
        if product_id in seen:
            raise DataError(f"product {product_id!r} comes twice: give each product once")
        seen.add(product_id)


def product_text(product: Product) -> str:
    """Return the text of a product that is embedded and indexed: see `text_of`."""
    return text_of(
        product.title, product.brand, product.category, product.attributes, product.description
    )


def text_of(
    title: str,
    brand: str | None,
    category: str | None,
    attributes: Mapping[str, str],
    description: str,
) -> str:
    """Return what is embedded and indexed of a product, one line a field.

    Title, brand, category with commas for `` > ``, the values of the attributes, and the first
    `DESCRIPTION_LIMIT` characters of the description; what is empty is left out.
    """
    path = (category or "").split(CATEGORY_SEPARATOR.strip())
    parts = (
        title,
        brand,
        ", ".join(part.strip() for part in path),
        ", ".join(attributes.values()),
        description[:DESCRIPTION_LIMIT].strip(),
    )
    return "\n".join(part for part in parts if part)


class IdColumn:
    """Product ids, found by their hash; equal hashes are told apart by the id."""

    def __init__(self, batch: Any) -> None:
        self._hashes: HashArray = batch["id_hash"].to_numpy()
        self._ids = batch["product_id"]

    def rows(self, product_ids: Sequence[str]) -> IntArray:
        """Return the row of each product id, -1 where there is none."""
        return self.rows_by_hash(hashes_of(product_ids), pa.array(product_ids, pa.large_string()))

    def rows_by_hash(self, hashes: HashArray, product_ids: Any) -> IntArray:
        """Do the same for an Arrow array of ids whose hashes are known."""
        ordered, order = self._order
        rows = np.full(len(hashes), -1, np.int64)
        place = np.searchsorted(ordered, hashes)
        pending = np.arange(len(hashes))
        while pending.size:
            pending = pending[place[pending] < len(ordered)]
            pending = pending[ordered[place[pending]] == hashes[pending]]
            found = order[place[pending]]
            equal = pc.equal(product_ids.take(pa.array(pending)), self._ids.take(found))
            same = equal.to_numpy(zero_copy_only=False).astype(np.bool_)
            rows[pending[same]] = found[same]
            pending = pending[~same]
            place[pending] += 1
        return rows

    @cached_property
    def _order(self) -> tuple[HashArray, IntArray]:
        order = np.argsort(self._hashes, kind="stable").astype(np.int64)
        return self._hashes[order], order


class FilterColumns:
    """The columns that filters look at, in a form that numpy is quick with."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch

    @cached_property
    def price(self) -> npt.NDArray[np.float64]:
        """Price of each row; NaN, which meets no bound, where there is none."""
        values: npt.NDArray[np.float64] = self._batch["price"].to_numpy(zero_copy_only=False)
        return values

    @cached_property
    def in_stock(self) -> BoolArray:
        """Whether each row is in stock."""
        values: BoolArray = self._batch["in_stock"].to_numpy(zero_copy_only=False)
        return values

    @cached_property
    def brand(self) -> "CodedColumn":
        """Brand of each row, found by its folded name."""
        return CodedColumn(self._batch["brand"], lambda name: (folded_brand(name),))

    @cached_property
    def category(self) -> "CodedColumn":
        """Category of each row, found by its folded path and those of its ancestors."""
        return CodedColumn(self._batch["category"], category_paths)


class CodedColumn:
    """A dictionary-encoded column that is searched by names derived from its values."""

    def __init__(self, column: Any, names_of: Callable[[str], tuple[str, ...]]) -> None:
        values = column.dictionary.to_pylist()
        self._codes = column.indices.fill_null(len(values)).to_numpy()
        self._size = len(values) + 1  # the last one stands for null and is never wanted
        self._codes_of: dict[str, list[int]] = {}
        for code, value in enumerate(values):
            for name in set(names_of(value)):
                self._codes_of.setdefault(name, []).append(code)

    def any_of(self, names: Collection[str]) -> BoolArray:
        """Tell for each row whether one of the names belongs to its value."""
        wanted = np.zeros(self._size, np.bool_)
        for name in names:
            wanted[self._codes_of.get(name, [])] = True
        kept: BoolArray = wanted[self._codes]
        return kept


def mask_of(columns: FilterColumns, filters: Filters) -> BoolArray:
    """Tell for each row whether it meets the filters, exactly as `Filters.matches` does."""
    kept = np.ones(len(columns.in_stock), np.bool_)
    if filters.categories:
        paths = {category_paths(name)[-1] for name in filters.categories if name}
        kept &= columns.category.any_of(paths)
    if filters.brands:
        kept &= columns.brand.any_of({folded_brand(name) for name in filters.brands})
    if filters.min_price is not None:
        kept &= columns.price >= filters.min_price
    if filters.max_price is not None:
        kept &= columns.price <= filters.max_price
    if filters.in_stock is not None:
        kept &= columns.in_stock == filters.in_stock
    kept.flags.writeable = False
    return kept
