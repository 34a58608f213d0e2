"""How much a shopper's profile speaks for a product, without the language model.

Used for the fallback order and, with a weight, for the blend. It is a hand-set rule over the
profile, not a model learned from the shop's data.
"""

import math

from reranker.schema import Affinity, AffinityKind, Product, UserProfile, category_paths

_BOUGHT_AGAIN = 0.9
_TOUCHED_LATELY = 0.5
_CATEGORY = 0.5
_BRAND = 0.5


class Interest:
    """The interest of one shopper, made once for a request and asked of each product."""

    def __init__(self, profile: UserProfile) -> None:
        self._repeats = {repeat.product_id: repeat.count for repeat in profile.repeat_purchases}
        self._recent = {item.product_id: item.kind for item in profile.recent_items}
        self._brands = _by_name(profile.affinities, "brand")
        self._categories = _by_name(profile.affinities, "category")
        # A query's candidates share few categories.
        self._asked: dict[str | None, Affinity | None] = {}

    def of(self, product: Product) -> tuple[float, tuple[str, ...]]:
        """Return the interest, 0 to 1, and the facts behind it, the strongest first.

        Independent signals are joined by a noisy-or, ``1 - prod(1 - s)``: each raises the interest
        and none alone is certain. Repeat purchases give ``0.9 * n / (n + 1)`` for n purchases, a
        recently touched product 0.5, category and brand half of their share of the shopper's
        behaviour.
        """
        signals: list[tuple[float, str]] = []
        if count := self._repeats.get(product.product_id):
            signals.append((_BOUGHT_AGAIN * count / (count + 1), f"bought {count} times"))
        if kind := self._recent.get(product.product_id):
            signals.append((_TOUCHED_LATELY, f"lately: {kind}"))
        if affinity := self._narrowest(product.category):
            signals.append((_CATEGORY * affinity.weight, f"category {affinity.name}"))
        if affinity := self._brands.get((product.brand or "").casefold()):
            signals.append((_BRAND * affinity.weight, f"brand {affinity.name}"))
        signals.sort(key=lambda signal: -signal[0])
        missing = math.prod(1 - strength for strength, _ in signals)
        return 1 - missing, tuple(fact for _, fact in signals)

    def _narrowest(self, category: str | None) -> Affinity | None:
        """Return the affinity to the narrowest category around; more would count twice."""
        if category not in self._asked:
            paths = reversed(category_paths(category))
            found = (self._categories[path] for path in paths if path in self._categories)
            self._asked[category] = next(found, None)
        return self._asked[category]


def _by_name(affinities: tuple[Affinity, ...], kind: AffinityKind) -> dict[str, Affinity]:
    return {a.name.casefold(): a for a in affinities if a.kind == kind}
