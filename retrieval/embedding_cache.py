"""Vectors on disk by the hash of their text, so that no text is embedded twice by one model.

Each `put` writes one shard, a file that appears whole or not at all: a build that is killed keeps
what it finished. The name of a shard carries a checksum of its content. A shard that does not match
it is deleted with a warning and its texts count as missing; one that cannot be read is an error and
stays. Vectors of texts that left the catalogue stay; deleting the folder is always safe and costs
computing time only.
"""

import json
import logging
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt

from reranker.errors import DataError, IndexMismatchError
from retrieval.embedder import Vectors
from retrieval.product_table import HashArray, replacing

_MANIFEST = "cache.json"
_FORMAT = 1
_MANY_SMALL = 64
_SMALL = 4096

logger = logging.getLogger(__name__)


class EmbeddingCache:
    """The vectors of one model. One process writes at a time; `build_index` sees to that."""

    def __init__(self, folder: Path, fingerprint: str, dimension: int) -> None:
        """Open a cache, and create it if there is none.

        Raises:
            DataError: a shard cannot be read.
            IndexMismatchError: the folder holds vectors of another model.
        """
        self._folder = folder
        self._row = np.dtype([("hash", "<u8"), ("vector", "<f4", (dimension,))])
        self._shards: list[npt.NDArray[Any]] = []
        self._indexed = 0
        self._hashes = np.empty(0, np.uint64)
        self._places = np.empty((0, 2), np.int64)
        self._claim({"format": _FORMAT, "model": fingerprint, "dimension": dimension})
        self._read()

    def __len__(self) -> int:
        self._index()
        return len(self._hashes)

    def missing(self, hashes: HashArray) -> HashArray:
        """Return those of some text hashes that have no vector yet, ascending and once each."""
        self._index()
        wanted: HashArray = np.unique(hashes)
        return wanted[~np.isin(wanted, self._hashes)]

    def put(self, hashes: HashArray, vectors: Vectors) -> None:
        """Store vectors as one shard; it is on the disk when this returns.

        Raises:
            DataError: it cannot be read again.
        """
        if not len(hashes):
            return
        rows = np.empty(len(hashes), self._row)
        rows["hash"] = hashes
        rows["vector"] = vectors
        self._shards.append(self._write(rows))

    def get(self, hashes: HashArray) -> Vectors:
        """Return the vectors of some text hashes, shape (hashes, dimension).

        Raises:
            DataError: there is no vector for one of them.
        """
        self._index()
        index = np.searchsorted(self._hashes, hashes)
        inside = index < len(self._hashes)
        if not inside.all() or not np.array_equal(self._hashes[index], hashes):
            raise DataError(f"{self._folder}: a vector is missing; run `shelfwise index build`")
        shard_of, row_of = self._places[index].T
        vectors = np.empty((len(hashes), *self._row["vector"].shape), np.float32)
        for number in np.unique(shard_of):
            wanted = np.flatnonzero(shard_of == number)
            vectors[wanted] = self._shards[number]["vector"][row_of[wanted]]
        return vectors

    def _claim(self, manifest: dict[str, object]) -> None:
        path = self._folder / _MANIFEST
        if path.is_file():
            try:
                found = json.loads(path.read_text("utf-8"))
            except ValueError:
                found = None
            if found != manifest:
                raise IndexMismatchError(
                    f"{path}: these vectors are of another model or format ({found}), "
                    f"not of {manifest}; delete the folder and run `shelfwise index build`"
                )
            return
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(manifest), "utf-8")

    def _read(self) -> None:
        for leftover in self._folder.glob("*.tmp"):
            leftover.unlink(missing_ok=True)
        paths = sorted(self._folder.glob("*.npy"))
        shards = {path: rows for path in paths if (rows := self._load(path)) is not None}
        small = [path for path, rows in shards.items() if len(rows) < _SMALL]
        if len(small) > _MANY_SMALL:
            merged = self._write(np.concatenate([shards[path] for path in small]))
            for path in small:
                del shards[path]
                path.unlink()
            self._shards.append(merged)
        self._shards.extend(shards.values())

    def _load(self, path: Path) -> npt.NDArray[Any] | None:
        try:
            rows = _mapped(path)
            sound = rows.dtype == self._row and _checksum(rows) == path.stem.rpartition("-")[2]
        except ValueError:
            sound = False
        if not sound:
            logger.warning("%s: this file is corrupt; its texts are embedded again", path)
            path.unlink(missing_ok=True)
        return rows if sound else None

    def _write(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        used = [int(path.name.partition("-")[0]) for path in self._folder.glob("[0-9]*-*.npy")]
        path = self._folder / f"{max(used, default=0) + 1:08d}-{_checksum(rows)}.npy"
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, rows, allow_pickle=False)
        return _mapped(path)

    def _index(self) -> None:
        """Sort the hashes of all shards; put off until asked for, as a build puts many shards."""
        if self._indexed == len(self._shards):
            return
        counts = [len(rows) for rows in self._shards]
        shard_of = np.repeat(np.arange(len(counts)), counts)
        row_of = np.concatenate([np.arange(count) for count in counts])
        hashes = np.concatenate([rows["hash"] for rows in self._shards])
        self._hashes, first = np.unique(hashes, return_index=True)
        self._places = np.column_stack([shard_of, row_of])[first]
        self._indexed = len(self._shards)


def _mapped(path: Path) -> npt.NDArray[Any]:
    """Map the rows of a shard into memory.

    Raises:
        DataError: it cannot be read, which tells nothing of its content.
        ValueError: its content is no array.
    """
    try:
        rows: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")  # type: ignore[no-untyped-call]
    except OSError as error:
        raise DataError(
            f"{path}: the vectors cannot be read ({error.strerror or error}); where too many files "
            "are open, allow more with `ulimit -n`; then run `shelfwise index build`"
        ) from error
    return rows


def _checksum(rows: npt.NDArray[Any]) -> str:
    return f"{crc32(rows.view(np.uint8).data):08x}"
