"""Recall for cases: the order in which candidates would have been found, or the candidates.

Of a case with candidates they are ordered: by the cosine of their vectors to the query's and the
words that they share with it, fused by reciprocal rank; without a query by the cosine to the mean
of the latest of the history; without either at random.

A case without candidates is looked up in the whole catalogue by the code that serves. That takes
profiles, so the language model's tokenizer, and an interest learned from what is known. Where too
little is found, serving fills up in the catalogue's order; here the order is random.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from eval.cases.values import Case
from eval.rankers.ranked import Hashes, best_first
from eval.rankers.vectors import ProductVectors
from eval.statistics.estimates import Floats, Integers
from reranker.look_up import LookUp
from reranker.ports import Progress
from reranker.schema import Filters, SearchRequest
from reranker.settings import RetrievalSettings
from retrieval.embedder import Embedder
from retrieval.hybrid import HybridIndex, build_index
from retrieval.lexical import LexicalIndex
from retrieval.product_table import ProductTable

_EVERYTHING = Filters()
_CACHED_QUERIES = 4096


class Recall:
    """Recall over one catalogue for a set of cases. Nothing is embedded before it is asked for."""

    def __init__(
        self,
        table: ProductTable,
        embedder: Embedder,
        settings: RetrievalSettings,
        work: Path,
        *,
        cases: Sequence[Case],
        latest: int,
        ties: Callable[[Case, Integers], Hashes],
        moment: Callable[[Case], datetime],
        serve: Callable[[HybridIndex], LookUp],
        progress: Progress,
    ) -> None:
        """Take the parts.

        Args:
            table: all products.
            embedder: of products and queries.
            settings: depth and fusion.
            work: folder for vectors and indexes.
            cases: that will be asked about.
            latest: how much of a history is looked at, where candidates are given.
            ties: breaks ties between rows of a case.
            moment: at which a case is asked.
            serve: returns what looks the others up in an index; a shopper goes by the case's id.
            progress: is told of embedding and indexing.
        """
        self._table = table
        self._embedder = embedder
        self._settings = settings
        self._work = work
        self._cases = cases
        self._latest = latest
        self._ties = ties
        self._moment = moment
        self._serve = serve
        self._progress = progress
        self._folders: list[Path] = []
        self._words = lru_cache(_CACHED_QUERIES)(self._search_words)

    def order(self, case: Case) -> tuple[str, ...]:
        """Return the candidates of a case in recall order, or those that recall finds."""
        if case.candidates is None:
            return self._from_catalogue(case)
        rows = self._table.rows_of_ids(case.candidates)
        scores = self._scores(case, rows)
        order = best_first(scores, self._ties(case, rows))
        return tuple(case.candidates[place] for place in order)

    def warm_up(self) -> None:
        """Make all that the cases will need, before several threads ask for it at once."""
        told_last = sorted(self._cases, key=lambda case: bool(case.history))
        kinds = {(case.candidates is None, case.query is None): case for case in told_last}
        for case in kinds.values():
            self.order(case)

    def close(self) -> None:
        """Delete the word index, and release the files of the other."""
        if "_served" in self.__dict__:
            index, look_up = self._served
            look_up.close()
            index.close()
        if "_lexical" in self.__dict__:
            self._lexical.close()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def _scores(self, case: Case, rows: Integers) -> Floats:
        if case.query is not None:
            near = self._vectors.of(rows) @ self._embedder.encode_query(case.query)
            found = self._words(case.query)
            shared = np.array([found.get(row, 0.0) for row in rows.tolist()])
            return self._fused(near.astype(np.float64), shared)
        history = self._history(case)
        if not len(history):
            return np.zeros(len(rows))
        mean = self._vectors.of(history).mean(axis=0)
        return np.asarray(self._vectors.of(rows) @ mean, np.float64)

    def _fused(self, near: Floats, shared: Floats) -> Floats:
        """Fuse by reciprocal rank; what shares no word has no rank by words."""
        k = self._settings.rrf_k
        by_words = np.where(shared > 0, 1 / (k + _competition_ranks(shared)), 0.0)
        scores: Floats = 1 / (k + _competition_ranks(near)) + by_words
        return scores

    def _from_catalogue(self, case: Case) -> tuple[str, ...]:
        _, look_up = self._served
        # With k = 1 the depth is the setting's.
        request = SearchRequest(query=case.query, user_id=case.case_id, at=self._moment(case), k=1)
        found = [
            candidate.product.product_id
            for candidate in look_up.now(request).candidates
            if candidate.recall_score > 0 or candidate.from_history
        ]
        if len(found) < self._settings.candidates and case.query is None:
            ties = self._ties(case, np.arange(len(self._table), dtype=np.int64))
            found += self._table.product_ids(np.argsort(ties, kind="stable"))
        return tuple(dict.fromkeys(found))[: self._settings.candidates]

    def _history(self, case: Case) -> Integers:
        rows = self._table.rows_of_ids(case.history)
        return rows[rows >= 0][-self._latest :]

    @cached_property
    def _vectors(self) -> ProductVectors:
        """Vectors of the candidates, and of the histories that stand in for a query."""
        given = [case for case in self._cases if case.candidates is not None]
        parts = [self._table.rows_of_ids(case.candidates or ()) for case in given]
        parts += [self._history(case) for case in given if case.query is None]
        rows = np.concatenate([*parts, np.empty(0, np.int64)])
        return ProductVectors(self._table, rows, self._embedder, self._work, self._progress)

    @cached_property
    def _lexical(self) -> LexicalIndex:
        """Words of the candidates, indexed anew by each run: that takes seconds."""
        self._work.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(dir=self._work, prefix="words-"))
        self._folders.append(folder)
        given = [case.candidates or () for case in self._cases if case.query is not None]
        rows = self._table.rows_of_ids([product_id for ids in given for product_id in ids])
        index = LexicalIndex.create(folder)
        index.add(
            self._table,
            np.unique(rows),
            progress=lambda done, total: self._progress("indexing words", done, total),
        )
        index.commit()
        return index

    def _search_words(self, query: str) -> dict[int, float]:
        index = self._lexical
        keys, scores = index.search(query, k=max(len(index), 1), filters=_EVERYTHING)
        rows: Any = self._table.rows_of_keys(keys)
        return dict(zip(rows.tolist(), scores.tolist(), strict=True))

    @cached_property
    def _served(self) -> tuple[HybridIndex, LookUp]:
        """The whole catalogue, indexed as for serving, and what looks up in it."""
        build_index(
            self._work, self._table, self._embedder, self._settings, progress=self._progress
        )
        index = HybridIndex.open(self._work, self._table, self._embedder, self._settings)
        return index, self._serve(index)


def _competition_ranks(scores: Floats) -> Floats:
    """Return ranks from 1, the highest score first; equal scores share the better rank."""
    ordered = np.sort(-scores)
    ranks: Floats = np.searchsorted(ordered, -scores, side="left").astype(np.float64) + 1
    return ranks
