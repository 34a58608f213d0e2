"""Lists from the behaviour of a shop's own store."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from reranker.cards import Told
from reranker.errors import DataError
from reranker.ports import Progress, Tokenizer
from reranker.schema import CATEGORY_SEPARATOR, Language, Value
from reranker.settings import Settings, TrainingSettings
from reranker.training.negatives import NegativeMix, NegativeSampler
from reranker.training.past_sales import PastSales
from reranker.training.purchases import Purchase, Split
from reranker.training.sources import Gathered, Lists, categories_of, language_by, lists_of
from reranker.training.store_purchases import purchases_of
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.product_table import ProductTable
from retrieval.profiles import DuckDBProfileStore

_EVENTS = 5000
_AS_SEARCHES_FIND = {"category": 5.0, "recalled": 0.5}
"""Weights of negatives: most are of one kind, and what was bought of it before is few of them."""


class StoreBehaviour(Value):
    """A `ListSource` over the store of the settings.

    Learnt from are purchases of shoppers who have agreed to training. The profile is the one that
    serving would have made at that moment. Negatives are of the same category, and what the
    shopper has bought of it before; the rest of the mix is the settings'. There is no teacher: what
    is bought together would be counted over the purchases that are learnt from.

    Attributes:
        catalogue: file of the catalogue.
        until: purchases from then on are not looked at.
        per_shopper: most purchases of one shopper.
    """

    name: str
    catalogue: Path
    until: datetime
    per_shopper: int = 20

    def gather(
        self, work: Path, settings: Settings, tokenizer: Tokenizer, progress: Progress
    ) -> Gathered:
        """Read the store; it is closed again when this returns.

        Raises:
            DataError: it has no purchases that models may learn from.
        """
        del work  # nothing is made on the way
        training = settings.training
        table = ProductTable.open(self.catalogue)
        ids, categories = table.product_ids(range(len(table))), categories_of(table)
        folder = settings.store.path
        with BehaviourStore(folder, read_only=True, privacy=settings.privacy) as store:
            purchases = self._purchases(store, set(ids), categories, training.seed)
            if not purchases:
                message = f"{folder}: no purchases that models may learn from before {self.until}"
                raise DataError(message)
            told = ToldProfiles(
                DuckDBProfileStore(store, table, settings.profile, tokenizer), table
            )
            language = language_by(settings.ranking)
            for done, purchase in enumerate(purchases, start=1):
                told.look_up(purchase, language(purchase))
                progress("making profiles", done, len(purchases))
            sales = PastSales.of_columns(store.purchases(self.until, "training"))
            key = store.fingerprint
        negatives = NegativeSampler(
            ids,
            NegativeMix.of(training).model_copy(update=_AS_SEARCHES_FIND),
            categories=categories,
            recall=_OwnHistory(categories),
            bar_history=False,
        )

        def lists(split: Split) -> Lists:
            found = lists_of(self.name, split, table, told, sales, negatives, settings)
            return with_pseudonyms(found, split, key)

        return Gathered(purchases, held_of_store(purchases, training), lists)

    def _purchases(
        self,
        store: BehaviourStore,
        products: Collection[str],
        categories: Mapping[str, str],
        seed: int,
    ) -> tuple[Purchase, ...]:
        """Return purchases of products of the catalogue, by shoppers who agreed to training."""
        found = purchases_of(
            store.histories(self.until, limit=_EVENTS, purpose="training"),
            per_shopper=self.per_shopper,
            query_of=lambda product: _leaf(categories.get(product)),
            seed=seed,
        )
        return tuple(one for one in found if one.target in products)


class ToldProfiles:
    """What is told of shoppers at the moments of their purchases, made while the store is open."""

    def __init__(self, profiles: DuckDBProfileStore, table: ProductTable) -> None:
        self._profiles = profiles
        self._table = table
        self._told: dict[tuple[str, datetime], _Kept | None] = {}

    def look_up(self, purchase: Purchase, language: Language) -> None:
        """Make what is told for a purchase."""
        if purchase.at is None or (purchase.user_id, purchase.at) in self._told:
            return
        # Strictly before the moment is before all that was bought along, too.
        found = self._profiles.profile(purchase.user_id, purchase.at, language)
        self._told[purchase.user_id, purchase.at] = self._kept(Told.of(found)) if found else None

    def __call__(self, purchase: Purchase, language: Language) -> Told | None:
        """Return what is told for a purchase; None without consent to a profile."""
        del language  # it was made in that of the purchase
        kept = self._told.get((purchase.user_id, purchase.at)) if purchase.at else None
        if kept is None:
            return None
        bought = zip(self._table.product_ids(kept.rows), kept.times.tolist(), strict=True)
        return kept.told.model_copy(update={"purchases": dict(bought)})

    def _kept(self, told: Told) -> "_Kept":
        rows = self._table.rows_of_ids(list(told.purchases))
        known = rows >= 0
        times = np.array(list(told.purchases.values()), np.int32)
        bare = told.model_copy(update={"purchases": {}})
        return _Kept(bare, rows[known].astype(np.int32), times[known])


class _Kept(NamedTuple):
    """What is told, the purchases in columns: they are many, of tens of thousands of moments."""

    told: Told
    rows: np.ndarray
    times: np.ndarray


class _OwnHistory:
    """Recalls what a shopper has bought of the target's category before."""

    def __init__(self, categories: dict[str, str]) -> None:
        self._categories = categories

    def __call__(self, purchase: Purchase, count: int) -> Sequence[str]:
        wanted = self._categories.get(purchase.target)
        own: defaultdict[str, int] = defaultdict(int)
        for product in purchase.history:
            if self._categories.get(product) == wanted:
                own[product] += 1
        return sorted(own, key=lambda product: -own[product])[:count]


def held_of_store(purchases: Sequence[Purchase], training: TrainingSettings) -> int:
    """Return how many shoppers of a store are held back: one of five at most."""
    return min(training.validation_shoppers, len({one.user_id for one in purchases}) // 5)


def with_pseudonyms(lists: Lists, split: Split, key: str) -> Lists:
    """Return lists of a store with the pseudonyms of the shoppers who are learnt from.

    Args:
        lists: of the split.
        split: of purchases of the store.
        key: fingerprint of the key that the pseudonyms were made with.
    """
    written = {Pseudonym.written(one.user_id) for one in split.train}
    pseudonyms = tuple(sorted(each for each in written if each is not None))
    return lists.model_copy(update={"pseudonyms": pseudonyms, "key_fingerprint": key})


def _leaf(category: str | None) -> str | None:
    return category.rpartition(CATEGORY_SEPARATOR)[2].lower() if category else None
