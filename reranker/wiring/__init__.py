"""Put the concrete parts together, as the settings say.

One module each for models, catalogue, behaviour and interest, and `search`, which joins them. Take
what you need from here.
"""

from reranker.wiring.behaviour import (
    build_labels,
    change_behaviour,
    import_events,
    open_behaviour,
    open_profiles,
    rejected_events,
    snapshot_behaviour,
)
from reranker.wiring.catalogue import catalogue_file, import_products, index_catalogue
from reranker.wiring.interest import learn_interest, stored_interest
from reranker.wiring.models import open_embedder, open_model, open_writer
from reranker.wiring.search import build

__all__ = [
    "build",
    "build_labels",
    "catalogue_file",
    "change_behaviour",
    "import_events",
    "import_products",
    "index_catalogue",
    "learn_interest",
    "open_behaviour",
    "open_embedder",
    "open_model",
    "open_profiles",
    "open_writer",
    "rejected_events",
    "snapshot_behaviour",
    "stored_interest",
]
