"""The learned interest on the disk: whole generations, and a file that names the one in use.

    interest/current              the name of the generation in use
    interest/4f1c.../manifest.json
    interest/4f1c.../*.npy        arrays, mapped into memory

A generation is never changed once `current` names it; those before are removed then, as they may
count shoppers who are to be forgotten. A killed learning changes nothing.
"""

import secrets
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock, Timeout
from pydantic import Field, ValidationError

from reranker.errors import DataError
from reranker.learned_interest.choices import Integers
from reranker.learned_interest.model import InterestModel
from reranker.learned_interest.signals import NAMES, Signals
from reranker.schema import Value
from retrieval.files import replacing
from retrieval.product_table import ProductTable

CURRENT = "current"
_FORMAT = 1
_SPARSE = ("together", "follows", "words")
_REMEDY = "run shelfwise interest learn"


class InterestManifest(Value):
    """What was learnt, and from what.

    Attributes:
        as_of: everything before it was looked at, nothing from then on.
        products: of the catalogue then.
        purchases, shoppers: that were counted.
        examples: held-out purchases that the weights were fitted on.
        weights: of each signal, in units of its spread.
    """

    format: int = _FORMAT
    as_of: datetime
    products: int = Field(ge=1)
    purchases: int = Field(ge=1)
    shoppers: int = Field(ge=1)
    examples: int = Field(ge=1)
    bias: float
    weights: dict[str, float]
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    words: int = Field(ge=1, description="different words of the products' texts")


class ProductIdentities(NamedTuple):
    """Which product of a catalogue each product of a model is.

    Attributes:
        keys: of the catalogue; a catalogue that was begun anew gives them to other products.
        hashes: of the product ids, so that this is noticed.
    """

    keys: Integers
    hashes: Any

    def rows_in(self, table: ProductTable) -> Integers:
        """Return the row of each product in a table, -1 where it is not there."""
        rows = table.rows_of_keys(self.keys)
        own = table.column("id_hash").to_numpy()
        there = np.flatnonzero(rows >= 0)
        other = there[own[rows[there]] != self.hashes[there]]
        rows[other] = -1
        return rows


class StoredInterest:
    """The generations of one store."""

    def __init__(self, folder: Path) -> None:
        """Take the folder; it need not exist."""
        self.folder = folder

    @property
    def current(self) -> str | None:
        """Name of the generation in use; None before the first.

        Raises:
            DataError: the file that names it cannot be read.
        """
        file = self.folder / CURRENT
        try:
            return file.read_text("utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{file}: it cannot be read: {error}") from error

    def save(
        self, model: InterestModel, identities: ProductIdentities, manifest: InterestManifest
    ) -> None:
        """Write a generation, put it into use, and remove the others.

        Raises:
            DataError: the folder cannot be written, or another learning is writing.
        """
        name = secrets.token_hex(8)
        target = self.folder / name
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "lock", timeout=0):
                try:
                    self._write(target, model, identities, manifest)
                    with replacing(self.folder / CURRENT) as temporary:
                        temporary.write_text(name, "utf-8")
                except BaseException:
                    if self.current != name:  # else it came after the last step
                        shutil.rmtree(target, ignore_errors=True)
                    raise
                for other in self.folder.iterdir():
                    if other.is_dir() and other.name != name:
                        shutil.rmtree(other, ignore_errors=True)
        except Timeout:
            raise DataError(
                f"{self.folder}: another `shelfwise interest learn` is writing; wait for it"
            ) from None
        except OSError as error:
            raise DataError(
                f"{self.folder}: the learned interest cannot be written: {error}"
            ) from error

    @staticmethod
    def _write(
        target: Path,
        model: InterestModel,
        identities: ProductIdentities,
        manifest: InterestManifest,
    ) -> None:
        target.mkdir()
        for file, array in _arrays(model, identities):
            with replacing(target / f"{file}.npy") as temporary, temporary.open("wb") as opened:
                np.save(opened, array)
        with replacing(target / "manifest.json") as temporary:
            temporary.write_text(manifest.model_dump_json(indent=2), "utf-8")

    def manifest(self, name: str) -> InterestManifest:
        """Read what a generation was learnt from.

        Raises:
            DataError: it is corrupt, or of another version.
        """
        path = self.folder / name / "manifest.json"
        try:
            found = InterestManifest.model_validate_json(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise DataError(f"{path}: the learned interest is corrupt; {_REMEDY}") from error
        if found.format != _FORMAT or tuple(found.weights) != NAMES:
            raise DataError(f"{path}: the interest was learnt by another version; {_REMEDY}")
        return found

    def load(
        self, name: str, manifest: InterestManifest
    ) -> tuple[InterestModel, ProductIdentities]:
        """Map a generation into memory: the model, and which product each of its products is.

        Raises:
            DataError: a file is missing or corrupt.
        """
        folder = self.folder / name
        try:
            arrays = {
                # Plain views of the maps, which are quicker to take from.
                path.stem: np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
                for path in folder.glob("*.npy")
            }
            size = manifest.products + 1
            widths = dict.fromkeys(_SPARSE, size) | {"words": manifest.words}
            signals = Signals(
                popularity=arrays["popularity"],
                factors=arrays["factors"],
                **{each: _sparse(arrays, each, (size, widths[each])) for each in _SPARSE},
            )
            identities = ProductIdentities(arrays["keys"], arrays["hashes"])
            if (
                len(identities.keys) != manifest.products
                or len(identities.hashes) != manifest.products
                or len(signals.popularity) != size
                or len(signals.factors) != size
            ):
                raise ValueError("the arrays do not have the sizes of the manifest")
        except (EOFError, OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{folder}: the learned interest is corrupt ({error}); {_REMEDY}"
            ) from error
        model = InterestModel(
            signals=signals,
            weights=np.array(list(manifest.weights.values())),
            bias=manifest.bias,
            mean=np.array(manifest.mean),
            spread=np.array(manifest.spread),
            examples=manifest.examples,
        )
        return model, identities


def _arrays(model: InterestModel, identities: ProductIdentities) -> Iterator[tuple[str, Any]]:
    signals = model.signals
    yield from identities._asdict().items()
    yield "popularity", signals.popularity
    yield "factors", signals.factors
    for name in _SPARSE:
        matrix = getattr(signals, name).sorted_indices()
        yield f"{name}_data", matrix.data.astype(np.float32)
        yield f"{name}_indices", matrix.indices.astype(np.int32)
        yield f"{name}_indptr", matrix.indptr.astype(np.int64)


def _sparse(arrays: dict[str, Any], name: str, shape: tuple[int, int]) -> Any:
    from scipy.sparse import csr_matrix

    data, indices, ends = (arrays[f"{name}_{part}"] for part in ("data", "indices", "indptr"))
    if len(ends) != shape[0] + 1 or ends[-1] != len(data) or len(data) != len(indices):
        raise ValueError(f"{name} does not have the sizes of the manifest")
    found = csr_matrix(shape, dtype=np.float32)
    # Set, not checked: that would read every page of the files.
    found.data, found.indices, found.indptr = data, indices, ends
    found.has_sorted_indices = found.has_canonical_format = True
    return found
