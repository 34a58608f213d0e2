"""The catalogue of a store, and its index."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from reranker.ports import Progress, no_progress
from reranker.settings import Settings
from reranker.wiring.models import open_embedder
from retrieval.catalogue import ImportReport, import_catalogue
from retrieval.index_build import IndexReport, build_index
from retrieval.product_table import ProductTable


def catalogue_file(settings: Settings) -> Path:
    """Return where the catalogue of the store lies."""
    return settings.store.path / "catalogue" / "products.arrow"


def import_products(
    settings: Settings,
    files: Sequence[Path | str],
    *,
    mapping: Mapping[str, str] | None = None,
    attributes: Sequence[str] = (),
    replace: bool = False,
    max_rejected: float = 1.0,
    progress: Progress = no_progress,
) -> ImportReport:
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


def index_catalogue(settings: Settings, *, progress: Progress | None = None) -> IndexReport:
    """Bring the index of the store in line with its catalogue.

    Raises:
        DataError: there is no catalogue, or its content is damaged.
    """
    table = ProductTable.open(catalogue_file(settings))
    table.verify()
    embedder = open_embedder(settings, progress=progress)
    return build_index(settings.store.path, table, embedder, settings.retrieval, progress=progress)
