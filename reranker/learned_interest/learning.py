"""Learn the interest of a shop's shoppers from its store."""

from datetime import datetime

import numpy as np

from reranker.errors import DataError
from reranker.learned_interest.choices import Choices
from reranker.learned_interest.model import FEWEST_EXAMPLES, learn
from reranker.learned_interest.stored import InterestManifest, StoredInterest
from reranker.ports import Progress, no_progress
from retrieval.behaviour import BehaviourStore
from retrieval.product_table import ProductTable


def learn_interest(
    store: BehaviourStore,
    table: ProductTable,
    stored: StoredInterest,
    as_of: datetime,
    *,
    seed: int = 0,
    progress: Progress = no_progress,
) -> InterestManifest:
    """Learn from the purchases of shoppers with consent to analytics, and put it into use.

    Killed before the end, what was learnt before stays in use.

    Args:
        store: of the behaviour.
        table: the catalogue; purchases of what it does not have do not count.
        stored: where it is kept.
        as_of: purchases from then on are not looked at.
        seed: of all that is drawn.
        progress: told what is being done.

    Raises:
        DataError: too few shoppers bought two products, or the folder cannot be written.
    """
    progress("reading purchases", 0, 0)
    purchases = store.purchases(as_of, "analytics")
    rows = table.rows_of_ids(purchases.product_ids)[purchases.product]
    known = rows >= 0
    shopper = purchases.shopper[known]
    choices = Choices(shopper, shopper, rows[known], len(table))
    texts = table.headings(range(len(table)))
    model = learn(choices, texts, seed=seed, progress=progress)
    if model is None:
        raise DataError(
            f"too few shoppers bought two products of the catalogue before {as_of:%Y-%m-%d %H:%M}: "
            f"{3 * FEWEST_EXAMPLES} are needed to learn from; until then interest is the profile's "
            "hand-set rule"
        )
    manifest = InterestManifest(
        as_of=as_of,
        products=len(table),
        purchases=len(shopper),
        shoppers=len(np.unique(shopper)),
        examples=model.examples,
        bias=model.bias,
        weights=model.described(),
        mean=tuple(model.mean.tolist()),
        spread=tuple(model.spread.tolist()),
        words=model.signals.words.shape[1],
    )
    stored.save(model, table.keys, manifest)
    return manifest
