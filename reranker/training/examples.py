"""Lists to learn from, made of purchases.

A purchase becomes a list: the product that was bought among products that were not, together with
what was known of the shopper before. The list says nothing of what came later: the profile is made
of the purchase's own history alone.
"""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from pydantic import Field, FiniteFloat

from reranker.cards import Told
from reranker.errors import DataError
from reranker.schema import Candidate, Language, Product, SearchRequest, Value
from reranker.training.hostile import hostile
from reranker.training.negatives import NegativeSampler
from reranker.training.purchases import Purchase

NO_TIME = datetime(2000, 1, 1, tzinfo=UTC)
"""Stands for the moment of a purchase of which only the order is known."""

ToldOf = Callable[[Purchase, Language], Told | None]
"""Returns what is told of a shopper, from what had happened before a purchase; None: nothing."""

SalesOf = Callable[[Purchase, Sequence[str]], Sequence[int | None]]
"""Returns how much products had sold before a purchase, as `Candidate.sales` says it."""

LanguageOf = Callable[[Purchase], Language]
"""Returns the language of a purchase's prompt."""

Products = Callable[[Sequence[str]], Sequence[Product | None]]
"""Returns the products of some ids, None where the catalogue has none."""


class Logged(Value):
    """What a log tells of the product that was shown first.

    Attributes:
        place: of that product among the candidates, from 0.
        propensity: probability with which the policy put it first.
    """

    place: int = Field(ge=0)
    propensity: float = Field(gt=0, le=1)


class TrainingExample(Value):
    """One list to learn from.

    Attributes:
        user_id: of the shopper; it enters no prompt.
        told: of the shopper; None says nothing about anybody.
        request: its query, None for a recommendation.
        candidates: in no order that means anything.
        grades: one a candidate, 0 for what was not bought.
        item_weights: of each candidate in the loss, where it was wanted; None: all alike.
        teacher: one score a candidate, a softmax of which is what a teacher believes; None where
            there is no teacher.
        logged: None where no propensity was logged.
        weight: of the list in the loss.
    """

    example_id: str
    user_id: str
    told: Told | None
    request: SearchRequest
    candidates: tuple[Candidate, ...]
    grades: tuple[FiniteFloat, ...]
    item_weights: tuple[FiniteFloat, ...] | None = None
    teacher: tuple[FiniteFloat, ...] | None = None
    logged: Logged | None = None
    weight: float = Field(1.0, gt=0)


class Teacher(Protocol):
    """Grades candidates for a shopper with a history."""

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> tuple[float, ...]:
        """Return one score a candidate."""
        ...


class ExampleSource(Protocol):
    """Gives lists by number; the same number and visit always give the same list."""

    @property
    def name(self) -> str:
        """What records call it."""
        ...

    def __len__(self) -> int:
        """Return the number of different purchases."""
        ...

    def example(self, row: int, visit: int) -> TrainingExample:
        """Return the list of a purchase; each visit draws other negatives."""
        ...


class PurchaseExamples:
    """An `ExampleSource` over purchases."""

    def __init__(
        self,
        name: str,
        purchases: Sequence[Purchase],
        *,
        products: Products,
        told: ToldOf,
        sales: SalesOf,
        negatives: NegativeSampler,
        candidates: int,
        teacher: Teacher | None = None,
        profile_dropout: float = 0.0,
        sales_dropout: float = 0.0,
        hostile_share: float = 0.0,
        language: LanguageOf = lambda _: "en",
        seed: int = 0,
    ) -> None:
        """Take everything that a list is made of; nothing is computed yet.

        Args:
            name: what records call it.
            purchases: one list each.
            products: looks up candidates.
            told: tells of a shopper.
            sales: tells what sells.
            negatives: draws candidates where a purchase names none.
            candidates: length of a list.
            teacher: grades the candidates.
            profile_dropout: share of lists that say nothing of the shopper, as those of strangers.
            sales_dropout: share of lists that say of no product how much it sells, as where nothing
                has been learnt.
            hostile_share: share of lists in which a product's text asks to be ranked first,
                or looks like scores.
            language: of the prompts; serving must choose the same.
            seed: of all that is drawn.
        """
        self.name = name
        self._purchases = purchases
        self._products = products
        self._told = told
        self._sales = sales
        self._negatives = negatives
        self._candidates = candidates
        self._teacher = teacher
        self._profile_dropout = profile_dropout
        self._sales_dropout = sales_dropout
        self._hostile = hostile_share
        self._language = language
        self._seed = seed

    def __len__(self) -> int:
        return len(self._purchases)

    def logged(self) -> int:
        """Return of how many lists it is known how likely what was shown first was."""
        told = (one for one in self._purchases if one.propensity is not None and one.candidates)
        first = self._products([one.candidates[0] for one in told])
        return sum(product is not None for product in first)

    def example(self, row: int, visit: int) -> TrainingExample:
        """Return the list of a purchase.

        Raises:
            DataError: the catalogue lacks the product that was bought.
        """
        purchase = self._purchases[row]
        name, language = f"{self.name}/{row}/{visit}", self._language(purchase)
        generator = random.Random(f"{self._seed}/{name}")
        told = generator.random() >= self._profile_dropout
        shown = self._shown(purchase, generator)
        ids = [product.product_id for product in shown]
        sales = self._sold(purchase, ids, name)
        candidates = self._persuading(shown, language, generator)
        return TrainingExample(
            example_id=name,
            user_id=purchase.user_id,
            told=self._told(purchase, language) if told else None,
            request=SearchRequest(
                request_id=name,
                query=purchase.query,
                at=purchase.at or NO_TIME,
                language=language,
            ),
            candidates=tuple(
                Candidate(product=product, recall_rank=rank, recall_score=0.0, sales=level)
                for rank, (product, level) in enumerate(
                    zip(candidates, sales, strict=True), start=1
                )
            ),
            grades=_grades(purchase, ids),
            item_weights=_by_candidate(purchase, purchase.item_weights, ids),
            teacher=self._taught(purchase, ids, told=told),
            logged=_logged(purchase, ids),
            weight=purchase.weight,
        )

    def _shown(self, purchase: Purchase, generator: random.Random) -> list[Product]:
        if purchase.candidates:
            ids = list(dict.fromkeys(purchase.candidates))
        else:
            others = self._negatives.draw(purchase, self._candidates - 1, generator)
            ids = [purchase.target, *others]
        found = [product for product in self._products(ids) if product is not None]
        generator.shuffle(found)
        if all(product.product_id != purchase.target for product in found):
            raise DataError(
                f"{self.name}: the product {purchase.target} that was bought is not in the "
                "catalogue, or not among the candidates that the purchase names"
            )
        return found

    def _persuading(
        self, shown: Sequence[Product], language: Language, generator: random.Random
    ) -> list[Product]:
        """Return the products, the text of one of them asking for the first place now and then."""
        candidates = list(shown)
        if self._hostile and generator.random() < self._hostile:
            place = generator.randrange(len(candidates))
            candidates[place] = hostile(candidates[place], language, generator)
        return candidates

    def _sold(self, purchase: Purchase, ids: Sequence[str], name: str) -> Sequence[int | None]:
        # Drawn apart, so that a setting changes nothing but what it is about.
        if random.Random(f"{self._seed}/{name}/sales").random() < self._sales_dropout:
            return (None,) * len(ids)
        return self._sales(purchase, ids)

    def _taught(
        self, purchase: Purchase, ids: Sequence[str], *, told: bool
    ) -> tuple[float, ...] | None:
        scores = _by_candidate(purchase, purchase.scores, ids)
        if scores is not None:
            return scores
        if self._teacher is None:
            return None
        return self._teacher.scores(purchase.history if told else (), ids)


def _grades(purchase: Purchase, ids: Sequence[str]) -> tuple[float, ...]:
    alone = tuple(float(product == purchase.target) for product in ids)
    return _by_candidate(purchase, purchase.grades, ids) or alone


def _by_candidate(
    purchase: Purchase, values: Sequence[float], ids: Sequence[str]
) -> tuple[float, ...] | None:
    """Return what a purchase says of its candidates in another order; None where nothing."""
    if not values:
        return None
    told = dict(zip(purchase.candidates, values, strict=True))
    return tuple(told[product] for product in ids)


def _logged(purchase: Purchase, ids: Sequence[str]) -> Logged | None:
    first = purchase.candidates[0] if purchase.candidates else None
    if purchase.propensity is None or first not in ids:
        return None
    return Logged(place=ids.index(first), propensity=purchase.propensity)
