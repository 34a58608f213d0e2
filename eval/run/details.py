"""Single cases: where the focus moves the answer, and where it does worst, in words."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from eval.cases.values import Case
from eval.run.figures import Measured
from eval.run.results import CaseDetail, RankChange
from retrieval.product_table import ProductTable

_WORST = 12
_SHOWN = 5
_HISTORY = 6
_TITLE = 90


def best_rank(case: Case, order: Sequence[str]) -> int | None:
    """Return the place of the first target, from 1; None if none is there."""
    return next((place for place, each in enumerate(order, 1) if each in case.relevant), None)


def rank_changes(measured: Measured, baseline: str, focus: str) -> tuple[RankChange, ...]:
    """Return how many cases have their answer at which places for both rankers."""
    pairs: Counter[tuple[int, int]] = Counter()
    for case in measured.cases:
        places = [
            best_rank(case, measured.lines[name][case.case_id].ranked.product_ids)
            for name in (baseline, focus)
        ]
        if places[0] is not None and places[1] is not None:
            pairs[places[0], places[1]] += 1
    return tuple(
        RankChange(baseline=one, focus=other, cases=count)
        for (one, other), count in sorted(pairs.items())
    )


def worst_cases(
    measured: Measured, baseline: str, focus: str, table: ProductTable
) -> tuple[CaseDetail, ...]:
    """Return the cases where the focus loses most against the baseline, then its lowest."""
    values = measured.values[measured.deciding]
    own, other = values[focus], values[baseline]
    loss = np.where(np.isnan(own), -np.inf, other - own)
    keys = (np.arange(len(own)), np.where(np.isnan(own), np.inf, own), -loss)
    order = [row for row in np.lexsort(keys).tolist() if not np.isnan(own[row])]
    rankers = tuple(dict.fromkeys((baseline, focus)))
    return tuple(_detail(measured, row, rankers, table) for row in order[:_WORST] if own[row] < 1)


def _detail(
    measured: Measured, row: int, rankers: Sequence[str], table: ProductTable
) -> CaseDetail:
    case = measured.cases[row]
    orders = {name: measured.lines[name][case.case_id].ranked.product_ids for name in rankers}
    return CaseDetail(
        case_id=case.case_id,
        query=case.query,
        history=_titles(case.history[::-1][:_HISTORY], table),
        targets=_titles(sorted(case.relevant)[:_SHOWN], table),
        lists={name: _titles(order[:_SHOWN], table) for name, order in orders.items()},
        hits={
            name: tuple(each in case.relevant for each in order[:_SHOWN])
            for name, order in orders.items()
        },
        target_ranks={name: best_rank(case, order) for name, order in orders.items()},
    )


def _titles(ids: Sequence[str], table: ProductTable) -> tuple[str, ...]:
    """Return what a person would call the products; ids stand for those the table lacks."""
    rows = table.rows_of_ids(ids)
    known = iter(table.products(rows[rows >= 0]))
    found = []
    for product_id, row in zip(ids, rows.tolist(), strict=True):
        if row < 0:
            found.append(f"{product_id} (not in the products file)")
            continue
        product = next(known)
        text = " · ".join(part for part in (product.title, product.brand) if part)
        found.append(text if len(text) <= _TITLE else f"{text[: _TITLE - 1]}…")
    return tuple(found)
