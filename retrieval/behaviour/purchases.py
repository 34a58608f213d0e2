"""All purchases of a store in columns, for what is counted over everybody."""

from dataclasses import dataclass
from datetime import datetime

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval.returns import sent_back

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
        kept: leave out what was sent back (see `retrieval.returns`), each return for one purchase,
            as in profiles.
    """
    bought = "FROM moved WHERE kind = 'purchase'"
    if kept:
        bought = f"{bought} EXCEPT ALL FROM {sent_back('moved', 'at_us, kind')}"
    found: pa.Table = connection.sql(
        f"""WITH moved AS (
            SELECT shopper, product_id, epoch_us("at") AS at_us, kind, 1 AS quantity FROM {past}
            WHERE kind IN ('purchase', 'return') AND product_id IS NOT NULL
        )
        SELECT dense_rank() OVER (ORDER BY shopper) - 1 AS shopper, product_id, at_us
        FROM ({bought}) AS bought ORDER BY bought.shopper, at_us, product_id""",
        params={"as_of": as_of},
    ).to_arrow_table()
    products = found["product_id"].combine_chunks().dictionary_encode()
    return PurchaseColumns(
        shopper=found["shopper"].to_numpy().astype(np.int64),
        product=products.indices.to_numpy().astype(np.int64),
        at_us=found["at_us"].to_numpy().astype(np.int64),
        product_ids=tuple(products.dictionary.to_pylist()),
    )
