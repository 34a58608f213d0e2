"""How an approximate index gets its cells, and how many of them a search must look into."""

from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval.embedder import Vectors
from retrieval.product_table import IntArray

faiss: Any = import_module("faiss")
"""Untyped: the stubs that FAISS brings lack half of what it exports."""

_TRAINING_PER_CELL = 64
_FEWEST_PER_CELL = 39  # FAISS warns of fewer
_TRAINING_ROUNDS = 6
_TUNING_QUERIES = 512
_TUNED_DEPTH = 100
_ROUNDED_BATCH = 131_072
_TIE = 1e-5
_MARGIN = 4


def choose_cells(count: int) -> int:
    """Return the number of cells for a number of products; 1 where they are too few for more."""
    return max(1, min(int(4 * count**0.5), count // _TRAINING_PER_CELL))


def held_out(count: int) -> IntArray:
    """Return the places of products that can stand in for queries: `train` does not see them.

    Of a small catalogue it sees some, for it needs enough for each cell.
    """
    return _drawn(count)[:_TUNING_QUERIES]


def train(vectors: Vectors, cells: int, *, half: bool) -> Any:
    """Return an empty index with its cells.

    Args:
        vectors: shape (products, dimension).
        cells: 1 for an exact index.
        half: keep vectors in float16; an exact index never does.
    """
    dimension = vectors.shape[1]
    metric = faiss.METRIC_INNER_PRODUCT
    quantizer = faiss.IndexFlatIP(dimension)
    if cells == 1:
        quantizer.add(np.zeros((1, dimension), np.float32))
        index = faiss.IndexIVFFlat(quantizer, dimension, 1, metric)
        index.is_trained = True
    else:
        if half:
            kind = faiss.ScalarQuantizer.QT_fp16
            index = faiss.IndexIVFScalarQuantizer(quantizer, dimension, cells, kind, metric, False)
        else:
            index = faiss.IndexIVFFlat(quantizer, dimension, cells, metric)
        left_out = min(_TUNING_QUERIES, len(vectors) - cells * _FEWEST_PER_CELL)
        drawn = _drawn(len(vectors))[left_out : left_out + cells * _TRAINING_PER_CELL]
        index.cp.niter = _TRAINING_ROUNDS
        index.train(vectors[np.sort(drawn)])
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    return index


class Truth:
    """The true nearest products of some queries: what a search is judged by.

    Products with equal texts are equally good: a result counts if its own vector scores like the
    true hundredth.
    """

    def __init__(self, vectors: Vectors, queries: Vectors) -> None:
        """Search for the nearest of each query among all.

        Args:
            vectors: shape (products, dimension).
            queries: shape (queries, dimension).
        """
        self._vectors = vectors
        self.queries = queries
        self.depth = min(_TUNED_DEPTH, len(vectors))
        scores, _ = faiss.knn(queries, vectors, self.depth, metric=faiss.METRIC_INNER_PRODUCT)
        self._floor = scores[:, -1] - np.float32(_TIE)

    def recall(self, query: int, rows: IntArray) -> float:
        """Return the share of the true hundred that rows found for a query hold."""
        scores = self._vectors[rows] @ self.queries[query]
        return float((scores >= self._floor[query]).sum()) / self.depth

    def recall_in_half(self) -> float:
        """Return the recall of a search that looks everywhere, but at vectors in float16."""
        best = faiss.ResultHeap(len(self.queries), self.depth, keep_max=True)
        for start in range(0, len(self._vectors), _ROUNDED_BATCH):  # rounded ones take memory, too
            rounded = self._vectors[start : start + _ROUNDED_BATCH].astype(np.float16)
            near, found = faiss.knn(
                self.queries,
                rounded.astype(np.float32),
                min(self.depth, len(rounded)),
                metric=faiss.METRIC_INNER_PRODUCT,
            )
            best.add_result(near, found + start)
        best.finalize()
        return float(np.mean([self.recall(query, rows) for query, rows in enumerate(best.I)]))


def suits_half(truth: Truth, wanted: float) -> bool:
    """Tell whether float16 costs at most a quarter of what a recall may leave out.

    It costs most where thousands of products lie closer to each other than it can tell.
    """
    return 1 - truth.recall_in_half() <= (1 - wanted) / 4


def tune(index: Any, keys: IntArray, truth: Truth, wanted: float) -> tuple[int, float]:
    """Find the fewest cells that reach a recall, take four times as many, and measure the recall.

    Shoppers' queries lie elsewhere than the tuning's, which are made of product texts: at a million
    products, cells tuned to .99 gave .986 on unseen names of product types. The margin costs about
    a millisecond.

    Args:
        index: filled with the vectors.
        keys: of the products in the order of the vectors, shape (products,).
        truth: every second of its queries is for the measurement.
        wanted: recall@100 that the search for the others reaches, less one standard error.

    Returns:
        The number of cells and the recall@100 on queries not used for tuning.
    """
    order = np.argsort(keys)

    def recall(part: slice, nprobe: int) -> npt.NDArray[np.float64]:
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        _, found = index.search(truth.queries[part], truth.depth, params=parameters)
        numbers = range(*part.indices(len(truth.queries)))
        return np.array(
            [
                truth.recall(query, order[np.searchsorted(keys, row[row >= 0], sorter=order)])
                for query, row in zip(numbers, found, strict=True)
            ]
        )

    def enough(nprobe: int) -> bool:
        found = recall(slice(0, None, 2), nprobe)
        return bool(found.mean() - found.std() / len(found) ** 0.5 >= wanted)

    low, high = 0, 1
    while high < index.nlist and not enough(high):
        low, high = high, min(2 * high, index.nlist)
    while high - low > max(1, high // 16):
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    nprobe = min(_MARGIN * high, index.nlist)
    rest = slice(1, None, 2) if len(truth.queries) > 1 else slice(0, None)
    return nprobe, float(recall(rest, nprobe).mean())


def _drawn(count: int) -> IntArray:
    return np.random.default_rng(0).permutation(count)
