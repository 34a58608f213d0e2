"""Importing catalogue files in tests, and what is looked at afterwards."""

from collections.abc import Callable
from pathlib import Path

from retrieval.catalogue import ImportReport
from retrieval.product_table import ProductTable

Import = Callable[..., ImportReport]
HEADER = "product_id,title,price\n"


def ids(target: Path) -> list[str]:
    table = ProductTable.open(target)
    return table.product_ids(range(len(table)))


def faults(report: ImportReport) -> list[tuple[int, str, str | None]]:
    return [(row.row, row.field, row.product_id) for row in report.rejected]
