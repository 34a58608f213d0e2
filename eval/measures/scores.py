"""Measures of an interest score: a number from 0 to 1 that a shopper wants a product."""

import numpy as np
from numpy.typing import ArrayLike

from eval.statistics.estimates import Estimate, Floats, Integers, codes, mean, ratio
from reranker.errors import DataError
from reranker.schema import Value


class ScoreMeasures(Value):
    """How good an interest score is.

    Attributes:
        accuracy: share of pairs on the right side of the threshold.
        recall: share of the wanted products at or above it.
        precision: share of wanted ones among those at or above it; None if none is.
        f1: harmonic mean of precision and recall; an F1 without any hit is 0.
        mae: mean absolute difference of score and label.
        calibration_error: expected calibration error, see `calibration_error`.
        threshold: from it on a score says that the product is wanted.
    """

    accuracy: Estimate
    recall: Estimate
    precision: Estimate | None
    f1: Estimate
    mae: Estimate
    calibration_error: float
    threshold: float


def measure_scores(
    scores: ArrayLike, labels: ArrayLike, shoppers: ArrayLike, *, threshold: float = 0.5
) -> ScoreMeasures:
    """Measure interest scores of (shopper, product) pairs against what was wanted.

    Args:
        scores: from 0 to 1.
        labels: 1 wanted, 0 not.
        shoppers: name or number of each pair's shopper.
        threshold: from it on a score counts as interest.

    Raises:
        DataError: a score is outside 0 to 1, a label is neither 0 nor 1, or none is 1.
    """
    score, label = _checked(scores, labels)
    units = codes(np.asarray(shoppers))
    said = (score >= threshold).astype(np.float64)
    hits = said * label
    return ScoreMeasures(
        accuracy=mean("accuracy", (said == label).astype(np.float64), units, bounds=(0.0, 1.0)),
        recall=ratio("recall", hits, label, units),
        precision=ratio("precision", hits, said, units) if said.any() else None,
        f1=ratio("F1", 2 * hits, said + label, units),
        mae=mean("MAE", np.abs(score - label), units, bounds=(0.0, 1.0)),
        calibration_error=calibration_error(score, label),
        threshold=threshold,
    )


def calibration_error(scores: ArrayLike, labels: ArrayLike, *, bins: int = 10) -> float:
    """Return the expected calibration error over bins of equal width.

    The mean over pairs of the absolute difference, within the pair's bin, of mean score and share
    of wanted ones (Guo et al. 2017, eq. 3). A score of 1 falls into the last bin.

    Raises:
        DataError: see `measure_scores`.
    """
    score, label = _checked(scores, labels)
    which: Integers = np.minimum((score * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(which, weights=score - label, minlength=bins)
    return float(np.abs(gaps).sum() / len(score))


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    score, label = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    if score.shape != label.shape or score.ndim != 1 or not len(score):
        raise DataError("scores and labels have to be two rows of the same length")
    if bad := np.flatnonzero(~((score >= 0) & (score <= 1))).tolist():
        raise DataError(f"score {bad[0] + 1} is {score[bad[0]]}: it has to lie between 0 and 1")
    if bad := np.flatnonzero((label != 0) & (label != 1)).tolist():
        raise DataError(f"label {bad[0] + 1} is {label[bad[0]]}: it has to be 0 or 1")
    if not label.any():
        raise DataError("no label is 1: recall and F1 of nothing wanted mean nothing")
    return score, label
