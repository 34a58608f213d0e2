"""Lists that were shown to shoppers, and what became of them, to learn from."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from reranker.errors import DataError
from reranker.ports import Progress, Tokenizer
from reranker.schema import Impression, ShownItem
from reranker.settings import Settings
from reranker.training.negatives import NegativeMix, NegativeSampler
from reranker.training.past_sales import PastSales
from reranker.training.purchases import Purchase, Split
from reranker.training.sources import Gathered, Lists, language_by, lists_of
from reranker.training.store_source import ToldProfiles, held_of_store, with_pseudonyms
from retrieval.behaviour import BehaviourStore
from retrieval.product_table import ProductTable
from retrieval.profiles import DuckDBProfileStore

_FEWEST = 2
_LEAST_EXAMINED = 0.05


@dataclass(frozen=True)
class ShownLists:
    """A `ListSource` over impressions of the store of the settings.

    Which product was wanted more is said by its grade alone (0 shown, 1 clicked, 2 put aside, 3
    bought). How much that counts in the loss is said by its place: what was clicked far down counts
    for those who did not get there, by the inverse of how often the place is looked at (Joachims et
    al. 2017, arXiv 1608.04468; Ai et al. 2018, arXiv 1804.05938). The profile is the one that
    serving would have made at that moment.

    Attributes:
        name: what records call it.
        catalogue: file of the catalogue.
        impressions: graded, of shoppers who have agreed to training; see `retrieval.labels`.
        examination: how often each place is looked at, relative to the first; the last value
            stands for all places after it. Empty: all alike.
    """

    name: str
    catalogue: Path
    impressions: Sequence[Impression]
    examination: tuple[float, ...] = ()

    def gather(
        self, work: Path, settings: Settings, tokenizer: Tokenizer, progress: Progress
    ) -> Gathered:
        """Take each impression of which something was wanted.

        Raises:
            DataError: there is none.
        """
        del work  # nothing is made on the way
        training = settings.training
        table = ProductTable.open(self.catalogue)
        ids = table.product_ids(range(len(table)))
        known = set(ids)
        shown = [purchase_of(each, known, self.examination) for each in self.impressions]
        purchases = tuple(one for one in shown if one is not None)
        if not purchases:
            raise DataError(
                f"{settings.store.path}: on none of the {len(self.impressions)} lists shown was "
                "something of the catalogue clicked or bought"
            )
        with BehaviourStore(settings.store.path, read_only=True, privacy=settings.privacy) as store:
            told = ToldProfiles(
                DuckDBProfileStore(store, table, settings.profile, tokenizer), table
            )
            language = language_by(settings.ranking)
            for done, purchase in enumerate(purchases, start=1):
                told.look_up(purchase, language(purchase))
                progress("making profiles", done, len(purchases))
            until = max(one.at for one in purchases if one.at is not None)
            sales = PastSales.of_columns(store.purchases(until, "training"))
            key = store.fingerprint
        negatives = NegativeSampler(ids, NegativeMix.of(training))

        def lists(split: Split) -> Lists:
            found = lists_of(self.name, split, table, told, sales, negatives, settings)
            return with_pseudonyms(found, split, key)

        return Gathered(purchases, held_of_store(purchases, training), lists)


def purchase_of(
    impression: Impression, known: Collection[str], examination: Sequence[float] = ()
) -> Purchase | None:
    """Return an impression as a list with grades; None where it teaches nothing.

    Args:
        impression: graded.
        known: products of the catalogue.
        examination: see `ShownLists`.
    """
    items = [item for item in impression.items if item.product_id in known]
    if len(items) < _FEWEST or not any(item.grade for item in items):
        return None
    best, first = max(items, key=lambda item: item.grade), items[0]
    weights = (1 / _examined(item, examination) for item in items)
    return Purchase(
        user_id=impression.user_id or impression.request_id,
        history=(),
        target=best.product_id,
        query=impression.query,
        candidates=tuple(item.product_id for item in items),
        grades=tuple(item.grade for item in items),
        item_weights=tuple(weights) if examination else (),
        propensity=first.propensity if first.position == 1 else None,
        at=impression.at,
    )


def _examined(item: ShownItem, examination: Sequence[float]) -> float:
    if not examination:
        return 1.0
    place = min(item.position, len(examination)) - 1
    return max(examination[place], _LEAST_EXAMINED)
