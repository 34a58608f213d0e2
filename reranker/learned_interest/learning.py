"""Learn the interest of a shop's shoppers from its store."""

from datetime import UTC, datetime

import numpy as np

from reranker.errors import ConfigError, DataError
from reranker.learned_interest.choices import Choices
from reranker.learned_interest.model import FEWEST_EXAMPLES, learn
from reranker.learned_interest.stored import InterestManifest, ProductIdentities, StoredInterest
from reranker.ports import Progress, no_progress
from retrieval.behaviour import BehaviourStore
from retrieval.product_table import ProductTable

_FEWEST_PRODUCTS = 2


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

    What was sent back again does not count.

    Killed before the end, what was learnt before stays in use.

    Args:
        store: of the behaviour.
        table: the catalogue; purchases of what it does not have do not count.
        stored: where it is kept.
        as_of: purchases from then on are not looked at.
        seed: of all that is drawn.
        progress: told what is being done.

    Raises:
        ConfigError: the moment lies in the future.
        DataError: the catalogue has fewer than two products, too few shoppers came back, another
            learning is running, or the folder cannot be written.
    """
    as_of = as_of.astimezone(UTC)
    if as_of > datetime.now(UTC):
        raise ConfigError(
            f"--as-of {as_of:%Y-%m-%d %H:%M} UTC lies in the future: what is learnt would not be "
            "used before then; name a moment until now"
        )
    if len(table) < _FEWEST_PRODUCTS:
        raise DataError(f"the catalogue holds {len(table)} products: there is nothing to compare")
    progress("reading purchases", 0, 0)
    purchases = store.purchases(as_of, "analytics", kept=True)
    rows = table.rows_of_ids(purchases.product_ids)[purchases.product]
    known = rows >= 0
    shopper = purchases.shopper[known]
    choices = Choices.of(
        shopper, shopper, rows[known], len(table), at_us=purchases.at_us[known], seed=seed
    )
    texts = table.headings(range(len(table)))
    model = learn(choices, texts, seed=seed, progress=progress)
    if model is None:
        raise DataError(
            f"too few of {len(np.unique(shopper))} shoppers came back to buy of the catalogue "
            f"before {as_of:%Y-%m-%d %H:%M} UTC: {3 * FEWEST_EXAMPLES} who bought in two visits "
            "are needed to learn from; until then interest is the profile's hand-set rule"
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
    hashes = table.column("id_hash").to_numpy()
    stored.save(model, ProductIdentities(table.keys, hashes), manifest)
    return manifest
