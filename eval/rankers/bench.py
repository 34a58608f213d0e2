"""What rankers share: the products, the past, profiles, recall and the models, each made once.

Everything is made on first use: counting rankers load no model and embed nothing.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from eval.cases.values import Case
from eval.past.counts import Past
from eval.rankers.look_up import CaseShoppers, PastInterest, look_up_for_cases
from eval.rankers.profiles import CaseProfiles, WrittenCaseProfiles
from eval.rankers.ranked import Hashes, best_first, tie_breakers
from eval.rankers.recall import Recall
from eval.statistics.estimates import Integers
from reranker.learned_interest import InterestModel, LearnedInterest, learn
from reranker.look_up import LookUp
from reranker.ports import LanguageModel, Progress, Tokenizer, no_progress
from reranker.schema import Product
from reranker.settings import Settings
from retrieval.embedder import Embedder
from retrieval.hybrid import HybridIndex
from retrieval.product_table import ProductTable
from retrieval.profiles.writing import SummaryWriter

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

_NO_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(eq=False)
class Bench:
    """Build it for one evaluation; close it, or use it as a context manager.

    Attributes:
        table: all products.
        cases: those to be ranked, with what is known of their shoppers.
        everyone: all cases of the file, whose histories can be lent to others.
        past: what is known of purchases, maybe nothing.
        settings: of recall, profile, model, ranking and blend.
        open_model: loads the language model.
        open_writer: loads the model that writes profiles: an adapter for ranking cannot.
        open_embedder: loads the embedding model.
        open_tokenizer: loads the language model's tokenizer alone, which bounds profiles.
        work: folder for vectors, indexes, and what a model has written on shoppers of cases; used
            again by the next run.
        as_of: moment of the profiles; None takes each case's own.
        seed: of random orders and ties.
        progress: is told of long work.
    """

    table: ProductTable
    cases: Sequence[Case]
    everyone: Sequence[Case]
    past: Past
    settings: Settings
    open_model: Callable[[], LanguageModel]
    open_writer: Callable[[], LanguageModel]
    open_embedder: Callable[[], Embedder]
    open_tokenizer: Callable[[], Tokenizer]
    work: Path
    as_of: datetime | None = None
    seed: int = 0
    progress: Progress = no_progress
    _resources: ExitStack = field(default_factory=ExitStack)

    @cached_property
    def model(self) -> LanguageModel:
        """The language model."""
        model, portal = self.open_model(), self.portal
        self._resources.callback(lambda: portal.call(model.aclose))
        return model

    @cached_property
    def written_profiles(self) -> WrittenCaseProfiles:
        """The profiles with the text that the language model writes on them."""
        model, portal = self.open_writer(), self.portal
        self._resources.callback(lambda: portal.call(model.aclose))
        return WrittenCaseProfiles(self.profiles, SummaryWriter(model), self.work, portal)

    @cached_property
    def embedder(self) -> Embedder:
        """The embedding model."""
        return self.open_embedder()

    @cached_property
    def portal(self) -> "BlockingPortal":
        """A thread with an event loop, for what is asynchronous."""
        from anyio.from_thread import start_blocking_portal

        return self._resources.enter_context(start_blocking_portal())

    @cached_property
    def profiles(self) -> CaseProfiles:
        """The profiles of the cases' shoppers."""
        tokenizer = self.open_tokenizer()
        return CaseProfiles(self.table, self.settings, tokenizer, as_of=self.as_of)

    @cached_property
    def recall(self) -> Recall:
        """Recall over the candidates, or over the catalogue where a case has none."""
        recall = Recall(
            self.table,
            self.embedder,
            self.settings.retrieval,
            self.work,
            cases=self.cases,
            latest=self.settings.evaluation.history,
            ties=self.ties,
            moment=self.moment,
            serve=self._serve,
            progress=self.progress,
        )
        self._resources.callback(recall.close)
        return recall

    def _serve(self, index: HybridIndex) -> LookUp:
        shoppers = CaseShoppers(
            cases={case.case_id: case for case in (*self.everyone, *self.cases)},
            profiles=self.profiles,
            best_sellers=self._best_sellers,
        )
        interest = None if self.learned is None else PastInterest(self.learned, self._common_ties)
        return look_up_for_cases(index, shoppers, interest, self.settings.retrieval)

    @property
    def _best_sellers(self) -> tuple[str, ...]:
        popularity = self.past.popularity
        sold = np.flatnonzero(popularity > 0)
        product_ids = self.table.product_ids(sold)
        order = best_first(popularity[sold], self._common_ties(product_ids))
        return tuple(product_ids[place] for place in order)

    def _common_ties(self, product_ids: Sequence[str]) -> Hashes:
        """Return what breaks ties where no case is known."""
        return tie_breakers(self._id_hashes[self.table.rows_of_ids(product_ids)], "", self.seed)

    @cached_property
    def catalogue(self) -> tuple[Product, ...]:
        """All products, for rankers that look at each of them again and again."""
        return self.table.products(np.arange(len(self.table)))

    @cached_property
    def interest_model(self) -> InterestModel | None:
        """The interest learned from the known past; None where too little is known."""
        texts = self.table.headings(np.arange(len(self.table)))
        self.progress("learning interest", 0, 1)
        model = learn(self.past.choices(), texts, seed=self.seed)
        self.progress("learning interest", 1, 1)
        return model

    @cached_property
    def learned(self) -> LearnedInterest | None:
        """The same model as searches ask it."""
        model = self.interest_model
        if model is None:
            return None
        return LearnedInterest(model, np.arange(len(self.table)), self.table)

    @property
    def depth(self) -> int:
        """Number of products ranked where a case has no candidates of its own."""
        return self.settings.retrieval.candidates

    def rows(self, case: Case) -> Integers:
        """Return the table's rows of what a case lets be ranked: its candidates, or everything."""
        if case.candidates is None:
            return np.arange(len(self.table), dtype=np.int64)
        return self.table.rows_of_ids(case.candidates)

    def history_rows(self, case: Case) -> Integers:
        """Return the rows of a case's history that the table knows, oldest first."""
        rows = self.table.rows_of_ids(case.history)
        return rows[rows >= 0]

    def candidates(self, case: Case) -> tuple[str, ...]:
        """Return a case's candidates in a random order, or what recall finds, best first."""
        if case.candidates is None:
            return self.recall.order(case)
        ties = self.ties(case, self.rows(case))
        return tuple(case.candidates[place] for place in np.argsort(ties, kind="stable").tolist())

    def products(self, product_ids: Sequence[str]) -> tuple[Product, ...]:
        """Return products by their ids, all of which are in the table."""
        return self.table.products(self.table.rows_of_ids(product_ids))

    def ties(self, case: Case, rows: Integers) -> Hashes:
        """Return what breaks ties between some products of a case."""
        return tie_breakers(self._id_hashes[rows], case.case_id, self.seed)

    def moment(self, case: Case) -> datetime:
        """Return the moment that a case is asked at."""
        return case.at or self.as_of or _NO_MOMENT

    @cached_property
    def _id_hashes(self) -> Hashes:
        hashes: Hashes = self.table.column("id_hash").to_numpy()
        return hashes

    def close(self) -> None:
        """Let go of the models and indexes."""
        self._resources.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
