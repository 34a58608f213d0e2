"""A teacher that grades every candidate of a list by the interest learnt from histories.

One purchase tells of one product in twenty. What all shoppers bought before tells something of
each: scores learnt from it are twenty targets a list (distillation, Hinton et al. 2015, arXiv
1503.02531).
"""

from collections.abc import Sequence

import numpy as np

from reranker.learned_interest import Choices, InterestModel, learn
from reranker.ports import Progress, no_progress


class InterestTeacher:
    """Grades candidates by how much a shopper's history speaks for them."""

    def __init__(self, product_ids: Sequence[str], model: InterestModel) -> None:
        """Take what was learnt.

        Args:
            product_ids: all products, in the model's order.
            model: their interest.
        """
        self._number = {product: number for number, product in enumerate(product_ids)}
        self._model = model

    @classmethod
    def learn(
        cls,
        product_ids: Sequence[str],
        texts: Sequence[str],
        histories: Sequence[Sequence[str]],
        *,
        seed: int = 0,
        progress: Progress = no_progress,
    ) -> "InterestTeacher | None":
        """Learn from what shoppers bought; None where too few bought two products.

        Args:
            product_ids: all products.
            texts: of each, such as title, brand and category.
            histories: what each shopper bought, oldest first; they must not hold the targets to
                be judged.
            seed: of the draws.
            progress: told when it begins and ends.
        """
        progress("learning the teacher", 0, 1)
        number = {product: place for place, product in enumerate(product_ids)}
        pairs = [
            (shopper, number[product])
            for shopper, history in enumerate(histories)
            for product in history
            if product in number
        ]
        shoppers, products = np.array(pairs, np.int64).reshape(-1, 2).T
        choices = Choices.of(shoppers, shoppers, products, len(product_ids))
        model = learn(choices, texts, seed=seed)
        progress("learning the teacher", 1, 1)
        return cls(product_ids, model) if model is not None else None

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> tuple[float, ...]:
        """Return one score a candidate, its log-odds; a softmax makes them probabilities.

        Candidates must be among the products; what else a history holds is passed over.
        """
        known = [self._number[product] for product in history if product in self._number]
        asked = [self._number[product] for product in candidates]
        found = self._model.odds(np.array(known, np.int64), np.array(asked, np.int64))
        return tuple(found.tolist())
