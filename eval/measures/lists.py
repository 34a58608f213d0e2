"""Measures of what a ranker shows, beyond hits: clicks, coverage, popularity, exposure, diversity.

Lists are product ids from the first place down; only their first k places are looked at.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from math import comb

import numpy as np

from eval.logs import LoggedLists
from eval.statistics.estimates import Estimate, Floats, codes, mean, ratio
from reranker.errors import DataError
from reranker.schema import Value

Lists = Sequence[Sequence[str]]


def click_through(logs: LoggedLists, k: int, *, grade: int = 1) -> Estimate:
    """Return clicks in the first k places by items shown there (CTR@k)."""
    inside = (logs.position <= k).astype(np.float64)
    clicks = np.bincount(logs.request, inside * logs.reached(grade), len(logs))
    shown = np.bincount(logs.request, inside, len(logs))
    return ratio(f"CTR@{k}", clicks, shown, logs.shoppers)


def conversion(logs: LoggedLists, k: int, *, grade: int = 3) -> Estimate:
    """Return the share of lists with a purchase from the first k places (conversion@k)."""
    inside = (logs.position <= k) * logs.reached(grade)
    bought = np.bincount(logs.request, inside, len(logs)) > 0
    return mean(f"conversion@{k}", bought.astype(np.float64), logs.shoppers, bounds=(0.0, 1.0))


def catalogue_coverage(lists: Lists, k: int, catalogue: int) -> float:
    """Return the share of the catalogue's products that stand in the first k places of any list.

    Raises:
        DataError: more products are shown than the catalogue has.
    """
    shown = {product for products in lists for product in products[:k]}
    if len(shown) > catalogue:
        message = f"{len(shown)} products are shown, but the catalogue is said to have {catalogue}"
        raise DataError(message)
    return len(shown) / catalogue


def popularity_lift(
    lists: Lists,
    reference: Lists,
    popularity: Mapping[str, float],
    k: int,
    shoppers: Sequence[Hashable],
) -> Estimate:
    """Return how much more popular the shown products are than the reference, as a share.

    Mean over cases of the mean popularity of the first k places, divided by the same over the
    case's reference products, less 1 (the delta-GAP of Abdollahpouri et al. 2020): 0 is no lift,
    1 is twice as popular. A product without a popularity counts 0; a case with nothing shown or
    without reference is left out and counted.

    Args:
        lists: what is shown.
        reference: of each case its candidates, or the shopper's history.
        popularity: of products, such as purchases before the cut.
        k: places that are looked at.
        shoppers: of each case.
    """
    pairs = [(list(shown[:k]), list(given)) for shown, given in zip(lists, reference, strict=True)]
    known = np.array([bool(shown) and bool(given) for shown, given in pairs])
    above = np.array([_mean_popularity(shown, popularity) for shown, _ in pairs])[known]
    below = np.array([_mean_popularity(given, popularity) for _, given in pairs])[known]
    return ratio(
        f"popularity lift@{k}",
        above - below,
        below,
        codes(list(shoppers))[known],
        excluded=int((~known).sum()),
    )


def _mean_popularity(products: Sequence[str], popularity: Mapping[str, float]) -> float:
    return sum(popularity.get(p, 0.0) for p in products) / max(len(products), 1)


class GroupExposure(Value):
    """What share of the shown places each brand or seller gets.

    Attributes:
        shares: of each group, its part of all exposure; they add up to 1.
        reference: of each group, its part of the reference products.
        disparity: half the sum of absolute differences of the two (total variation): 0 where
            exposure follows the reference, 1 where it goes to others altogether.
    """

    shares: Mapping[str, float]
    reference: Mapping[str, float]
    disparity: float


def exposure(lists: Lists, reference: Lists, groups: Mapping[str, str], k: int) -> GroupExposure:
    """Return the exposure of groups in the first k places, each worth 1 / log2(1 + place).

    Args:
        lists: what is shown.
        reference: of each case its candidates, which say what is due.
        groups: brand or seller of a product; a product without one is of group ``""``.
        k: places that are looked at.

    Raises:
        DataError: nothing is shown, or there is no reference.
    """
    shown: dict[str, float] = {}
    for products in lists:
        for place, product in enumerate(products[:k], 1):
            group = groups.get(product, "")
            shown[group] = shown.get(group, 0.0) + 1 / np.log2(1 + place)
    due: dict[str, float] = {}
    for product in (product for products in reference for product in products):
        due[groups.get(product, "")] = due.get(groups.get(product, ""), 0.0) + 1.0
    if not shown or not due:
        raise DataError("exposure: nothing is shown, or no reference products are given")
    shares, expected = _shares(shown), _shares(due)
    names = shares.keys() | expected.keys()
    apart = sum(abs(shares.get(name, 0.0) - expected.get(name, 0.0)) for name in sorted(names))
    return GroupExposure(shares=shares, reference=expected, disparity=apart / 2)


def _shares(amounts: Mapping[str, float]) -> dict[str, float]:
    total = sum(amounts.values())
    return {name: float(amounts[name] / total) for name in sorted(amounts)}


def diversity(
    lists: Lists, vectors: Mapping[str, Floats], k: int, shoppers: Sequence[Hashable]
) -> Estimate:
    """Return the mean over lists of 1 - mean cosine of the pairs in the first k places.

    With one-hot vectors of the category it is the share of pairs that differ in category. A list
    of fewer than two products is left out and counted.

    Args:
        lists: what is shown.
        vectors: of every shown product, of one length, not all zero.
        k: places that are looked at.
        shoppers: of each list.

    Raises:
        DataError: a product has no vector.
    """
    values = [_list_diversity(products[:k], vectors) for products in lists]
    return mean(f"diversity@{k}", values, codes(list(shoppers)))


def _list_diversity(products: Sequence[str], vectors: Mapping[str, Floats]) -> float:
    if len(products) < 2:
        return float("nan")
    if missing := [product for product in products if product not in vectors]:
        raise DataError(f"product {missing[0]!r} has no vector: diversity needs one of each")
    rows = np.stack([vectors[product] for product in products]).astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    total = rows.sum(axis=0)
    pairs = comb(len(rows), 2)
    return float(1 - (total @ total - len(rows)) / 2 / pairs)


def group_diversity(
    lists: Lists, groups: Mapping[str, str], k: int, shoppers: Sequence[Hashable]
) -> Estimate:
    """Return the mean over lists of the share of pairs in the first k places of different groups.

    The same as `diversity` with one-hot vectors. A product without a group is left out; a list
    with fewer than two others is left out and counted.

    Args:
        lists: what is shown.
        groups: such as the category of a product.
        k: places that are looked at.
        shoppers: of each list.
    """
    values = [_pairs_apart([groups[p] for p in shown[:k] if p in groups]) for shown in lists]
    return mean(f"diversity@{k}", values, codes(list(shoppers)), bounds=(0.0, 1.0))


def _pairs_apart(names: Sequence[str]) -> float:
    if len(names) < 2:
        return float("nan")
    alike = sum(comb(count, 2) for count in Counter(names).values())
    return 1 - alike / comb(len(names), 2)
