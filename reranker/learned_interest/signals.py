"""What speaks for a product, given what a shopper chose before: the inputs of the model."""

from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.learned_interest.choices import Choices, Integers

Floats = npt.NDArray[np.float64]

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
_OWN = 200
_FADING = 0.8
_FACTORS = 48
_SPARE = 8
_ROUNDS = 3
_DAMPING = 0.3
_AT_ONCE = 64


class Signals:
    """Counts over choices and words of products, as signals by history and product."""

    def __init__(self, choices: Choices, words: Any, *, seed: int = 0) -> None:
        """Count.

        Args:
            choices: what is known.
            words: of each product, see `word_vectors`.
            seed: of the factors' start.
        """
        from scipy.sparse import csr_matrix

        users, count = np.unique(choices.user, return_inverse=True)
        size = choices.products
        bought = csr_matrix(
            (np.ones(len(count)), (count, choices.product)), shape=(len(users), size)
        )
        bought.data[:] = 1.0  # of distinct shoppers: many purchases by one are one
        self._words = words
        self._bought = bought
        self._by_product = bought.T.tocsr()
        self._popularity = np.asarray(bought.sum(axis=0), np.float64).ravel()
        self._follows = _follows(choices, size)
        self._factors = _factors(bought, self._popularity, np.random.default_rng(seed))

    def of(self, histories: tuple[Integers, ...], products: Integers) -> Floats:
        """Return the signals of some products for each history.

        Args:
            histories: M histories, oldest first.
            products: shape (M, C).

        Returns:
            Shape (M, C, len(NAMES)).
        """
        parts = [
            self._some(histories[start : start + _AT_ONCE], products[start : start + _AT_ONCE])
            for start in range(0, len(histories), _AT_ONCE)
        ]
        return np.concatenate(parts) if parts else np.empty((*products.shape, len(NAMES)))

    def _some(self, histories: tuple[Integers, ...], products: Integers) -> Floats:
        latest = np.full((len(histories), LATEST), -1, np.int64)
        for row, history in enumerate(histories):
            if kept := len(history[-LATEST:]):
                latest[row, -kept:] = history[-LATEST:]
        there = latest >= 0
        count = np.maximum(there.sum(axis=1), 1)[:, None]
        past = np.where(there, latest, 0)
        fading = np.where(there, _FADING ** np.arange(LATEST)[::-1], 0.0)
        popularity = np.log1p(self._popularity[products])
        together = self._together(past, there, products)
        follows = _values(self._follows, past, products) * there[:, :, None]
        factors = self._factors[past] @ self._factors[products].swapaxes(1, 2)
        factors *= there[:, :, None]
        words = self._in_words(past, products) * there[:, :, None]
        weight = np.maximum(fading.sum(axis=1), 1e-9)[:, None]
        return np.stack(
            [
                popularity,
                popularity * np.log1p(count),
                np.sqrt(together.sum(axis=1)),
                np.sqrt(together[:, -1]),
                np.sqrt(together.max(axis=1)),
                np.sqrt((together * fading[:, :, None]).sum(axis=1)),
                np.log1p(follows[:, -1]),
                np.log1p(follows.sum(axis=1)),
                factors.sum(axis=1) / count,
                factors.max(axis=1),
                factors[:, -1],
                (factors * fading[:, :, None]).sum(axis=1) / weight,
                words.sum(axis=1) / count,
                words.max(axis=1),
                words[:, -1],
                _own(histories, products),
            ],
            axis=-1,
        )

    def _together(self, past: Integers, there: npt.NDArray[np.bool_], products: Integers) -> Floats:
        """Return the cosine of the columns of shoppers, shape (M, LATEST, C)."""
        distinct, place = np.unique(past, return_inverse=True)
        both = (self._by_product[distinct] @ self._bought).tocsr()
        both.sort_indices()
        counts = _values(both, place.reshape(past.shape), products)
        own, others = self._popularity[past][:, :, None], self._popularity[products][:, None, :]
        scaled: Floats = counts / np.sqrt(np.maximum(own * others, 1.0))
        return scaled * there[:, :, None]

    def _in_words(self, past: Integers, products: Integers) -> Floats:
        if len(past) == 1:
            return _dense(self._words[past[0]] @ self._words[products[0]].T)[None]
        first = np.repeat(past[:, :, None], products.shape[1], axis=2)
        second = np.repeat(products[:, None, :], past.shape[1], axis=1)
        alike = self._words[first.ravel()].multiply(self._words[second.ravel()]).sum(axis=1)
        return np.asarray(alike, np.float64).reshape(first.shape)


def _values(matrix: Any, past: Integers, products: Integers) -> Floats:
    """Look up (M, L) rows in (M, C) columns, shape (M, L, C)."""
    if len(past) == 1 and 2 * products.shape[1] > matrix.shape[1]:  # by rows, not entry by entry
        return _dense(matrix[past[0]])[None][:, :, products[0]]
    first = np.repeat(past[:, :, None], products.shape[1], axis=2)
    second = np.repeat(products[:, None, :], past.shape[1], axis=1)
    found = np.asarray(matrix[first.ravel(), second.ravel()], np.float64)
    return found.reshape(first.shape)


def _dense(matrix: Any) -> Floats:
    return np.asarray(matrix.toarray(), np.float64)


def _own(histories: tuple[Integers, ...], products: Integers) -> Floats:
    counts = [
        (row[:, None] == history[None, -_OWN:]).sum(axis=1)
        for row, history in zip(products, histories, strict=True)
    ]
    return np.log1p(np.array(counts, np.float64))


def _follows(choices: Choices, size: int) -> Any:
    """Products by products: distinct shoppers who chose the second right after the first."""
    from scipy.sparse import csr_matrix

    same = np.flatnonzero(np.diff(choices.sequence) == 0)
    pairs = [choices.user[same], choices.product[same], choices.product[same + 1]]
    distinct = np.unique(np.column_stack(pairs), axis=0)
    found = csr_matrix(
        (np.ones(len(distinct)), (distinct[:, 1], distinct[:, 2])), shape=(size, size)
    )
    found.sort_indices()
    return found


def _factors(bought: Any, popularity: Floats, rng: np.random.Generator) -> Floats:
    """Return products in factors, rows of length 1 (0 where nobody bought it).

    The right singular vectors of shoppers by products, scaled by their values; long baskets and
    popular products are damped. By randomised subspace iteration (Halko et al. 2011).
    """
    from scipy.sparse import diags

    basket = np.asarray(bought.sum(axis=1), np.float64).ravel()
    even = diags(1 / np.sqrt(np.maximum(basket, 1.0)))
    damped = diags(np.maximum(popularity, 1.0) ** -_DAMPING)
    matrix = (even @ bought @ damped).tocsr()
    kept = min(_FACTORS, *matrix.shape)
    space = rng.standard_normal((matrix.shape[1], min(kept + _SPARE, matrix.shape[1])))
    for _ in range(_ROUNDS):
        space, _ = np.linalg.qr(matrix.T @ (matrix @ space))
    small = matrix @ space
    vectors, squares, _ = np.linalg.svd(small.T @ small)
    found = (space @ vectors)[:, :kept] * np.sqrt(squares[:kept])
    length = np.linalg.norm(found, axis=1, keepdims=True)
    result: Floats = np.divide(found, length, out=np.zeros_like(found), where=length > 1e-9)
    return result
