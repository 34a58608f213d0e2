"""The interest learnt from a store's shoppers."""

from datetime import datetime

from reranker.learned_interest import learning
from reranker.learned_interest.stored import InterestManifest, StoredInterest
from reranker.ports import Progress, no_progress
from reranker.settings import Settings
from reranker.wiring.behaviour import has_behaviour, no_behaviour_in, open_behaviour
from reranker.wiring.catalogue import catalogue_file
from retrieval.product_table import ProductTable


def stored_interest(settings: Settings) -> StoredInterest:
    """Return where the store keeps what was learnt from its shoppers."""
    return StoredInterest(settings.store.path / "interest")


def learn_interest(
    settings: Settings, as_of: datetime, *, progress: Progress = no_progress
) -> InterestManifest:
    """Learn from the purchases of the store what its shoppers are interested in.

    Raises:
        DataError: the store holds no catalogue or no behaviour, or too little of it.
    """
    if not has_behaviour(settings):
        raise no_behaviour_in(settings)
    table = ProductTable.open(catalogue_file(settings))
    with open_behaviour(settings, read_only=True) as behaviour:
        return learning.learn_interest(
            behaviour, table, stored_interest(settings), as_of, progress=progress
        )
