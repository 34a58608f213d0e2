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
    connection: duckdb.DuckDBPyConnection, past: str, as_of: datetime
) -> PurchaseColumns:
    """Read the purchases of a relation of `retrieval.behaviour.schema.past`.

    Args:
        connection: to the store.
        past: the relation.
        as_of: nothing from then on is read; in UTC, without a zone.
    """
    found: pa.Table = connection.sql(
        f"""SELECT dense_rank() OVER (ORDER BY shopper) - 1 AS shopper, product_id,
        epoch_us("at") AS at_us FROM {past}
        WHERE kind = 'purchase' AND product_id IS NOT NULL
        ORDER BY shopper, "at", product_id""",
        params={"as_of": as_of},
    ).to_arrow_table()
    products = found["product_id"].combine_chunks().dictionary_encode()
    return PurchaseColumns(
        shopper=found["shopper"].to_numpy().astype(np.int64),
        product=products.indices.to_numpy().astype(np.int64),
        at_us=found["at_us"].to_numpy().astype(np.int64),
        product_ids=tuple(products.dictionary.to_pylist()),
    )
