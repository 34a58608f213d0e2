"""The folder that an index lives in: whole generations, and a pointer to the one in use.

    index/CURRENT                 the name of the generation in use
    index/gen-000007/manifest.json
    index/gen-000007/rows.npz     what was indexed: keys, row hashes, text hashes
    index/gen-000007/vectors/     see `retrieval.faiss_index`
    index/gen-000007/lexical/     see `retrieval.lexical`
    embeddings/<model>/           see `retrieval.embedding_cache`

A generation is never changed once CURRENT names it. A build makes the next one beside it and then
replaces CURRENT, so that a kill at any moment leaves a generation that is whole. What did not
change is linked, not copied: FAISS and tantivy write a file once and then only delete it.
"""

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self
from zipfile import BadZipFile

import numpy as np
from filelock import FileLock, Timeout
from pydantic import ValidationError

from reranker.errors import DataError, IndexMismatchError
from reranker.schema import Value
from retrieval.embedder import Embedder
from retrieval.product_table import HashArray, IntArray, ProductTable, replacing

logger = logging.getLogger(__name__)

REMEDY = "run `shelfwise index build`"
_FORMAT = 1
_COPIED = {".json", ".lock"}


class IndexManifest(Value):
    """What a generation was made from.

    Attributes:
        model: fingerprint of the embedder.
        model_name: what people call it.
        catalogue: fingerprint of the product table.
        catalogue_identity: of the catalogue whose keys the indexes hold; None: not known.
    """

    format: int = _FORMAT
    model: str
    model_name: str
    catalogue: str
    products: int
    catalogue_identity: str | None = None


class IndexedRows(NamedTuple):
    """The state of each product when it was indexed, by ascending key."""

    keys: IntArray
    row_hashes: HashArray
    text_hashes: HashArray

    @classmethod
    def of(cls, table: ProductTable) -> "IndexedRows":
        """Take the state of a whole catalogue."""
        return cls(table.keys, table.row_hashes, table.text_hashes)

    @classmethod
    def none(cls) -> "IndexedRows":
        """Return the state before anything was indexed."""
        return cls(np.empty(0, np.int64), np.empty(0, np.uint64), np.empty(0, np.uint64))


class Changes(NamedTuple):
    """What became of the catalogue since it was indexed.

    Attributes:
        added: rows of products that were not indexed.
        changed: rows of products of which any field differs.
        reworded: those of them whose text differs, so that their vector does.
        removed: keys of products that are gone.
    """

    added: IntArray
    changed: IntArray
    reworded: IntArray
    removed: IntArray

    @classmethod
    def between(cls, old: IndexedRows, table: ProductTable) -> "Changes":
        """Compare what was indexed with the catalogue of now."""
        rows = table.rows_of_keys(old.keys)
        kept, places = rows[rows >= 0], np.flatnonzero(rows >= 0)
        changed = table.row_hashes[kept] != old.row_hashes[places]
        reworded = table.text_hashes[kept] != old.text_hashes[places]
        return cls(
            added=np.setdiff1d(np.arange(len(table), dtype=np.int64), kept),
            changed=kept[changed],
            reworded=kept[reworded],
            removed=old.keys[rows < 0],
        )


class Generation:
    """One version of the index on the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.vectors = folder / "vectors"
        self.lexical = folder / "lexical"

    def manifest(self) -> IndexManifest:
        """Read what it was made from.

        Raises:
            DataError: the manifest is missing or corrupt.
            IndexMismatchError: it is of another format.
        """
        path = self.folder / "manifest.json"
        try:
            manifest = IndexManifest.model_validate_json(path.read_text("utf-8"))
        except (OSError, ValueError, ValidationError) as error:
            raise DataError(f"{path}: the index is corrupt; {REMEDY}") from error
        if manifest.format != _FORMAT:
            raise IndexMismatchError(
                f"{path}: the index has format {manifest.format}, this version reads "
                f"{_FORMAT}; {REMEDY}"
            )
        return manifest

    def refuse_other_catalogue(self, table: ProductTable) -> None:
        """Make sure that the keys of the index stand for the products of a catalogue.

        Raises:
            IndexMismatchError: the index is of another one. Where either does not tell which it
                is, as those of earlier versions, it is taken to fit.
        """
        indexed = self.manifest().catalogue_identity
        if None not in (indexed, table.identity) and indexed != table.identity:
            raise IndexMismatchError(
                f"{self.folder}: the index is of another catalogue, as this one was imported anew "
                f"without the earlier one; {REMEDY}"
            )

    def rows(self) -> IndexedRows:
        """Read what was indexed.

        Raises:
            DataError: the file is missing or corrupt.
        """
        path = self.folder / "rows.npz"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return IndexedRows(*(arrays[name] for name in IndexedRows._fields))
        except (OSError, ValueError, LookupError, EOFError, BadZipFile) as error:
            raise DataError(f"{path}: the index is corrupt ({error}); {REMEDY}") from error

    def describe(self, table: ProductTable, embedder: Embedder) -> None:
        """Write manifest and rows, when vectors and words are complete."""
        with replacing(self.folder / "rows.npz") as temporary, temporary.open("wb") as file:
            np.savez(file, **IndexedRows.of(table)._asdict())
        manifest = IndexManifest(
            model=embedder.fingerprint,
            model_name=embedder.name,
            catalogue=table.fingerprint,
            products=len(table),
            catalogue_identity=table.identity,
        )
        with replacing(self.folder / "manifest.json") as temporary:
            temporary.write_text(manifest.model_dump_json(indent=2), "utf-8")


class IndexStore:
    """The generations of one store."""

    def __init__(self, store: Path) -> None:
        self._embeddings = store / "embeddings"
        self._folder = store / "index"
        self._pointer = self._folder / "CURRENT"

    def embeddings(self, fingerprint: str) -> Path:
        """Return the folder of the embedding cache of a model."""
        return self._embeddings / fingerprint[:16]

    def current(self) -> Generation | None:
        """Return the generation in use; None before the first build, or if nothing tells it."""
        try:
            name = self._pointer.read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        except UnicodeDecodeError:
            logger.warning("%s: this file is damaged; %s", self._pointer, REMEDY)
            return None
        return Generation(self._folder / name)

    @contextmanager
    def building(self) -> Iterator[Self]:
        """Keep other builds away, and clear up what a killed one left.

        Raises:
            DataError: another build is running.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with FileLock(self._folder / ".lock", timeout=0):
                self._clear()
                yield self
        except Timeout:
            raise DataError(
                f"{self._folder}: another `shelfwise index build` is running; wait for it"
            ) from None

    def begin(self) -> Generation:
        """Make the folder of the next generation."""
        numbers = [int(path.name.partition("-")[2]) for path in self._folder.glob("gen-*")]
        generation = Generation(self._folder / f"gen-{max(numbers, default=0) + 1:06d}")
        generation.folder.mkdir()
        return generation

    def publish(self, generation: Generation) -> None:
        """Put a complete generation into use, and remove the others."""
        with replacing(self._pointer) as temporary:
            temporary.write_text(generation.folder.name, "utf-8")
        self._clear()

    def _clear(self) -> None:
        current = self.current()
        for folder in self._folder.glob("gen-*"):
            if current is None or folder != current.folder:
                shutil.rmtree(folder)


def link_tree(source: Path, target: Path) -> None:
    """Copy a folder whose large files are never written to again by linking them."""
    shutil.copytree(source, target, copy_function=_link_or_copy)


def _link_or_copy(source: str, target: str) -> str:
    if Path(source).suffix not in _COPIED:
        try:
            os.link(source, target)
        except OSError:  # a file system without links
            pass
        else:
            return target
    return shutil.copy2(source, target)
