"""A teacher that grades every candidate of a list by what is popular, bought together, and alike.

One purchase tells of one product in twenty. The counts of all purchases tell something of each:
their scores, learnt from beside the purchases themselves, are twenty targets a list (distillation,
Hinton et al. 2015, arXiv 1503.02531).

The score of a candidate is a conditional logit over a few counts, so that the softmax over a list
is the probability of being the one bought. Its weights are fitted to purchases.
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.errors import DataError
from reranker.training.purchases import Purchase

Floats = npt.NDArray[np.float64]
FEATURES = ("popularity", "together", "latest", "second", "words", "alike")
"""Logarithms of the number of buyers, of the cosine similarity with the history, with its latest
product, and over one product in between; overlap of title words with the history, and with its most
similar product."""

_NEVER = 1e-3
"""Stands for a similarity of 0, whose logarithm there is none; below what one purchase makes."""

_WORD = re.compile(r"\w+")


class CountingTeacher:
    """Grades candidates by counts over histories of purchases, and by words of titles."""

    def __init__(
        self,
        product_ids: Sequence[str],
        titles: Sequence[str],
        histories: Sequence[Sequence[str]],
        *,
        recent: int = 10,
    ) -> None:
        """Count.

        Args:
            product_ids: all products.
            titles: theirs.
            histories: what each shopper bought; they must not hold the targets to be judged.
            recent: newest products of a history that are looked at.
        """
        from scipy import sparse

        self._row = {product: row for row, product in enumerate(product_ids)}
        self._recent = recent
        users, rows = self._places(histories)
        shape = (len(histories), len(product_ids))
        bought = sparse.csr_matrix((np.ones(len(rows)), (users, rows)), shape=shape)
        bought.data[:] = 1  # bought twice is bought
        buyers: Floats = np.asarray(bought.sum(axis=0), np.float64).ravel()
        norm = sparse.diags(1 / np.sqrt(np.maximum(buyers, 1)))
        self._cosine: Any = (norm @ (bought.T @ bought) @ norm).tocsr()
        self._others: Any = self._cosine.copy()
        self._others.setdiag(0)
        self._log_buyers = np.log1p(buyers)
        self._words = _word_vectors(titles)
        self.weights: Floats = np.array([0.5, 0.5, 0.0, 0.0, 1.0, 0.0])

    def fit(self, lists: Sequence[tuple[Purchase, Sequence[str]]]) -> dict[str, float]:
        """Choose the weights that make the targets of lists the likeliest, and keep them.

        Args:
            lists: a purchase, and its candidates of which the first is the target.

        Returns:
            The weights by name.

        Raises:
            DataError: there are none.
        """
        from scipy.optimize import minimize
        from scipy.special import logsumexp

        if not lists:
            raise DataError("a teacher needs purchases to be fitted to")
        width = min(len(candidates) for _, candidates in lists)
        features = np.stack([self._features(p.history, c[:width]) for p, c in lists])

        def loss(weights: Floats) -> tuple[float, Floats]:
            scores = features @ weights
            total = logsumexp(scores, axis=1, keepdims=True)
            expected = np.exp(scores - total)[:, :, None] * features
            slope = np.mean(expected.sum(axis=1) - features[:, 0], axis=0) + 1e-3 * weights
            value = np.mean(total[:, 0] - scores[:, 0]) + 5e-4 * float(weights @ weights)
            return float(value), slope

        self.weights = np.asarray(minimize(loss, self.weights, jac=True).x, np.float64)
        return dict(zip(FEATURES, self.weights.tolist(), strict=True))

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> tuple[float, ...]:
        """Return one score a candidate; a softmax makes them probabilities."""
        found: Floats = self._features(history, candidates) @ self.weights
        return tuple(found.tolist())

    def _features(self, history: Sequence[str], candidates: Sequence[str]) -> Floats:
        """Return `FEATURES` of each candidate; shape (candidates, features)."""
        found = np.zeros((len(candidates), len(FEATURES)))
        found[:, 1:4] = math.log(_NEVER)
        known = [place for place, product in enumerate(candidates) if product in self._row]
        columns = np.array([self._row[candidates[place]] for place in known], np.int64)
        rows = [self._row[p] for p in dict.fromkeys(reversed(history)) if p in self._row]
        rows = rows[: self._recent]
        found[known, 0] = self._log_buyers[columns]
        if not rows or not known:
            return found
        summed = np.asarray(self._cosine[rows].sum(axis=0)).ravel()
        once = np.asarray(self._others[rows].sum(axis=0)).ravel()
        latest = self._cosine[rows[0]].toarray().ravel()
        overlap = (self._words[columns] @ self._words[rows].T).toarray()
        found[known, 1] = np.log(summed[columns] + _NEVER)
        found[known, 2] = np.log(latest[columns] + _NEVER)
        found[known, 3] = np.log(self._others[columns] @ once + _NEVER)
        found[known, 4] = overlap.sum(axis=1)
        found[known, 5] = overlap.max(axis=1)
        return found

    def _places(
        self, histories: Sequence[Sequence[str]]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        pairs = [
            (user, self._row[product])
            for user, history in enumerate(histories)
            for product in history
            if product in self._row
        ]
        places = np.array(pairs, np.int64).reshape(-1, 2)
        return places[:, 0], places[:, 1]


def _word_vectors(titles: Sequence[str]) -> Any:
    """Return a sparse matrix with a row a title: its words, rare ones counting more, length 1."""
    from scipy import sparse

    words = [set(_WORD.findall(title.casefold())) for title in titles]
    counts = Counter(word for found in words for word in found)
    columns = {word: place for place, word in enumerate(sorted(counts))}
    cells = [
        (row, columns[word], math.log(len(titles) / counts[word]))
        for row, found in enumerate(words)
        for word in sorted(found)
    ]
    table = np.array(cells).reshape(-1, 3)
    places = (table[:, 0].astype(np.int64), table[:, 1].astype(np.int64))
    shape = (len(titles), max(len(columns), 1))
    matrix = sparse.csr_matrix((table[:, 2], places), shape=shape)
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1))).ravel()
    return (sparse.diags(1 / np.maximum(length, 1e-9)) @ matrix).tocsr()
