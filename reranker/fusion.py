"""Blend what the stages found into the final order, and say why each product stands where it does.

Each stage gives every product a share between 0 and 1: the model and recall by rank (Borda count:
first 1, last 0), interest as it is. The final score is their weighted mean. Products that the model
did not see follow those that it saw, in the fallback blend of recall and interest.
"""

from collections.abc import Callable, Sequence
from typing import Literal

from reranker.interest import Interest
from reranker.listwise import Judgement
from reranker.schema import Candidate, RankedItem, UserProfile, Value
from reranker.settings import FusionSettings


def prerank(
    candidates: Sequence[Candidate], profile: UserProfile | None, weights: FusionSettings
) -> tuple[Candidate, ...]:
    """Return the candidates in the order in which the model's window takes them.

    It is the fallback order: recall blended with the profile's interest, so that what the shopper
    buys again is among the few that the model judges.
    """
    unjudged = Judgement.nothing(len(candidates))
    evidence = _gather(candidates, unjudged, profile)
    return tuple(item.candidate for item, _ in _blend(evidence, weights, with_model=False))


class _Evidence(Value):
    candidate: Candidate
    llm_logprob: float | None
    llm_rank: int | None
    llm_reason: str | None
    interest: float | None
    facts: tuple[str, ...]


def fuse(
    candidates: Sequence[Candidate],
    judgement: Judgement,
    profile: UserProfile | None,
    weights: FusionSettings,
) -> tuple[RankedItem, ...]:
    """Return every candidate exactly once, in final order.

    Args:
        candidates: in any order.
        judgement: of the model, aligned with the candidates.
        profile: of the shopper, None for an anonymous one.
        weights: of the blend.
    """
    evidence = _gather(candidates, judgement, profile)
    seen = [item for item in evidence if item.llm_rank is not None]
    unseen = [item for item in evidence if item.llm_rank is None]
    ranked = _blend(seen, weights, with_model=True, base=1.0 if unseen else 0.0)
    ranked += _blend(unseen, weights, with_model=False)
    return tuple(
        _ranked_item(item, score, rank, len(seen), placed_by=_placed_by(item, weights))
        for rank, (item, score) in enumerate(ranked, start=1)
    )


def _gather(
    candidates: Sequence[Candidate], judgement: Judgement, profile: UserProfile | None
) -> list[_Evidence]:
    interest = Interest(profile) if profile else None
    evidence = []
    for index, candidate in enumerate(candidates):
        value, facts = interest.of(candidate.product) if interest else (None, ())
        evidence.append(
            _Evidence(
                candidate=candidate,
                llm_logprob=judgement.logprobs[index],
                llm_rank=judgement.places[index],
                llm_reason=judgement.reasons[index],
                interest=value,
                facts=facts,
            )
        )
    return evidence


def _blend(
    items: Sequence[_Evidence], weights: FusionSettings, *, with_model: bool, base: float = 0.0
) -> list[tuple[_Evidence, float]]:
    recall = _borda(items, lambda item: item.candidate.recall_rank)
    model = _borda(items, lambda item: item.llm_rank or 0)
    scored = []
    for position, item in enumerate(items):
        parts = (
            [(weights.model, model[position]), (weights.recall, recall[position])]
            if with_model
            else [(1.0, recall[position])]
        )
        share = weights.interest if with_model else weights.fallback_interest
        if item.interest is not None:
            parts.append((share, item.interest))
        total = sum(weight for weight, _ in parts)
        blended = sum(weight * value for weight, value in parts) / total if total else 0.0
        scored.append((item, base + blended))
    return sorted(scored, key=lambda pair: (-pair[1], pair[0].candidate.recall_rank))


def _borda(items: Sequence[_Evidence], rank: Callable[[_Evidence], int]) -> list[float]:
    order = sorted(range(len(items)), key=lambda index: rank(items[index]))
    last = max(len(items) - 1, 1)
    shares = [0.0] * len(items)
    for place, index in enumerate(order):
        shares[index] = 1 - place / last
    return shares


def _placed_by(item: _Evidence, weights: FusionSettings) -> Literal["model", "recall", "interest"]:
    """Return the stage that weighs most in an item's place."""
    if item.llm_rank is None:
        return "interest" if item.interest and weights.fallback_interest > 1 else "recall"
    if weights.model and weights.model >= max(weights.recall, weights.interest):
        return "model"
    return "interest" if item.interest and weights.interest > weights.recall else "recall"


def _ranked_item(
    item: _Evidence,
    score: float,
    rank: int,
    seen: int,
    *,
    placed_by: Literal["model", "recall", "interest"],
) -> RankedItem:
    candidate = item.candidate
    if item.llm_rank is not None:
        judged = f"model: {item.llm_rank} of {seen}"
    else:
        judged = "not judged by the model"
    parts = [judged, f"recall: {candidate.recall_rank}{_arms(candidate)}", *item.facts]
    return RankedItem(
        product=candidate.product,
        rank=rank,
        score=score,
        recall_rank=candidate.recall_rank,
        recall_score=candidate.recall_score,
        dense_rank=candidate.dense_rank,
        lexical_rank=candidate.lexical_rank,
        from_history=candidate.from_history,
        llm_logprob=item.llm_logprob,
        llm_reason=item.llm_reason,
        interest=item.interest,
        facts=item.facts,
        placed_by=placed_by,
        reason="; ".join(parts),
    )


def _arms(candidate: Candidate) -> str:
    if candidate.from_history:
        return " (from the shopper's history)"
    arms = [("words", candidate.lexical_rank), ("meaning", candidate.dense_rank)]
    found = [f"{name} {rank}" for name, rank in arms if rank is not None]
    return f" ({', '.join(found)})" if found else ""
