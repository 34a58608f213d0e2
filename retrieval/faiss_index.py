"""Nearest products by vector: exact for a small catalogue, approximate for a large one.

Both kinds are one FAISS structure, an inverted file of whole vectors. With a single cell, all of
which is always searched, it is exact and as quick as `IndexFlatIP` (6.4 against 6.1 ms for 100,000
vectors of 384 dimensions on one core), so that updates, filters and files are the same code for
both. Why IVF for the large ones and not HNSW: products come and go, and HNSW cannot remove; and
among real products, thousands of which lie close together, IVF found more of the true hundred
nearest in the same time (97.5 % in 0.8 ms; HNSW with 32 links 96.8 % in 0.9 ms, and it loses
results when few products meet the filters).

The vectors of an approximate index are kept in float16, unless the catalogue is so dense that this
costs recall: it halves the memory and saves a third of the time, most of which goes by reading (0.9
in place of 1.3 ms at a million products; 99.9 % of the nearest hundred stay the same. In bfloat16
it would be 0.7 ms and 98.8 %).

Vectors have length 1; the score is their inner product, the cosine of the angle.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Any

import numpy as np

from reranker.errors import DataError, IndexMismatchError
from retrieval.embedder import CountProgress, Vectors
from retrieval.faiss_training import Truth, choose_cells, faiss, held_out, suits_half, train, tune
from retrieval.product_table import IntArray, replacing
from retrieval.vector_manifest import FORMAT, MANIFEST, REMEDY, VectorManifest, read_manifest

_ADD_BATCH = 65_536
_SELECTIVE = 0.5
_TIE_MARGIN, _MOST_TIES = 32, 32_768


class VectorIndex:
    """Vectors by product key. Any number of threads may read; changes need it alone."""

    def __init__(self, index: Any, manifest: VectorManifest) -> None:
        self._index = index
        self._keys = _stored_keys(index)
        self.manifest = manifest

    @classmethod
    def build(
        cls,
        keys: IntArray,
        vectors: Vectors,
        *,
        fingerprint: str,
        exact_limit: int,
        ann_recall: float,
        queries: Vectors | None = None,
        progress: CountProgress | None = None,
    ) -> "VectorIndex":
        """Index vectors of length 1 by product key.

        Args:
            keys: shape (products,), each once.
            vectors: shape (products, dimension).
            fingerprint: of the embedder that made the vectors.
            exact_limit: number of products up to which the search is exact.
            ann_recall: recall@100 that an approximate search is tuned to.
            queries: what to tune with, best the vectors of texts like those that shoppers write;
                None takes products that were held out of the training.
            progress: called with the number of products added and their total.
        """
        count, dimension = vectors.shape
        cells = choose_cells(count) if count > exact_limit else 1
        truth = None
        if cells > 1:
            sample = vectors[held_out(count)] if queries is None or not len(queries) else queries
            truth = Truth(vectors, sample)
        half = truth is not None and suits_half(truth, ann_recall)
        index = train(vectors, cells, half=half)
        for start in range(0, count, _ADD_BATCH):
            end = min(start + _ADD_BATCH, count)
            index.add_with_ids(vectors[start:end], keys[start:end])
            if progress is not None:
                progress(end, count)
        nprobe, recall = 1, 1.0
        if truth is not None:
            nprobe, recall = tune(index, keys, truth, ann_recall)
        manifest = VectorManifest(
            model=fingerprint,
            dimension=dimension,
            kind="approximate" if cells > 1 else "exact",
            numbers="float16" if half else "float32",
            products=count,
            exact_limit=exact_limit,
            ann_recall=ann_recall,
            cells=cells,
            nprobe=nprobe,
            trained_on=count,
            recall=recall,
        )
        return cls(index, manifest)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def keys(self) -> IntArray:
        """The keys of all products, ascending."""
        return self._keys

    def fits(self, count: int, *, exact_limit: int, ann_recall: float) -> bool:
        """Tell whether this index may go on to hold ``count`` products, or one is to be built."""
        made = self.manifest
        if (made.exact_limit, made.ann_recall) != (exact_limit, ann_recall):
            return False
        if made.kind == "exact":
            return count <= exact_limit
        return exact_limit < count <= 2 * made.trained_on

    def add(self, keys: IntArray, vectors: Vectors, *, queries: Vectors | None = None) -> None:
        """Add products, or replace those whose key is there.

        An exact index that outgrows its limit becomes approximate, and an approximate one that has
        doubled is trained again; ``queries`` is for these cases, as in `build`.
        """
        self.remove(keys)
        count, limit = len(self) + len(keys), self.manifest.exact_limit
        if count > (limit if self.manifest.kind == "exact" else 2 * self.manifest.trained_on):
            rebuilt = self.build(
                np.concatenate([self._keys, keys]),
                np.concatenate([self.vectors(self._keys), vectors]),
                fingerprint=self.manifest.model,
                exact_limit=limit,
                ann_recall=self.manifest.ann_recall,
                queries=queries,
            )
            self._index, self.manifest = rebuilt._index, rebuilt.manifest
        else:
            self._index.add_with_ids(np.ascontiguousarray(vectors), keys)
        self._keys = np.union1d(self._keys, keys)
        self.manifest = self.manifest.model_copy(update={"products": count})

    def remove(self, keys: IntArray) -> None:
        """Remove products; keys that are not there are passed over."""
        gone = np.intersect1d(keys, self._keys)
        if gone.size:
            self._index.remove_ids(faiss.IDSelectorArray(gone))
            self._keys = np.setdiff1d(self._keys, gone, assume_unique=True)
            self.manifest = self.manifest.model_copy(update={"products": len(self)})

    def vectors(self, keys: IntArray) -> Vectors:
        """Return the vectors of products that are in the index, shape (keys, dimension).

        They are rounded as the manifest's ``numbers`` say.
        """
        found: Vectors = self._index.reconstruct_batch(np.ascontiguousarray(keys))
        return found

    def search(
        self, vector: Vectors, k: int, allowed: IntArray | None = None
    ) -> tuple[IntArray, Vectors]:
        """Return the keys and scores of at most k products, best first, ties by key.

        Args:
            vector: the query, shape (dimension,).
            k: the most that are wanted.
            allowed: keys that may be returned; None for all. The search takes no others into
                account, so that k come back wherever there are k. Where less than half of the
                products are allowed it leaves out no cell: they may all lie far from the query,
                and skipping the others saves the time.
        """
        count = len(self) if allowed is None else len(allowed)
        selector, nprobe = self._scope(allowed)
        k = min(k, count)
        depth = min(k + _TIE_MARGIN, count)
        keys, scores = self._search(vector, depth, selector, nprobe)
        if len(keys) < k:
            nprobe = self.manifest.cells
            keys, scores = self._search(vector, depth, selector, nprobe)
        # Many products share one text: look on until the cut does not part a tie.
        while 0 < k < len(keys) == depth < min(count, _MOST_TIES) and scores[k - 1] == scores[-1]:
            depth = min(4 * depth, count)
            keys, scores = self._search(vector, depth, selector, nprobe)
        order = np.lexsort((keys, -scores))[:k]
        return keys[order], scores[order]

    def _scope(self, allowed: IntArray | None) -> tuple[Any, int]:
        cells, nprobe = self.manifest.cells, self.manifest.nprobe
        if allowed is None:
            return None, nprobe
        size = int(max(self._keys[-1:].max(initial=0), allowed.max(initial=0))) + 1
        marks = np.zeros(size, np.bool_)
        marks[allowed] = True
        selector = faiss.IDSelectorBitmap(np.packbits(marks, bitorder="little"))
        if len(allowed) <= _SELECTIVE * len(self):
            return selector, cells
        return selector, min(cells, -(-nprobe * len(self) // len(allowed)))

    def _search(
        self, vector: Vectors, depth: int, selector: Any, nprobe: int
    ) -> tuple[IntArray, Vectors]:
        if depth == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        parameters = faiss.SearchParametersIVF(nprobe=nprobe, sel=selector)
        with _one_thread():
            scores, keys = self._index.search(vector[None], depth, params=parameters)
        found = keys[0] >= 0
        return keys[0][found], scores[0][found]

    def save(self, folder: Path) -> None:
        """Write index and manifest as one unit: a kill leaves the old ones or the new ones.

        The manifest names its index file, and is replaced only when that file is complete.
        """
        folder.mkdir(parents=True, exist_ok=True)
        numbers = [int(path.stem.rpartition("-")[2]) for path in folder.glob("vectors-*.faiss")]
        path = folder / f"vectors-{max(numbers, default=0) + 1}.faiss"
        with replacing(path) as temporary:
            faiss.write_index(self._index, str(temporary))
        update = {"file": path.name, "sha256": _sha256(path)}
        self.manifest = self.manifest.model_copy(update=update)
        with replacing(folder / MANIFEST) as temporary:
            temporary.write_text(self.manifest.model_dump_json(indent=2), "utf-8")
        for old in folder.glob("vectors-*"):
            if old != path:
                old.unlink()

    @classmethod
    def load(cls, folder: Path, *, fingerprint: str, dimension: int) -> "VectorIndex":
        """Read a saved index.

        Raises:
            IndexMismatchError: it was made with another model, dimension or format.
            DataError: it is missing or corrupt.
        """
        manifest = read_manifest(folder / MANIFEST)
        expected = {"format": FORMAT, "model": fingerprint, "dimension": dimension}
        for name, value in expected.items():
            if getattr(manifest, name) != value:
                raise IndexMismatchError(
                    f"{folder}: the index has {name} {getattr(manifest, name)}, in use is "
                    f"{value}; {REMEDY}"
                )
        path = folder / manifest.file
        try:
            sound = _sha256(path) == manifest.sha256
            index = faiss.read_index(str(path)) if sound else None
        except (OSError, RuntimeError) as error:
            raise DataError(f"{path}: the index cannot be read ({error}); {REMEDY}") from error
        if index is None or index.ntotal != manifest.products:
            raise DataError(f"{path}: the index is corrupt; {REMEDY}")
        return cls(index, manifest)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _stored_keys(index: Any) -> IntArray:
    lists = index.invlists
    parts = [
        faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell))
        for cell in range(index.nlist)
        if lists.list_size(cell)
    ]
    return np.sort(np.concatenate([np.empty(0, np.int64), *parts]))


@contextmanager
def _one_thread() -> Iterator[None]:
    # One query gains nothing from more, and the idle ones would spin on cores that others need.
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
