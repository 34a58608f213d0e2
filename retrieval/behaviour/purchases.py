"""All purchases of a store in columns, for what is counted over everybody."""

from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PurchaseColumns:
    """N purchases, by shopper, those of each oldest first.

    Attributes:
        shopper: of each purchase a number; who that is, is not kept.
        product: of each purchase a number, the place of its product in ``product_ids``.
        at_us: of each purchase the time in microseconds since 1970, UTC.
        product_ids: of the M products that were bought.
    """

    shopper: Integers
    product: Integers
    at_us: Integers
    product_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.product)


def read_purchases(
    connection: duckdb.DuckDBPyConnection, past: str, as_of: datetime, *, kept: bool = False
) -> PurchaseColumns:
    """Read the purchases of a relation of `retrieval.behaviour.schema.past`.

    Args:
        connection: to the store.
        past: the relation.
        as_of: nothing from then on is read; in UTC, without a zone.
        kept: leave out each purchase that a later return of its product by its shopper undoes:
            the latest before it that no other return undoes.
    """
    kinds = "kind IN ('purchase', 'return')" if kept else "kind = 'purchase'"
    found: pa.Table = connection.sql(
        f"""SELECT dense_rank() OVER (ORDER BY shopper) - 1 AS shopper, product_id,
        epoch_us("at") AS at_us, kind = 'return' AS back FROM {past} AS past
        WHERE {kinds} AND product_id IS NOT NULL
        ORDER BY shopper, past."at", past.kind, product_id""",
        params={"as_of": as_of},
    ).to_arrow_table()
    if kept:
        found = found.filter(pa.array(_kept(found)))
    products = found["product_id"].combine_chunks().dictionary_encode()
    return PurchaseColumns(
        shopper=found["shopper"].to_numpy().astype(np.int64),
        product=products.indices.to_numpy().astype(np.int64),
        at_us=found["at_us"].to_numpy().astype(np.int64),
        product_ids=tuple(products.dictionary.to_pylist()),
    )


def _kept(found: pa.Table) -> npt.NDArray[np.bool_]:
    """Tell of each purchase or return, oldest first, whether it is a purchase that was kept."""
    back: npt.NDArray[np.bool_] = found["back"].to_numpy().astype(np.bool_)
    kept: npt.NDArray[np.bool_] = np.logical_not(back)
    if not back.any():
        return kept
    product = found["product_id"].combine_chunks().dictionary_encode().indices.to_numpy()
    pairs = list(zip(found["shopper"].to_numpy().tolist(), product.tolist(), strict=True))
    sent_back = {pairs[place] for place in np.flatnonzero(back).tolist()}
    bought: dict[tuple[int, int], list[int]] = {pair: [] for pair in sent_back}
    for place, pair in enumerate(pairs):
        if pair not in bought:
            continue
        if not back[place]:
            bought[pair].append(place)
        elif bought[pair]:
            kept[bought[pair].pop()] = False
    return kept
