"""The behaviour of a store, and what is made of it: snapshots, profiles, labels."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path

from reranker.errors import ConfigError, DataError
from reranker.models.tokenizing import HFTokenizer
from reranker.models.weights import resolve_tokenizer
from reranker.ports import Progress, Tokenizer, no_progress
from reranker.settings import Database, Purpose, Settings
from reranker.wiring.catalogue import catalogue_file
from retrieval import labels
from retrieval.behaviour import FILE_NAME, BehaviourSnapshot, BehaviourStore
from retrieval.behaviour.checks import products_of
from retrieval.behaviour.importing import ImportReport
from retrieval.behaviour.postgres_snapshot import PostgresSnapshot, write_postgres_snapshot
from retrieval.behaviour.quarantine import QuarantinedRow
from retrieval.behaviour.snapshot import CURRENT, Snapshot, write_snapshot
from retrieval.event_formats.actions import pairs_of
from retrieval.event_formats.reading import Reading, columns_of
from retrieval.labels import LabelReport
from retrieval.product_table import ProductTable
from retrieval.profiles import DuckDBProfileStore


def has_behaviour(settings: Settings) -> bool:
    """Tell whether there is behaviour to read."""
    snapshot = settings.store.snapshot
    if isinstance(snapshot, Database):
        return PostgresSnapshot.is_in(snapshot)
    file = settings.store.path / FILE_NAME if snapshot is None else snapshot / CURRENT
    return file.exists()


def no_behaviour_in(settings: Settings) -> DataError:
    """Return the error of a store in which there is no behaviour to read."""
    remedy = "run shelfwise behaviour import"
    return DataError(f"{settings.store.path} holds no behaviour: {remedy}")


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
) -> ImportReport:
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


def rejected_events(settings: Settings, limit: int | None = None) -> tuple[QuarantinedRow, ...]:
    """Return the rows that imports of events have refused and not taken since."""
    with open_behaviour(settings, read_only=True) as behaviour:
        return behaviour.rejected(limit)


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
        raise no_behaviour_in(settings)
    with BehaviourStore(settings.store.path, read_only=True, privacy=settings.privacy) as behaviour:
        return _write_snapshot(behaviour, target, progress)


def _write_snapshot(
    behaviour: BehaviourStore, target: Path | Database, progress: Progress
) -> Snapshot:
    if isinstance(target, Database):
        return write_postgres_snapshot(behaviour, target, progress=progress)
    return write_snapshot(behaviour, target, progress=progress)


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
    if not has_behaviour(settings):
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
    if not has_behaviour(settings):
        raise no_behaviour_in(settings)
    with open_behaviour(settings, read_only=True) as behaviour:
        return labels.build_labels(
            behaviour,
            target,
            as_of,
            settings=settings.labels,
            purpose=purpose,
            progress=progress,
        )
