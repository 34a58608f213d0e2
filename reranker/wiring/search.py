"""Search and re-ranking over a whole store."""

from contextlib import ExitStack

from reranker.collector import collector
from reranker.learned_interest import ShopInterest
from reranker.listwise import ListwiseRanker
from reranker.pipeline import Reranker
from reranker.ports import LanguageModel, Progress
from reranker.settings import Settings
from reranker.wiring.behaviour import open_profiles
from reranker.wiring.catalogue import catalogue_file
from reranker.wiring.interest import stored_interest
from reranker.wiring.models import open_embedder, open_model
from retrieval.hybrid import HybridIndex
from retrieval.product_table import ProductTable
from retrieval.recommend import ProfileRecommender


def build(
    settings: Settings | None = None,
    *,
    model: LanguageModel | None = None,
    progress: Progress | None = None,
) -> Reranker:
    """Open the store and load the models that the settings name.

    Args:
        settings: None loads `shelfwise.toml` and the environment.
        model: ranks in place of the one that the settings name; it stays the caller's to close.
        progress: is told of downloads and conversions, which only happen the first time.

    Raises:
        DataError: the store has no catalogue or index, or one is damaged.
        IndexMismatchError: the index was built with another embedding model.
        ModelUnavailable: weights cannot be had or loaded.
    """
    settings = settings or Settings.load()
    with ExitStack() as resources:
        return _assemble(settings, model, resources, progress)


def _assemble(
    settings: Settings,
    model: LanguageModel | None,
    resources: ExitStack,
    progress: Progress | None,
) -> Reranker:
    table = ProductTable.open(catalogue_file(settings))
    embedder = open_embedder(settings, progress=progress)
    index = HybridIndex.open(settings.store.path, table, embedder, settings.retrieval)
    resources.callback(index.close)
    owns_model = model is None
    model = model or open_model(settings, progress=progress)
    profiles = open_profiles(settings, resources, table=table, tokenizer=model.tokenizer)
    resources.enter_context(collector.out_of_the_way())
    return Reranker(
        index=index,
        recommender=ProfileRecommender(index, rrf_k=settings.retrieval.rrf_k),
        profiles=profiles,
        interest=ShopInterest(stored_interest(settings), table),
        ranker=ListwiseRanker(model, settings.ranking, profile_tokens=settings.profile.max_tokens),
        settings=settings,
        resources=resources.pop_all(),
        owns_model=owns_model,
    )
