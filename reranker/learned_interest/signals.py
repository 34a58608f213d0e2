"""What speaks for a product, given what a shopper chose before: the inputs of the model."""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from reranker.learned_interest import counting
from reranker.learned_interest.choices import Choices, Integers
from reranker.learned_interest.counting import Floats, Reals
from reranker.ports import Progress, no_progress

NAMES = (
    "popularity",
    "popularity for a short history",
    "bought with the latest: sum",
    "bought with the latest: the last",
    "bought with the latest: strongest",
    "bought with the latest: fading",
    "bought next after the last",
    "bought next after the latest",
    "alike in factors: mean",
    "alike in factors: closest",
    "alike in factors: the last",
    "alike in factors: fading",
    "alike in words: mean",
    "alike in words: closest",
    "alike in words: the last",
    "chosen before",
)
LATEST = 10
_FADING = 0.8


@dataclass(frozen=True)
class Signals:
    """Counts over choices and words of N products, as signals by history and product.

    Attributes:
        popularity: shoppers who chose each product, shape (N,).
        together: sparse, how closely products go together; see `counting.neighbours`.
        follows: sparse, how many chose the second right after the first.
        factors: of each product, shape (N, F).
        words: of each product, sparse; see `word_vectors`.
    """

    popularity: Floats
    together: Any
    follows: Any
    factors: Reals
    words: Any

    @classmethod
    def count(
        cls,
        choices: Choices,
        words: Any,
        *,
        asked_of: Integers | None = None,
        seed: int = 0,
        progress: Progress = no_progress,
        stage: str = "counting",
    ) -> Self:
        """Count over choices.

        Args:
            choices: what is known.
            words: of each product, see `word_vectors`.
            asked_of: products that histories will hold, where no others are; None: any.
            seed: of the factors' start.
            progress: told how many products are counted.
            stage: what it is told.
        """
        bought = counting.bought(choices)
        popularity = np.asarray(bought.sum(axis=0), np.float64).ravel()
        rows = np.arange(len(popularity)) if asked_of is None else np.unique(asked_of)
        return cls(
            popularity=popularity,
            together=counting.neighbours(bought, popularity, rows, progress=progress, stage=stage),
            follows=counting.follows(choices),
            factors=counting.factors(bought, popularity, np.random.default_rng(seed)),
            words=words,
        )

    def of(self, histories: tuple[Integers, ...], products: Integers) -> Floats:
        """Return the signals of some products for each history.

        Of a history the latest ten different products count, and how often each was chosen.

        Args:
            histories: M histories, oldest first.
            products: shape (M, C).

        Returns:
            Shape (M, C, len(NAMES)).
        """
        if not histories:
            return np.empty((*products.shape, len(NAMES)))
        pairs = zip(histories, products, strict=True)
        return np.stack([self._one(history, asked) for history, asked in pairs])

    def closest(self, history: Integers, products: Integers) -> tuple[Integers, Floats]:
        """Return of each product what it goes with most closely of the latest, and how closely.

        The numbers are those of products; -1 where it goes with none.
        """
        latest = latest_of(history)
        if not len(latest):
            return np.full(len(products), -1), np.zeros(len(products))
        together = counting.block(self.together, latest, products)
        together[latest[:, None] == products[None, :]] = 0.0  # nothing goes with itself
        strongest = together.argmax(axis=0)
        values = together[strongest, np.arange(len(products))]
        return np.where(values > 0, latest[strongest], -1), values

    def _one(self, history: Integers, products: Integers) -> Floats:
        latest = latest_of(history)
        popularity = np.log1p(self.popularity[products])
        own = np.log1p(_times(history, products))
        if not len(latest):
            nothing = np.zeros(len(products))
            known = [popularity, popularity * np.log1p(1), *[nothing] * (len(NAMES) - 3), own]
            return np.stack(known, axis=-1)
        fading = _FADING ** np.arange(len(latest))[::-1]
        together = counting.block(self.together, latest, products)
        after = counting.block(self.follows, latest, products)
        factors = (self.factors[latest] @ self.factors[products].T).astype(np.float64)
        words = counting.products_of_rows(self.words, latest, products)
        return np.stack(
            [
                popularity,
                popularity * np.log1p(len(latest)),
                np.sqrt(together.sum(axis=0)),
                np.sqrt(together[-1]),
                np.sqrt(together.max(axis=0)),
                np.sqrt(fading @ together),
                np.log1p(after[-1]),
                np.log1p(after.sum(axis=0)),
                factors.mean(axis=0),
                factors.max(axis=0),
                factors[-1],
                fading @ factors / fading.sum(),
                words.mean(axis=0),
                words.max(axis=0),
                words[-1],
                own,
            ],
            axis=-1,
        )


def _times(history: Integers, products: Integers) -> Integers:
    """Return how often a history holds each product."""
    known, times = np.unique(history, return_counts=True)
    if not len(known):
        return np.zeros(len(products), np.int64)
    places = np.minimum(np.searchsorted(known, products), len(known) - 1)
    return np.where(known[places] == products, times[places], 0)


def latest_of(history: npt.ArrayLike) -> Integers:
    """Return the latest ten different products of a history, the oldest of them first."""
    newest = np.asarray(history, np.int64)[::-1]
    distinct = list(dict.fromkeys(newest.tolist()))[:LATEST]
    return np.array(distinct[::-1], np.int64)
