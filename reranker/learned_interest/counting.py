"""What is counted over choices: what goes together, what follows, and products in factors."""

from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.learned_interest.choices import Choices, Integers
from reranker.ports import Progress, no_progress

Floats = npt.NDArray[np.float64]
Reals = npt.NDArray[np.float32]

NEIGHBOURS = 200
_FEWEST_SHOPPERS = 2
_BLOCK = 1024
_MANY = 5000
_FACTORS = 48
_SPARE = 8
_ROUNDS = 3
_DAMPING = 0.3


def bought(choices: Choices) -> Any:
    """Return shoppers by products, 1 where chosen: many purchases by one shopper are one.

    The last column is of the product of which nothing is known.
    """
    from scipy.sparse import csr_matrix

    users, number = np.unique(choices.user, return_inverse=True)
    shape = (len(users), choices.products + 1)
    found = csr_matrix((np.ones(len(number), np.float32), (number, choices.product)), shape=shape)
    found.sum_duplicates()
    found.data[:] = 1.0
    return found


def neighbours(
    bought: Any,
    popularity: Floats,
    rows: Integers,
    *,
    progress: Progress = no_progress,
    stage: str = "",
) -> Any:
    """Return products by products: the cosine of their columns of shoppers.

    Pairs that one shopper alone bought are left out: they would tell of that shopper. Of each
    product the 200 that it goes with most closely are kept, itself among them (item-based
    collaborative filtering, Linden et al. 2003).

    Args:
        bought: shoppers by products.
        popularity: of the products.
        rows: products, ascending, whose rows are counted; the others stay empty.
        progress: told of the rows counted.
        stage: what it is told.
    """
    from scipy.sparse import csr_matrix

    by_product = bought.T.tocsr()
    size = len(popularity)
    scale = (1 / np.sqrt(np.maximum(popularity, 1.0))).astype(np.float32)
    columns, values = [np.empty(0, np.int32)], [np.empty(0, np.float32)]
    counts = np.zeros(size + 1, np.int64)
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        both = _of_several((by_product[block] @ bought).tocsr())
        both.sort_indices()
        own = np.repeat(block, np.diff(both.indptr))
        both.data *= scale[own] * scale[both.indices]
        for row, first, last in zip(block, both.indptr[:-1], both.indptr[1:], strict=True):
            kept: slice | Integers = slice(first, last)
            if last - first > NEIGHBOURS:
                strongest = np.argpartition(both.data[kept], -NEIGHBOURS)[-NEIGHBOURS:]
                kept = first + np.sort(strongest)
            columns.append(both.indices[kept].astype(np.int32))
            values.append(both.data[kept].copy())  # a view would keep the whole block
            counts[row + 1] = len(columns[-1])
        progress(stage, min(start + _BLOCK, len(rows)), len(rows))
    ends = np.cumsum(counts)
    return csr_matrix((np.concatenate(values), np.concatenate(columns), ends), shape=(size, size))


def follows(choices: Choices) -> Any:
    """Return products by products: distinct shoppers who chose the second right after the first.

    Of two visits that follow on each other one pair counts, drawn at random where more was chosen
    in them: a sample, thin where baskets are large. What one shopper alone did is left out, as in
    `neighbours`, and of each product the 200 that most chose next are kept.
    """
    from scipy.sparse import csr_matrix

    next_visit = (np.diff(choices.sequence) == 0) & (np.diff(choices.visit) > 0)
    same = np.flatnonzero(next_visit)
    first, second = choices.product[same], choices.product[same + 1]
    order = np.lexsort((second, first, choices.user[same]))
    steps = [np.diff(column[order]) for column in (choices.user[same], first, second)]
    new = np.ones(len(order), bool)
    new[1:] = steps[0].astype(bool) | steps[1].astype(bool) | steps[2].astype(bool)
    kept = order[new]
    size = choices.products + 1
    ones = np.ones(len(kept), np.float32)
    found = csr_matrix((ones, (first[kept], second[kept])), shape=(size, size))
    found.sum_duplicates()
    return _strongest(_of_several(found))


def factors(bought: Any, popularity: Floats, rng: np.random.Generator) -> Reals:
    """Return products in factors, rows of length 1 (0 where fewer than two shoppers bought it).

    The right singular vectors of shoppers by products, scaled by their values; long baskets and
    popular products are damped. By randomised subspace iteration (Halko et al. 2011).
    """
    from scipy.sparse import diags

    basket = np.asarray(bought.sum(axis=1), np.float64).ravel()
    even = diags(1 / np.sqrt(np.maximum(basket, 1.0)))
    damped = diags(np.maximum(popularity, 1.0) ** -_DAMPING)
    matrix = (even @ bought @ damped).tocsr()
    kept = min(_FACTORS, *matrix.shape)
    space = rng.standard_normal((matrix.shape[1], min(kept + _SPARE, matrix.shape[1])))
    for _ in range(_ROUNDS):
        space, _ = np.linalg.qr(matrix.T @ (matrix @ space))
    small = matrix @ space
    vectors, squares, _ = np.linalg.svd(small.T @ small)
    found = (space @ vectors)[:, :kept] * np.sqrt(squares[:kept])
    found[popularity < _FEWEST_SHOPPERS] = 0.0  # it would lie where its only buyer lies
    length = np.linalg.norm(found, axis=1, keepdims=True)
    result: Reals = np.divide(found, length, out=np.zeros_like(found), where=length > 1e-9).astype(
        np.float32
    )
    return result


def _of_several(counts: Any) -> Any:
    """Return counts without those of a single shopper."""
    counts.data[counts.data < _FEWEST_SHOPPERS] = 0
    counts.eliminate_zeros()
    return counts


def _strongest(matrix: Any) -> Any:
    """Return a sparse matrix with at most 200 entries a row, the highest."""
    for row in np.flatnonzero(np.diff(matrix.indptr) > NEIGHBOURS).tolist():
        values = matrix.data[matrix.indptr[row] : matrix.indptr[row + 1]]
        values[np.argsort(-values, kind="stable")[NEIGHBOURS:]] = 0.0
    matrix.eliminate_zeros()
    return matrix


def block(matrix: Any, rows: Integers, columns: Integers) -> Floats:
    """Return some rows and columns of a sparse matrix, shape (rows, columns).

    scipy's own look-up copies or checks whole matrices now and then.
    """
    asked, back = np.unique(columns, return_inverse=True)
    found = np.zeros((len(rows), len(asked)))
    row, column, value = _taken(matrix, rows)
    places = np.minimum(np.searchsorted(asked, column), max(len(asked) - 1, 0))
    if len(asked):
        there = asked[places] == column
        found[row[there], places[there]] = value[there]
    return found[:, back]


def products_of_rows(matrix: Any, rows: Integers, others: Integers) -> Floats:
    """Return the scalar products of some rows of a sparse matrix with others, shape (M, N)."""
    if len(others) > _MANY:
        dense: Floats = np.asarray((matrix[rows] @ matrix[others].T).toarray(), np.float64)
        return dense
    row, column, value = _taken(matrix, rows)
    known, place = np.unique(column, return_inverse=True)
    left = np.zeros((len(rows), len(known)))
    left[row, place] = value
    result: Floats = left @ block(matrix, others, known).T
    return result


def _taken(matrix: Any, rows: Integers) -> tuple[Integers, Integers, Reals]:
    """Return the entries of some rows: the place of the row among them, the column, the value."""
    starts, ends = matrix.indptr[rows], matrix.indptr[rows + 1]
    lengths = ends - starts
    row = np.repeat(np.arange(len(rows)), lengths)
    within = np.arange(len(row)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    places = np.repeat(starts, lengths) + within
    return row, matrix.indices[places], matrix.data[places]
