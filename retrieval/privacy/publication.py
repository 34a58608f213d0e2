"""Tables for the public: how many shoppers bought, saw and clicked each product, with noise.

Differential privacy in the sense of Dwork et al. (2006): whether or not one shopper is in the store
changes the probability of any table by a factor of at most exp(epsilon). Each shopper counts for at
most some products, once each, chosen by a hash that depends on nobody else; the products are those
of the catalogue, which is public; the noise comes from OpenDP. What a store has published is noted
in it, and all of it together may cost no more than the setting privacy.epsilon_budget.
"""

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from pydantic import Field

from reranker.errors import ConfigError, DataError
from reranker.schema import Value
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.live import utc
from retrieval.files import replacing

_ROUNDING = 1e-9
_COUNTED = """SELECT c.product_id, count(*) FILTER (f.counts), count(*) FILTER (f.counts AND f.too)
    FROM catalogue c LEFT JOIN (
        SELECT product_id, true AS counts, {too} AS too FROM {past}
        SEMI JOIN catalogue USING (product_id)
        WHERE "at" >= $start AND kind IN {kinds}
        GROUP BY shopper, product_id
        QUALIFY row_number() OVER (PARTITION BY shopper ORDER BY hash(shopper, product_id))
            <= $most) f USING (product_id)
    GROUP BY ALL ORDER BY c.product_id"""


class Publication(Value):
    """What was published.

    Attributes:
        products: rows of the table: those whose counts stand out from the noise.
        epsilon: what it cost.
        spent: what all tables of this store have cost.
        budget: what they may cost.
        buyers_scale: of the Laplace noise in ``buyers``; nine of ten counts are off by less than
            2.3 times as much.
        clicks_scale: of the noise in ``shown_to`` and ``clicked_by``.
    """

    file: Path
    products: int = Field(ge=0)
    epsilon: float
    spent: float
    budget: float
    buyers_scale: float
    clicks_scale: float


def publish(
    store: BehaviourStore,
    products: Sequence[str],
    target: Path,
    *,
    epsilon: float,
    budget: float,
    as_of: datetime,
    days: int = 28,
    contributions: int = 20,
) -> Publication:
    """Write the table, and note what it has cost.

    The cost is noted before the table is drawn: killed in between, it is spent all the same.

    Args:
        store: open for writing. Only shoppers with consent to analytics count.
        products: ids of the catalogue; each gets noise, whether anybody bought it or not.
        target: a ``.csv`` or ``.parquet`` file with the columns ``product_id``, ``buyers``,
            ``shown_to``, ``clicked_by`` and ``click_rate``.
        epsilon: half of it for ``buyers``, half for the others.
        budget: of the store.
        as_of: counted is what happened before.
        days: how long before.
        contributions: most products that one shopper counts for, in each half.

    Raises:
        ConfigError: OpenDP is not installed, or the file's ending is unknown.
        DataError: the budget is spent, there are no products, or the store is read-only.
    """
    if target.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"{target}: write a .csv or a .parquet file")
    if not products:
        raise DataError("there are no products to publish: run shelfwise catalogue import")
    noise = _Noise(epsilon / 2, contributions)
    what = f"popularity and click rates of {days} days"
    asked = {"as_of": utc(as_of), "start": utc(as_of) - timedelta(days=days), "most": contributions}
    with replacing(target) as temporary:  # what cannot be written costs nothing
        spent = _spend(store, epsilon, budget, what)
        table, scales = _drawn(store, products, asked, noise)
        if target.suffix == ".csv":
            pyarrow.csv.write_csv(table, temporary)
        else:
            pq.write_table(table, temporary)
    return Publication(
        file=target,
        products=table.num_rows,
        epsilon=epsilon,
        spent=spent,
        budget=budget,
        buyers_scale=scales[0],
        clicks_scale=scales[1],
    )


def _drawn(
    store: BehaviourStore, products: Sequence[str], asked: dict[str, Any], noise: "_Noise"
) -> tuple[pa.Table, tuple[float, float]]:
    """Return the table with its noise, and the scales of that for buyers and for clicks."""
    past = store.past("analytics")
    with store.reading() as connection:
        connection.register("catalogue", pa.table({"product_id": pa.array(products, pa.string())}))
        bought = _COUNTED.format(past=past, kinds="('purchase')", too="false")
        ids, buyers, _ = _columns(connection.execute(bought, asked).fetchall())
        seen = _COUNTED.format(
            past=past, kinds="('impression', 'click')", too="bool_or(kind = 'click')"
        )
        _, shown, clicked = _columns(connection.execute(seen, asked).fetchall())
    noisy_buyers, buyers_scale = noise.added(buyers, counts=1)
    noisy, clicks_scale = noise.added([*shown, *clicked], counts=2)
    table = _table(ids, noisy_buyers, noisy[: len(ids)], noisy[len(ids) :])
    return _outstanding(table, buyers_scale, clicks_scale), (buyers_scale, clicks_scale)


class _Noise:
    """Adds discrete Laplace noise to counts."""

    def __init__(self, epsilon: float, contributions: int) -> None:
        try:
            import opendp.prelude as dp
        except ImportError as error:
            raise ConfigError(
                "publishing needs OpenDP: uv pip install 'shelfwise[privacy]'"
            ) from error
        dp.enable_features("contrib")
        self._dp = dp
        self._epsilon = epsilon
        self._contributions = contributions

    def added(self, counts_: Sequence[int], *, counts: int) -> tuple[list[int], float]:
        """Return noisy counts and the scale of the noise.

        Args:
            counts_: all that are published together.
            counts: how many of them one shopper changes by one, for each of the contributions.
        """
        dp = self._dp
        space = dp.vector_domain(dp.atom_domain(T=int)), dp.l1_distance(T=int)
        changed = self._contributions * counts

        def measurement(scale: float) -> Any:
            return space >> dp.m.then_laplace(scale)

        scale = dp.binary_search_param(measurement, d_in=changed, d_out=self._epsilon, T=float)
        return list(measurement(scale)(list(counts_))), float(scale)


def _spend(store: BehaviourStore, epsilon: float, budget: float, what: str) -> float:
    """Note a cost in the store; return what has been spent with it."""
    if not epsilon > 0:
        raise ConfigError(f"--epsilon {epsilon}: must be above 0")
    with store.changing() as connection:
        (before,) = connection.execute(
            "SELECT coalesce(sum(epsilon), 0) FROM publication"
        ).fetchall()[0]
        if before + epsilon > budget + _ROUNDING:
            raise DataError(
                f"this table costs epsilon {epsilon:g}, and of the budget of {budget:g} (setting "
                f"privacy.epsilon_budget) {before:g} is spent: nothing was published"
            )
        now = datetime.now(UTC).replace(tzinfo=None)
        connection.execute("INSERT INTO publication VALUES (?, ?, ?)", [now, what, epsilon])
    return float(before + epsilon)


def _columns(rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], list[Any], list[Any]]:
    ids, first, second = (list(column) for column in zip(*rows, strict=True))
    return ids, first, second


def _table(
    ids: Sequence[str], buyers: Sequence[int], shown: Sequence[int], clicked: Sequence[int]
) -> pa.Table:
    return pa.table(
        {
            "product_id": list(ids),
            "buyers": [max(0, count) for count in buyers],
            "shown_to": [max(0, count) for count in shown],
            "clicked_by": [max(0, count) for count in clicked],
            "click_rate": [
                min(1.0, max(0, clicks) / views) if views > 0 else None
                for views, clicks in zip(shown, clicked, strict=True)
            ],
        },
        schema=pa.schema(
            [
                ("product_id", pa.string()),
                ("buyers", pa.int64()),
                ("shown_to", pa.int64()),
                ("clicked_by", pa.int64()),
                ("click_rate", pa.float64()),
            ]
        ),
    )


def _outstanding(table: pa.Table, buyers_scale: float, clicks_scale: float) -> pa.Table:
    """Keep products above what noise alone gives to one of them, blank rates that mean nothing.

    P(noise > t) = exp(-t / scale) / 2. This looks at noisy counts only, and so costs nothing.
    """
    import pyarrow.compute as pc

    often = math.log(max(2, table.num_rows))
    rated = pc.greater(table["shown_to"], clicks_scale * often)
    rates = pc.if_else(rated, table["click_rate"], pa.scalar(None, pa.float64()))
    place = table.schema.get_field_index("click_rate")
    bought = pc.greater(table["buyers"], buyers_scale * often)
    return (
        table.set_column(place, "click_rate", rates)
        .filter(pc.or_(bought, rated))
        .sort_by([("buyers", "descending"), ("product_id", "ascending")])
    )
