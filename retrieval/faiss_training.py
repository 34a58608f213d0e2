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
_MARGIN = 4


def choose_cells(count: int) -> int:
    """Return the number of cells for a number of products; 1 where they are too few for more."""
    return max(1, min(int(4 * count**0.5), count // _TRAINING_PER_CELL))


def train(vectors: Vectors, cells: int) -> tuple[Any, IntArray]:
    """Return an empty index with its cells, and the places of vectors kept out of training."""
    dimension = vectors.shape[1]
    quantizer = faiss.IndexFlatIP(dimension)
    order = np.random.default_rng(0).permutation(len(vectors))
    if cells == 1:
        quantizer.add(np.zeros((1, dimension), np.float32))
        index = faiss.IndexIVFFlat(quantizer, dimension, 1, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True
    else:
        half = faiss.ScalarQuantizer.QT_fp16
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, dimension, cells, half, faiss.METRIC_INNER_PRODUCT, False
        )
        held_out = min(_TUNING_QUERIES, len(vectors) - cells * _FEWEST_PER_CELL)
        index.cp.niter = _TRAINING_ROUNDS
        index.train(vectors[np.sort(order[held_out : held_out + cells * _TRAINING_PER_CELL])])
    index.set_direct_map_type(faiss.DirectMap.Hashtable)
    return index, order[:_TUNING_QUERIES]


def tune(
    index: Any, keys: IntArray, vectors: Vectors, queries: Vectors, wanted: float
) -> tuple[int, float]:
    """Find the fewest cells that reach a recall, take four times as many, and measure the recall.

    Shoppers' queries lie elsewhere than the tuning's, which are made of product texts: at a million
    products, cells tuned to .99 gave .986 on unseen names of product types. The margin costs about
    a millisecond.

    Args:
        index: filled with the vectors.
        keys: of the products in the index, shape (products,).
        vectors: shape (products, dimension).
        queries: shape (queries, dimension); every second one is for the measurement.
        wanted: recall@100 that the search for the others reaches, less one standard error.

    Returns:
        The number of cells and the recall@100 on queries not used for tuning. Products with equal
        texts are equally good: a result counts if its own vector scores like the true hundredth.
    """
    order = np.argsort(keys)
    depth = min(_TUNED_DEPTH, len(vectors))
    exact, _ = faiss.knn(queries, vectors, depth, metric=faiss.METRIC_INNER_PRODUCT)
    floor = exact[:, -1:] - np.float32(1e-5)

    def recall(part: slice, nprobe: int) -> npt.NDArray[np.float64]:
        parameters = faiss.SearchParametersIVF(nprobe=nprobe)
        _, found = index.search(queries[part], depth, params=parameters)
        rows = order[np.searchsorted(keys, found, sorter=order) % len(keys)]  # -1, if too few: any
        scores = np.einsum("qd,qkd->qk", queries[part], vectors[rows])
        return np.asarray(((scores >= floor[part]) & (found >= 0)).mean(axis=1), np.float64)

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
    rest = slice(1, None, 2) if len(queries) > 1 else slice(0, None)
    return nprobe, float(recall(rest, nprobe).mean())
