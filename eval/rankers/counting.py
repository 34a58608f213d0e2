"""Rankers that count or compare, without a language model."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eval.cases.values import Case
from eval.rankers.bench import Bench
from eval.rankers.ranked import Ranked, best_first
from eval.statistics.estimates import Floats, Integers
from reranker.interest import Interest

Scorer = Callable[[Case, Integers], Floats]
"""Scores products of a case, given by their rows of the table."""


@dataclass(frozen=True)
class ScoringRanker:
    """Orders by a score; ties by `tie_breakers`. Without candidates it scores every product."""

    bench: Bench
    score: Scorer
    interest: bool = False
    concurrency: int = 1

    def rank(self, case: Case) -> Ranked:
        """Return the candidates by their score."""
        bench = self.bench
        rows = bench.rows(case)
        scores = self.score(case, rows)
        order = best_first(scores, bench.ties(case, rows))
        if case.candidates is None:
            order = order[: bench.depth]
            ids = tuple(bench.table.product_ids(rows[order]))
        else:
            ids = tuple(case.candidates[place] for place in order)
        values = tuple(scores[order].tolist())
        return Ranked(product_ids=ids, scores=values, interest=self.interest)


@dataclass(frozen=True)
class AsGiven:
    """Keeps the order of the cases file: the shop's own, where candidates are what it showed."""

    bench: Bench
    concurrency: int = 1

    def rank(self, case: Case) -> Ranked:
        """Return the candidates as they are; without any, what recall finds."""
        return Ranked(product_ids=case.candidates or self.bench.candidates(case))


def random_order(bench: Bench) -> ScoringRanker:
    """Rank by nothing, so that only the tie breakers order."""
    return ScoringRanker(bench, lambda _, rows: np.zeros(len(rows)))


def as_given(bench: Bench) -> AsGiven:
    """Rank as the file does."""
    return AsGiven(bench)


def popularity(bench: Bench) -> ScoringRanker:
    """Rank by the number of shoppers who bought a product."""
    return ScoringRanker(bench, lambda _, rows: bench.past.popularity[rows])


def cooccurrence(bench: Bench) -> ScoringRanker:
    """Rank by item cosine with the latest of the history, then by popularity.

    Products that were never bought with any of these all score alike: among them popularity
    decides, as a share that never outweighs the smallest cosine.
    """
    past, latest = bench.past, bench.settings.evaluation.history

    def score(case: Case, rows: Integers) -> Floats:
        together = past.cooccurrence(bench.history_rows(case)[-latest:])[rows]
        return _then(together, past.popularity[rows])

    return ScoringRanker(bench, score)


def transitions(bench: Bench) -> ScoringRanker:
    """Rank by how many bought it right after the last of the history, then by co-occurrence."""
    past, latest = bench.past, bench.settings.evaluation.history

    def score(case: Case, rows: Integers) -> Floats:
        history = bench.history_rows(case)
        if not len(history):
            return past.popularity[rows]
        together = past.cooccurrence(history[-latest:])[rows]
        following = past.transitions(int(history[-1]))[rows]
        return _then(following, _then(together, past.popularity[rows]))

    return ScoringRanker(bench, score)


def own_history(bench: Bench) -> ScoringRanker:
    """Rank by how often the shopper chose it, then by popularity."""

    def score(case: Case, rows: Integers) -> Floats:
        counts = Counter(bench.history_rows(case).tolist())
        own = np.array([counts[row] for row in rows.tolist()], np.float64)
        return _then(own, bench.past.popularity[rows])

    return ScoringRanker(bench, score)


def interest(bench: Bench) -> ScoringRanker:
    """Rank by the interest learned from the known purchases.

    Where too few are known it is that of the profile's rule.
    """
    model = bench.interest_model
    if model is None:
        return interest_of_profile(bench)

    def score(case: Case, rows: Integers) -> Floats:
        return model.of(bench.history_rows(case), rows)

    return ScoringRanker(bench, score, interest=True)


def interest_of_profile(bench: Bench) -> ScoringRanker:
    """Rank by the hand-set interest of the profile, 0 for a shopper without one."""

    def score(case: Case, rows: Integers) -> Floats:
        profile = bench.profiles.of(case)
        if profile is None:
            return np.zeros(len(rows))
        own = Interest(profile)
        whole = case.candidates is None
        products = bench.catalogue if whole else bench.table.products(rows)
        return np.array([own.of(product)[0] for product in products])

    return ScoringRanker(bench, score, interest=True)


def _then(first: Floats, second: Floats) -> Floats:
    """Return scores that order by the first, and among its equals by the second.

    Dense ranks: exact, whatever the sizes of the two.
    """
    _, places = np.unique(first, return_inverse=True)
    _, within = np.unique(second, return_inverse=True)
    top = float(within.max(initial=0)) + 1.0
    return places.astype(np.float64) + within / top
