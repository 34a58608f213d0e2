"""Brand, category and price band of every product as small numbers, for fast counting.

A profile counts hundreds of products; as codes they are counted by numpy without building a
`Product` for each. A price band is relative: a product is ``budget``, ``mid`` or ``premium`` by the
terciles of the prices in its own category. Where that holds too few prices, or all alike, those
of the parent category decide, and at last those of the whole catalogue.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.schema import CATEGORY_SEPARATOR, category_paths
from retrieval.product_table import IntArray, ProductTable

BANDS = ("budget", "mid", "premium")
_FEWEST_PRICES = 9


@dataclass(frozen=True)
class CodedFact:
    """One fact of every product.

    Attributes:
        codes: by row of the table; -1 where the product lacks the fact.
        names: by code; spellings that differ in case only share a code, and the levels of a
            category are spelt alike.
    """

    codes: IntArray
    names: tuple[str, ...]


class ProductFacts:
    """The counted facts of one `ProductTable`; costs about a second for a million products.

    Attributes:
        relative_price: by row, price by the median price of the product's category; where that
            holds too few prices those of the parent decide, and at last those of the whole
            catalogue. NaN without a price, or where it is free.
    """

    def __init__(self, table: ProductTable) -> None:
        # The table's own dictionary codes: going through `Product` would take minutes.
        self.brand = _coded(table.column("brand"), _tidy_brand)
        self.category = _coded(table.column("category"), _tidy_categories())
        prices = table.column("price").to_numpy(zero_copy_only=False)
        self.band = CodedFact(_bands(prices, self.category), BANDS)
        self.relative_price = _relative_prices(prices, self.category)


def parent_category(name: str) -> str | None:
    """Return the category above a category; None at the top."""
    parent, separator, _ = name.rpartition(CATEGORY_SEPARATOR)
    return parent if separator else None


def _tidy_brand(name: str) -> str:
    return " ".join(name.split())


def _tidy_categories() -> Callable[[str], str]:
    """Return what tidies categories, and spells each level as the first that it has seen does.

    So a category is the parent of those below it in any case.
    """
    known: dict[str, str] = {}

    def tidy(name: str) -> str:
        path = ""
        for part in filter(None, map(str.strip, name.split(CATEGORY_SEPARATOR.strip()))):
            longer = f"{path}{CATEGORY_SEPARATOR}{part}" if path else part
            path = known.setdefault(longer.casefold(), longer)
        return path

    return tidy


def _coded(column: Any, tidy: Callable[[str], str]) -> CodedFact:
    names: dict[str, str] = {}
    places: dict[str, int] = {}
    recoded = []
    for spelling in column.dictionary.to_pylist():
        name = tidy(spelling)
        folded = name.casefold()
        names.setdefault(folded, name)
        recoded.append(places.setdefault(folded, len(places)) if name else -1)
    by_old_code = np.array([*recoded, -1], np.int64)
    old = column.indices.fill_null(len(recoded)).to_numpy(zero_copy_only=False)
    codes = by_old_code[old.astype(np.int64)]
    return CodedFact(codes, tuple(names[folded] for folded in places))


def _bands(prices: npt.NDArray[np.float64], category: CodedFact) -> IntArray:
    bands = np.full(len(prices), -1, np.int64)
    for groups in (category.codes, _parents(category), np.zeros(len(prices), np.int64)):
        pending = (bands < 0) & ~np.isnan(prices) & (groups >= 0)
        if pending.any():
            low, high = _quantiles(prices, groups, (Fraction(1, 3), Fraction(2, 3)))
            # NaN for a group that cannot tell: the comparison leaves its products pending.
            spread = pending & (low[groups] < high[groups])
            price, group = prices[spread], groups[spread]
            bands[spread] = (price >= low[group]).astype(np.int64) + (price >= high[group])
    return bands


def _relative_prices(
    prices: npt.NDArray[np.float64], category: CodedFact
) -> npt.NDArray[np.float64]:
    sold = np.where(prices > 0, prices, np.nan)
    relative = np.full(len(prices), np.nan)
    for groups in (category.codes, _parents(category), np.zeros(len(prices), np.int64)):
        pending = np.isnan(relative) & ~np.isnan(sold) & (groups >= 0)
        if pending.any():
            (usual,) = _quantiles(sold, groups, (Fraction(1, 2),))
            relative[pending] = sold[pending] / usual[groups[pending]]
    return relative


def _parents(category: CodedFact) -> IntArray:
    folded = [category_paths(name)[:-1] for name in category.names]
    codes: dict[str, int] = {}
    of = [codes.setdefault(path[-1], len(codes)) if path else -1 for path in folded]
    return np.array([*of, -1], np.int64)[category.codes]


def _quantiles(
    prices: npt.NDArray[np.float64], groups: IntArray, parts: Sequence[Fraction]
) -> list[npt.NDArray[np.float64]]:
    """Return for each group the prices at which these parts of it end; NaN for too few prices."""
    rows = np.flatnonzero(~np.isnan(prices) & (groups >= 0))
    rows = rows[np.lexsort((prices[rows], groups[rows]))]
    sizes = np.bincount(groups[rows], minlength=int(groups.max()) + 1)
    starts = np.cumsum(sizes) - sizes
    enough = sizes >= _FEWEST_PRICES
    found = []
    for part in parts:
        quantile = np.full(len(sizes), np.nan)
        places = starts[enough] + sizes[enough] * part.numerator // part.denominator
        quantile[enough] = prices[rows[places]]
        found.append(quantile)
    return found
