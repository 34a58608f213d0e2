"""Products that a shopper could have bought and did not: the negatives of a training list.

Random ones teach what is popular; popular ones, ones of the target's category and ones that recall
finds for the same shopper teach what this shopper wants. A list mixes them by weights.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Self

from pydantic import Field

from reranker.errors import ConfigError, DataError
from reranker.schema import Value
from reranker.settings import TrainingSettings
from reranker.training.purchases import Purchase

Hard = Callable[[Purchase, int], Sequence[str]]
"""Returns at most so many products that recall finds for a purchase's query and history."""

_TRIES = 20
_RECALLED = 100


class NegativeMix(Value):
    """Weights by which the kinds of negatives are drawn.

    Attributes:
        random: any product, each as likely.
        popular: any product, as likely as it is bought.
        category: of the category of the target.
        recalled: what recall finds for the same shopper.
    """

    random: float = Field(1.0, ge=0)
    popular: float = Field(0.0, ge=0)
    category: float = Field(0.0, ge=0)
    recalled: float = Field(0.0, ge=0)

    @classmethod
    def of(cls, settings: TrainingSettings) -> Self:
        """Return the mix that settings name."""
        return cls(
            random=settings.random_negatives,
            popular=settings.popular_negatives,
            category=settings.category_negatives,
        )


class NegativeSampler:
    """Draws negatives. It holds no random state: the caller's generator decides everything."""

    def __init__(
        self,
        product_ids: Sequence[str],
        mix: NegativeMix,
        *,
        histories: Iterable[Sequence[str]] = (),
        categories: Mapping[str, str] | None = None,
        recall: Hard | None = None,
        bar_history: bool = True,
    ) -> None:
        """Count what the mix needs.

        Args:
            product_ids: all products, in an order that never changes.
            mix: the weights. Where a kind has nothing to offer, random ones take its place.
            histories: purchases to count the popular ones from.
            categories: of products by id.
            recall: finds the recall-hard ones.
            bar_history: whether what was bought before is never a negative. Where things are bought
                again and again, what was not bought again this time is the hardest of all.

        Raises:
            ConfigError: every weight is 0, or recall has a weight and is not given.
            DataError: there are fewer than two products.
        """
        if len(product_ids) < 2:
            raise DataError("negatives need a catalogue of at least two products")
        weights = mix.model_dump()
        if not any(weights.values()):
            raise ConfigError("training.negatives: at least one weight has to be above 0")
        if mix.recalled and recall is None:
            raise ConfigError("training.negatives.recalled: there is no index to recall from")
        self._ids = list(product_ids)
        self._kinds, self._weights = list(weights), list(weights.values())
        self._recall = recall
        self._bar_history = bar_history
        known = set(self._ids)
        counts = Counter(p for history in histories for p in history if p in known)
        self._popular = sorted(counts)
        self._popular_weights = list(accumulate(counts[p] for p in self._popular))
        self._category = dict(categories or {})
        self._of_category: dict[str, list[str]] = defaultdict(list)
        for product in self._ids:
            if product in self._category:
                self._of_category[self._category[product]].append(product)

    def draw(self, purchase: Purchase, count: int, generator: random.Random) -> tuple[str, ...]:
        """Return so many different products, none of them bought.

        Fewer where the catalogue has no more.

        Args:
            purchase: whose target, and what was bought along or before, are excluded.
            count: wanted.
            generator: of random numbers.
        """
        barred = {purchase.target, *purchase.along}
        if self._bar_history:
            barred.update(purchase.history)
        hard = self._hard(purchase, barred, generator)
        chosen = []
        for kind in generator.choices(self._kinds, self._weights, k=count):
            found = self._one(kind, purchase, hard, barred, generator)
            if found is not None:
                chosen.append(found)
                barred.add(found)
        return tuple(chosen)

    def _hard(
        self, purchase: Purchase, barred: Collection[str], generator: random.Random
    ) -> list[str]:
        if self._recall is None or not self._weights[self._kinds.index("recalled")]:
            return []
        found = [p for p in self._recall(purchase, _RECALLED) if p not in barred]
        generator.shuffle(found)
        return found

    def _one(
        self,
        kind: str,
        purchase: Purchase,
        hard: list[str],
        barred: Collection[str],
        generator: random.Random,
    ) -> str | None:
        pools: dict[str, Callable[[], str]] = {"random": lambda: generator.choice(self._ids)}
        same = self._of_category.get(self._category.get(purchase.target, ""), ())
        if self._popular:
            pools["popular"] = lambda: generator.choices(
                self._popular, cum_weights=self._popular_weights
            )[0]
        if len(same) > 1:
            pools["category"] = lambda: generator.choice(same)
        if hard:
            pools["recalled"] = lambda: hard.pop() if hard else generator.choice(self._ids)
        for pool in (pools.get(kind, pools["random"]), pools["random"]):
            for _ in range(_TRIES):
                product = pool()
                if product not in barred:
                    return product
        left = [product for product in self._ids if product not in barred]
        return generator.choice(left) if left else None
