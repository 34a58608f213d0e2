"""What training minimises: losses over the log-probabilities of one list's slots.

Importing this module loads torch.
"""

import torch
from torch import Tensor
from torch.nn import functional


def listwise(scores: Tensor, grades: Tensor) -> Tensor:
    """Return the cross-entropy of a list: its grades, as shares, against the softmax of its scores.

    ListNet's top-one loss (Cao et al. 2007, section 4). A list without a grade above 0 teaches
    nothing and has loss 0.

    Args:
        scores: log-probabilities of the slots, shape (slots,).
        grades: shape (slots,), not negative.
    """
    total = grades.sum()
    if total == 0:
        return scores.sum() * 0
    return -(grades / total * functional.log_softmax(scores, dim=0)).sum()


def ranknet(scores: Tensor, grades: Tensor) -> Tensor:
    """Return the mean logistic loss of all pairs in which one slot has the higher grade.

    RankNet (Burges et al. 2005, section 3).

    Args:
        scores: log-probabilities of the slots, shape (slots,).
        grades: shape (slots,).
    """
    higher = grades[:, None] > grades[None, :]
    if not higher.any():
        return scores.sum() * 0
    margins = scores[:, None] - scores[None, :]
    return functional.softplus(-margins[higher]).mean()


def distillation(scores: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the divergence of a list's softmax from a teacher's, both softened.

    Scaled by the squared temperature, so that gradients keep their size (Hinton et al. 2015,
    section 2). The higher the temperature, the more the order among unlikely candidates counts.

    Args:
        scores: log-probabilities of the slots, shape (slots,).
        teacher: scores of the teacher, shape (slots,).
        temperature: above 0.
    """
    believed = functional.log_softmax(teacher / temperature, dim=0)
    found = functional.log_softmax(scores / temperature, dim=0)
    return temperature**2 * (believed.exp() * (believed - found)).sum()


def list_loss(
    scores: Tensor,
    grades: Tensor,
    teacher: Tensor | None,
    *,
    objective: str,
    teacher_weight: float,
    temperature: float,
) -> Tensor:
    """Return the loss of one list: what was bought, and what a teacher believes.

    Args:
        scores: log-probabilities of the slots, shape (slots,).
        grades: shape (slots,).
        teacher: scores of the teacher, shape (slots,); None: no teacher.
        objective: ``listwise`` or ``ranknet``, for the grades.
        teacher_weight: share of the teacher's part, 0 to 1.
        temperature: of the teacher's part.
    """
    bought = (ranknet if objective == "ranknet" else listwise)(scores, grades)
    if teacher is None or teacher_weight == 0:
        return bought
    taught = distillation(scores, teacher, temperature)
    return (1 - teacher_weight) * bought + teacher_weight * taught


def as_tensor(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return numbers as a tensor beside another."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)
