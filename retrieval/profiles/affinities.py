"""What a shopper's choices add up to: shares of brands, categories and price bands, and prices.

Weights are shares of all that is known of their kind, so that they do not depend on how much
somebody shops.
"""

import math

import numpy as np
import numpy.typing as npt

from reranker.schema import Affinity, AffinityKind, PriceSense, PromotionUse
from retrieval.product_facts import CodedFact, ProductFacts, parent_category
from retrieval.product_table import IntArray
from retrieval.profiles.history import History

_MOST_AFFINITIES = 20
_FEWEST_PRICES = 3
_LEAST_WEIGHT = float(np.finfo(np.float64).tiny)
"""Below it, a thousand half-lives before the newest event, shares lose digits and end as 0/0."""

_Tally = dict[str, tuple[float, int]]
"""Name to its share of the weight and its number of events."""


def affinities(
    history: History,
    weights: npt.NDArray[np.float64],
    facts: ProductFacts,
    *,
    min_evidence: int,
) -> list[Affinity]:
    """Return the brands, categories and price bands that enough events speak for.

    Args:
        history: of the shopper.
        weights: of its events.
        facts: of the catalogue.
        min_evidence: fewest events.
    """
    rows, weights = history.rows[history.chosen], weights[history.chosen]
    brand, category, band = (
        _tally(fact, rows, weights) for fact in (facts.brand, facts.category, facts.band)
    )
    return [
        *_telling("brand", brand, min_evidence),
        *_telling("category", _with_parents(category), min_evidence),
        *_telling("price_band", band, min_evidence),
    ]


def price_sense(
    history: History, weights: npt.NDArray[np.float64], facts: ProductFacts
) -> PriceSense | None:
    """Return how dear a shopper buys, relative to what is usual in each product's category.

    None where too few purchases tell, or all are so old that they count nothing.
    """
    relative = facts.relative_price[history.rows[history.bought]]
    known = ~np.isnan(relative)
    evidence = int(known.sum())
    if evidence < _FEWEST_PRICES:
        return None
    # A geometric mean: half the usual price and twice the usual price even out.
    logs, weights = np.log(relative[known]), weights[history.bought][known]
    total = float(weights.sum())
    if total < _LEAST_WEIGHT:
        return None
    return PriceSense(relative=math.exp(logs @ weights / total), evidence=evidence)


def promotion_use(history: History) -> PromotionUse | None:
    """Return how many purchases were discounted, of those of which it is known."""
    known = [each for each in history.discounts if each is not None]
    if not known:
        return None
    return PromotionUse(discounted=sum(each > 0 for each in known), purchases=len(known))


def _telling(kind: AffinityKind, tally: _Tally, min_evidence: int) -> list[Affinity]:
    enough = [
        (name, share, evidence)
        for name, (share, evidence) in tally.items()
        if evidence >= min_evidence
    ]
    enough.sort(key=lambda entry: (-entry[1], entry[0]))
    return [
        Affinity(kind=kind, name=name, weight=min(share, 1.0), evidence=evidence)
        for name, share, evidence in enough[:_MOST_AFFINITIES]
    ]


def _tally(fact: CodedFact, rows: IntArray, weights: npt.NDArray[np.float64]) -> _Tally:
    codes = fact.codes[rows]
    known = codes >= 0
    names, places = np.unique(codes[known], return_inverse=True)
    sums = np.bincount(places, weights=weights[known])
    counts = np.bincount(places)
    total = float(sums.sum())
    if total < _LEAST_WEIGHT:
        return {}
    return {
        fact.names[code]: (share / total, count)
        for code, share, count in zip(names.tolist(), sums.tolist(), counts.tolist(), strict=True)
    }


def _with_parents(tally: _Tally) -> _Tally:
    """Add the parents that say more than one child does: those of several touched children."""
    children: dict[str, list[str]] = {}
    for name in tally:
        parent = parent_category(name)
        if parent is not None:
            children.setdefault(parent, []).append(name)
    joined = dict(tally)
    for parent, names in children.items():
        if len(names) > 1:
            parts = [tally[name] for name in (*names, parent) if name in tally]
            joined[parent] = (sum(p[0] for p in parts), sum(p[1] for p in parts))
    return joined
