"""A cross-fitted reward model: the chance of a click on an item in its place.

For doubly robust estimation the model may be crude, but it must not have seen the shopper that it
predicts: shoppers are divided into folds, and each is predicted from the others.
"""

from dataclasses import dataclass

import numpy as np

from eval.logs import LoggedLists
from eval.statistics.estimates import Floats, Integers
from reranker.errors import ConfigError


@dataclass(frozen=True)
class RewardModel:
    """Click rates by query, product and place, for each fold fitted on the other folds.

    Attributes:
        folds: the fold of each logged request.
        queries: the query number of each logged request.
        keys: sorted keys of the (query, product) pairs that were logged.
        products: number of products, which makes up the keys.
        rates: shape (folds, pairs, places).
        unseen: rate of a pair that was never logged, shape (folds, places).
    """

    folds: Integers
    queries: Integers
    keys: Integers
    products: int
    rates: Floats
    unseen: Floats

    def predict(self, request: Integers, product: Integers, position: Integers) -> Floats:
        """Return the expected reward of each row: a request, a product (-1 unknown), a place."""
        fold, place = self.folds[request], np.minimum(position, self.unseen.shape[1]) - 1
        wanted = self.queries[request] * self.products + product
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        known = (self.keys[at] == wanted) & (product >= 0)
        result: Floats = np.where(known, self.rates[fold, at, place], self.unseen[fold, place])
        return result


def fit(
    logs: LoggedLists, *, grade: int = 1, folds: int = 5, strength: float = 10.0, seed: int = 0
) -> RewardModel:
    """Fit click rates with shrinkage, crosswise over folds of shoppers.

    A pair's rate in a place is drawn towards its rate over all places times the place's relative
    rate, and that towards the overall rate, each as if ``strength`` further impressions said so.

    Raises:
        ConfigError: there are fewer shoppers than folds, or fewer than two folds.
    """
    shoppers, codes = np.unique(logs.shoppers, return_inverse=True)
    if not 2 <= folds <= len(shoppers):
        message = f"folds {folds}: choose at least 2 and at most the {len(shoppers)} shoppers"
        raise ConfigError(message)
    fold = (np.random.default_rng(seed).permutation(len(shoppers)) % folds)[codes]
    pairs = logs.queries[logs.request] * len(logs.products) + logs.product
    keys, pair = np.unique(pairs, return_inverse=True)
    shape = (folds, len(keys), int(logs.position.max()))
    cell = np.ravel_multi_index((fold[logs.request], pair, logs.position - 1), shape)
    size = int(np.prod(shape))
    shown = np.bincount(cell, minlength=size).reshape(shape)
    hits = np.bincount(cell, weights=logs.reached(grade), minlength=size).reshape(shape)
    shown, hits = shown.sum(axis=0) - shown, hits.sum(axis=0) - hits
    overall = _shrunk(hits.sum(axis=(1, 2)), shown.sum(axis=(1, 2)), np.full(folds, 0.5), 1.0)
    by_place = _shrunk(hits.sum(axis=1), shown.sum(axis=1), overall[:, None], strength)
    by_pair = _shrunk(hits.sum(axis=2), shown.sum(axis=2), overall[:, None], strength)
    prior = by_pair[:, :, None] * (by_place / overall[:, None])[:, None, :]
    return RewardModel(
        folds=fold.astype(np.int64),
        queries=logs.queries,
        keys=keys.astype(np.int64),
        products=len(logs.products),
        rates=_shrunk(hits, shown, np.minimum(prior, 1.0), strength),
        unseen=by_place,
    )


def _shrunk(hits: Floats, shown: Floats, prior: Floats, strength: float) -> Floats:
    return (hits + strength * prior) / (shown + strength)
