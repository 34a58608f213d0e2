"""How much a shopper's profile speaks for a product, without the language model.

Used for the fallback order and, with a weight, for the blend. It is a hand-set rule over the
profile, not a model learned from the shop's data.
"""

from reranker.schema import Affinity, Product, UserProfile, category_paths

_BOUGHT_AGAIN = 0.9
_TOUCHED_LATELY = 0.5
_CATEGORY = 0.5
_BRAND = 0.5


def interest(profile: UserProfile, product: Product) -> tuple[float, tuple[str, ...]]:
    """Return the interest, 0 to 1, and the facts behind it, the strongest first.

    Independent signals are joined by a noisy-or, ``1 - prod(1 - s)``: each raises the interest and
    none alone is certain. Repeat purchases give ``0.9 * n / (n + 1)`` for n purchases, a recently
    touched product 0.5, category and brand half of their share of the shopper's behaviour.
    """
    signals: list[tuple[float, str]] = []
    for repeat in profile.repeat_purchases:
        if repeat.product_id == product.product_id:
            strength = _BOUGHT_AGAIN * repeat.count / (repeat.count + 1)
            signals.append((strength, f"bought {repeat.count} times"))
    for item in profile.recent_items:
        if item.product_id == product.product_id:
            signals.append((_TOUCHED_LATELY, f"lately: {item.kind}"))
    signals += _taste(profile.affinities, product)
    missing = 1.0
    for strength, _ in signals:
        missing *= 1 - strength
    signals.sort(key=lambda signal: -signal[0])
    return 1 - missing, tuple(fact for _, fact in signals)


def _taste(affinities: tuple[Affinity, ...], product: Product) -> list[tuple[float, str]]:
    paths = category_paths(product.category)
    brand = (product.brand or "").casefold()
    categories = [
        affinity
        for affinity in affinities
        if affinity.kind == "category" and affinity.name.casefold() in paths
    ]
    signals: list[tuple[float, str]] = []
    if categories:
        # The paths lie inside one another: counting more than the narrowest would count twice.
        narrowest = max(categories, key=lambda affinity: len(affinity.name))
        signals.append((_CATEGORY * narrowest.weight, f"category {narrowest.name}"))
    signals += [
        (_BRAND * affinity.weight, f"brand {affinity.name}")
        for affinity in affinities
        if affinity.kind == "brand" and affinity.name.casefold() == brand
    ]
    return signals
