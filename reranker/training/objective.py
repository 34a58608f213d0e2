"""What training minimises: losses over the log-probabilities of one list's slots.

Importing this module loads torch.
"""

import torch
from torch import Tensor
from torch.nn import functional

from reranker.settings import TrainingSettings
from reranker.training.encoding import EncodedList
from reranker.training.examples import Logged


def listwise(scores: Tensor, grades: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the cross-entropy of a list: its grades, as shares, against the softmax of its scores.

    ListNet's top-one loss (Cao et al. 2007, section 4). A list without a grade above 0 teaches
    nothing and has loss 0. With inverse propensities as weights each wanted slot's part is as much
    larger as it was less likely to be seen (Ai et al. 2018, arXiv 1804.05938).

    Args:
        scores: log-probabilities of the slots, shape (slots,).
        grades: shape (slots,), not negative.
        weights: of the parts of the slots, shape (slots,); None: all 1.
    """
    total = grades.sum()
    if total == 0:
        return scores.sum() * 0
    parts = grades / total * functional.log_softmax(scores, dim=0)
    return -(parts if weights is None else parts * weights).sum()


def ranknet(scores: Tensor, grades: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean logistic loss of all pairs in which one slot has the higher grade.

    RankNet (Burges et al. 2005, section 3). Grades alone decide which slot is the better one; with
    inverse propensities as weights, a pair has the weight of its better slot (Joachims et al. 2017,
    arXiv 1608.04468, "Propensity-Weighted SVM-Rank").

    Args:
        scores: log-probabilities of the slots, shape (slots,).
        grades: shape (slots,).
        weights: of the pairs by their better slot, shape (slots,); None: all 1.
    """
    higher = grades[:, None] > grades[None, :]
    if not higher.any():
        return scores.sum() * 0
    margins = scores[:, None] - scores[None, :]
    losses = functional.softplus(-margins[higher])
    if weights is not None:
        losses = losses * weights[:, None].expand_as(margins)[higher]
    return losses.mean()


def lambdarank(scores: Tensor, grades: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return RankNet's loss with each pair weighted by what swapping it would do to nDCG.

    LambdaRank (Burges 2010, "From RankNet to LambdaRank to LambdaMART", section 4); gains are the
    grades, as in `validation.ndcg`.

    Args:
        scores: log-probabilities of the slots, shape (slots,).
        grades: shape (slots,).
        weights: see `ranknet`.
    """
    higher = grades[:, None] > grades[None, :]
    if not higher.any():
        return scores.sum() * 0
    ranks = torch.empty_like(scores)
    ranks[scores.argsort(descending=True)] = torch.arange(
        1, len(scores) + 1, dtype=scores.dtype, device=scores.device
    )
    discounts = 1 / torch.log2(ranks + 1)
    ideal = (grades.sort(descending=True).values * discounts.sort(descending=True).values).sum()
    gained = (grades[:, None] - grades[None, :]) * (discounts[:, None] - discounts[None, :])
    margins = scores[:, None] - scores[None, :]
    losses = functional.softplus(-margins) * gained.abs().detach() / ideal
    if weights is not None:
        losses = losses * weights[:, None]
    return losses[higher].sum()


def direct_preference(
    scores: Tensor,
    reference: Tensor,
    grades: Tensor,
    strength: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the mean loss of direct preference optimisation over all pairs of different grades.

    The better and the worse answer are two products in the same list: Rafailov et al. 2023 (arXiv
    2305.18290), equation 7.

    Args:
        scores: log-probabilities of the slots, shape (slots,).
        reference: those of the model without its adapter, shape (slots,).
        grades: shape (slots,).
        strength: beta; the higher, the closer to the reference.
        weights: see `ranknet`.
    """
    return ranknet(strength * (scores - reference), grades, weights)


def policy_value(scores: Tensor, grades: Tensor, logged: Logged, most: float) -> Tensor:
    """Return minus the reward of the logged first product, weighed by how likely it is now.

    A list as a bandit with its products as actions, of which the log shows the one in the first
    place: the estimate by inverse propensity, weights cut off (Swaminathan and Joachims 2015,
    "Counterfactual Risk Minimization", equation 3). Its gradient is the policy gradient.

    Args:
        scores: log-probabilities of the slots, shape (slots,).
        grades: shape (slots,); the logged product's is its reward.
        logged: which product the log shows first, and how likely that was.
        most: highest weight.
    """
    probability = functional.softmax(scores, dim=0)[logged.place]
    return -grades[logged.place] * (probability / logged.propensity).clamp(max=most)


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
    one: EncodedList,
    settings: TrainingSettings,
    reference: Tensor | None = None,
    written: Tensor | None = None,
) -> Tensor:
    """Return the loss of one list: what was wanted, what a teacher believes, and what is written.

    The loss of the order and that of the written ranking are joined as in FIRST (Gangi Reddy et al.
    2024, arXiv 2406.15657).

    Args:
        scores: log-probabilities of the slots, shape (slots,).
        one: the list.
        settings: objective, the teacher's part, and the weight of what is written.
        reference: log-probabilities without the adapter; for direct preferences alone.
        written: log-probabilities of the tokens of the ranking written out, shape (tokens,).
    """
    loss = _wanted(scores, one, settings, reference)
    if one.teacher is not None and settings.teacher:
        teacher = as_tensor(one.teacher, scores)
        taught = distillation(scores, teacher, settings.temperature)
        loss = (1 - settings.teacher) * loss + settings.teacher * taught
    if written is not None and len(written):
        loss = loss - settings.written * written.mean()
    return loss


def _wanted(
    scores: Tensor, one: EncodedList, settings: TrainingSettings, reference: Tensor | None
) -> Tensor:
    grades = as_tensor(one.grades, scores)
    weights = None if one.item_weights is None else as_tensor(one.item_weights, scores)
    match settings.objective:
        case "ranknet":
            return ranknet(scores, grades, weights)
        case "lambdarank":
            return lambdarank(scores, grades, weights)
        case "preference" if reference is not None:
            strength = settings.preference_strength
            return direct_preference(scores, reference, grades, strength, weights)
        case "policy" if one.logged is not None:
            return policy_value(scores, grades, one.logged, settings.policy_weight)
    return listwise(scores, grades, weights)


def as_tensor(values: tuple[float, ...], like: Tensor) -> Tensor:
    """Return numbers as a tensor beside another."""
    return torch.tensor(values, dtype=like.dtype, device=like.device)
