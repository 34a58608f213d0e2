"""What a ranker shows beyond hits: coverage, popularity, exposure of brands, variety."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.measures.lists import (
    GroupExposure,
    catalogue_coverage,
    exposure,
    group_diversity,
    popularity_lift,
)
from eval.past.counts import Past
from eval.run.figures import Measured
from eval.run.results import Figure, ShownReport
from eval.statistics.estimates import Estimate, RefusedEstimate
from retrieval.product_table import ProductTable


@dataclass(frozen=True)
class ProductGroups:
    """Groups of products that are looked at: those which a product has none of are left out."""

    brands: Mapping[str, str]
    sellers: Mapping[str, str]
    categories: Mapping[str, str]

    @classmethod
    def of(cls, table: ProductTable) -> "ProductGroups":
        """Take the groups of a catalogue; a seller is the attribute ``seller``."""
        ids = table.product_ids(np.arange(len(table)))
        return cls(
            brands=_given(ids, table.column("brand")),
            sellers=_sellers(table),
            categories=_given(ids, table.column("category")),
        )


def shown_report(
    measured: Measured,
    ranker: str,
    groups: ProductGroups,
    past: Past,
    table: ProductTable,
    k: int,
) -> ShownReport:
    """Measure what stands in the first k places."""
    lists = measured.lists(ranker)
    given = [case.candidates for case in measured.cases]
    absent: list[str] = []
    lift = diversity = None
    if not past.purchases:
        absent.append("popularity lift: nothing is known of purchases")
    else:
        lift = _lift(measured, lists, past, table, k)
    reference: Sequence[Sequence[str]] = [ids for ids in given if ids is not None]
    if any(ids is None for ids in given):
        reference = [table.product_ids(np.arange(len(table)))]
    if not groups.categories:
        absent.append("diversity: no product has a category")
    else:
        diversity = _figure(
            f"diversity@{k}",
            lambda: group_diversity(lists, groups.categories, k, measured.shoppers),
        )
    return ShownReport(
        coverage=catalogue_coverage(lists, k, len(table)),
        popularity_lift=lift,
        brands=_exposed("brand", lists, reference, groups.brands, k, absent),
        sellers=_exposed("seller", lists, reference, groups.sellers, k, absent),
        diversity=diversity,
        absent=tuple(absent),
    )


def _lift(
    measured: Measured, lists: Sequence[tuple[str, ...]], past: Past, table: ProductTable, k: int
) -> Figure:
    reference = [
        case.candidates if case.candidates is not None else case.history for case in measured.cases
    ]
    ids = sorted({each for some in (*lists, *reference) for each in some})
    rows = table.rows_of_ids(ids)
    counts = np.where(rows >= 0, past.popularity[rows], 0.0)
    popularity = dict(zip(ids, counts.tolist(), strict=True))
    return _figure(
        f"popularity lift@{k}",
        lambda: popularity_lift(lists, reference, popularity, k, measured.shoppers),
    )


def _figure(name: str, estimate: Any) -> Figure:
    try:
        found: Estimate = estimate()
    except RefusedEstimate as refused:
        return Figure(measure=name, value=None, n=0, without_value=0, refused=str(refused))
    return Figure(
        measure=name,
        value=found.value,
        n=found.n,
        without_value=found.excluded,
        estimate=found,
    )


def _exposed(
    what: str,
    lists: Sequence[tuple[str, ...]],
    reference: Sequence[Sequence[str]],
    groups: Mapping[str, str],
    k: int,
    absent: list[str],
) -> GroupExposure | None:
    if not groups:
        absent.append(f"exposure by {what}: no product has a {what}")
        return None
    return exposure(lists, reference, groups, k)


def _given(ids: Sequence[str], column: Any) -> dict[str, str]:
    names = column.to_pylist()
    return {each: name for each, name in zip(ids, names, strict=True) if name}


def _sellers(table: ProductTable) -> dict[str, str]:
    texts = table.column("attributes").to_pylist()
    rows = [row for row, text in enumerate(texts) if text and '"seller"' in text]
    products = table.products(rows)
    named = {each.product_id: each.attributes.get("seller") for each in products}
    return {each: name for each, name in named.items() if name}
