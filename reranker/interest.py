"""How much speaks for a product, without the language model.

Used for the fallback order and, with a weight, for the blend. A hand-set rule over the profile
needs nothing to learn from; where the shop's behaviour has been learnt from (`learned_interest`),
the rule adds to that.
"""

import math
from typing import NamedTuple

from reranker.schema import (
    Affinity,
    AffinityKind,
    EventKind,
    Product,
    ProductInterest,
    RepeatPurchase,
    UserProfile,
    category_paths,
)

_BOUGHT_AGAIN = 0.9
_NOT_YET_DUE = 0.8
_NO_LONGER = 0.4
_TOUCHED_LATELY = 0.5
_CATEGORY = 0.5
_BRAND = 0.5
_RULE = 2.0
_SOFTENED = 2.0


_Signal = tuple[float, str]
_Strength = tuple[float, tuple[str, ...]]
"""0 to 1, and the facts behind it, the strongest first."""


class _Tastes(NamedTuple):
    signals: list[_Signal]
    joined: _Strength


class Interest:
    """The interest of one shopper, made once for a request and asked of each product."""

    def __init__(self, profile: UserProfile | None) -> None:
        """Take what is known of the shopper; None of an anonymous one."""
        self._rule = _Rule(profile) if profile is not None else None

    def of(
        self, product: Product, learned: ProductInterest | None = None
    ) -> tuple[float, tuple[str, ...]]:
        """Return the interest, 0 to 1, and the facts behind it, the strongest first.

        Without anything learned it is what the rule says, see `_Rule`. Else it is
        ``1 / (1 + exp(-(odds + 2 * rule) / 2))``: learned log-odds, to which the rule, 0 to 1,
        adds what purchases do not tell (looks, carts, categories, what is due again). The halving
        keeps products apart of which none is likely. What was sent back is of no interest.
        """
        strength, facts = self._rule.of(product) if self._rule else (0.0, ())
        if learned is None or strength is None:
            return strength or 0.0, facts
        if learned.goes_with:
            facts += (f"goes with {learned.goes_with}",)
        odds = learned.odds + _RULE * strength
        if learned.sales is not None:
            facts += (f"sales {learned.sales} of 9",)
        return 1 / (1 + math.exp(-odds / _SOFTENED)), facts


class _Rule:
    """The hand-set rule over a profile."""

    def __init__(self, profile: UserProfile) -> None:
        self._repeats = {
            repeat.product_id: _repeat_signal(repeat, profile)
            for repeat in profile.repeat_purchases
        }
        self._purchases = profile.purchases
        bought = sum(profile.purchases.values())
        self._again = 1 - len(profile.purchases) / bought if bought else 0.0
        self._returned = frozenset(item.product_id for item in profile.returned_items)
        self._recent = {item.product_id: item.kind for item in profile.recent_items}
        self._brands = _by_name(profile.affinities, "brand")
        self._categories = _by_name(profile.affinities, "category")
        # A query's candidates share few categories and brands.
        self._asked: dict[tuple[str | None, str | None], _Tastes] = {}

    def of(self, product: Product) -> tuple[float | None, tuple[str, ...]]:
        """Return the strength, 0 to 1, and the facts behind it, the strongest first.

        Independent signals are joined by a noisy-or, ``1 - prod(1 - s)``: each raises the interest
        and none alone is certain. Repeat purchases give ``0.9 * n / (n + 1)`` for n purchases, of
        that 0.8 while it is too early to buy again and 0.4 when the rhythm has ended; what was
        looked at, clicked, or put aside lately gives 0.5, category and brand half of their share of
        the shopper's behaviour. What was bought once counts as half a repeat purchase does, as far
        as the shopper buys things again: times the share of the purchases that were of products
        bought before; that it was lately speaks for nothing.
        None stands for what was sent back.
        """
        product_id = product.product_id
        if product_id in self._returned:
            return None, ("sent back",)
        tastes = self._tastes(product.category, product.brand)
        signals: list[_Signal] = []
        if repeat := self._repeats.get(product_id):
            signals.append(repeat)
        elif bought := self._purchases.get(product_id):
            signals.append(self._bought(bought))
        kind = self._recent.get(product_id)
        if kind is not None and kind is not EventKind.PURCHASE:
            signals.append((_TOUCHED_LATELY, f"lately: {kind}"))
        return _joined([*signals, *tastes.signals]) if signals else tastes.joined

    def _tastes(self, category: str | None, brand: str | None) -> _Tastes:
        """Return what speaks for all products of a category and a brand."""
        known = self._asked.get((category, brand))
        if known is None:
            signals: list[_Signal] = []
            if affinity := self._narrowest(category):
                signals.append((_CATEGORY * affinity.weight, f"category {affinity.name}"))
            if affinity := self._brands.get((brand or "").casefold()):
                signals.append((_BRAND * affinity.weight, f"brand {affinity.name}"))
            known = self._asked[category, brand] = _Tastes(signals, _joined(signals))
        return known

    def _bought(self, times: int) -> _Signal:
        """Return the signal of a product that is not among the repeat purchases named."""
        if times > 1:
            return _BOUGHT_AGAIN * times / (times + 1), f"bought {times} times"
        return _BOUGHT_AGAIN / 2 * self._again, "bought once"

    def _narrowest(self, category: str | None) -> Affinity | None:
        """Return the affinity to the narrowest category around; more would count twice."""
        paths = reversed(category_paths(category))
        return next((self._categories[path] for path in paths if path in self._categories), None)


def _joined(signals: list[_Signal]) -> _Strength:
    if not signals:
        return 0.0, ()
    strengths, facts = zip(*sorted(signals, key=lambda signal: -signal[0]), strict=True)
    return 1 - math.prod(1 - strength for strength in strengths), facts


def _repeat_signal(repeat: RepeatPurchase, profile: UserProfile) -> _Signal:
    strength = _BOUGHT_AGAIN * repeat.count / (repeat.count + 1)
    fact = f"bought {repeat.count} times"
    if not profile.timed or repeat.rhythm is None:
        return strength, fact
    if repeat.is_due(profile.as_of):
        return strength, f"{fact}, due again"
    ended = repeat.has_ended(profile.as_of)
    return strength * (_NO_LONGER if ended else _NOT_YET_DUE), fact


def _by_name(affinities: tuple[Affinity, ...], kind: AffinityKind) -> dict[str, Affinity]:
    return {a.name.casefold(): a for a in affinities if a.kind == kind}
