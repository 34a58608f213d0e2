"""Blend what the stages found into the final order, and say why each product stands where it does.

Each stage gives every product a share between 0 and 1: the model and recall by rank (Borda count:
first 1, last 0), interest as it is. The final score is their weighted mean. Products that the model
did not see follow those that it saw, in the fallback blend of recall and interest.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from reranker.interest import Interest
from reranker.listwise import Judgement
from reranker.sales import with_sales
from reranker.schema import Candidate, ProductInterest, RankedItem, UserProfile
from reranker.settings import FusionSettings

Stage = Literal["model", "recall", "interest"]
_FEWEST = 2


class _Known(NamedTuple):
    """A candidate and the interest in it; None where nothing is known of anybody."""

    candidate: Candidate
    learned: ProductInterest | None
    interest: float | None
    facts: tuple[str, ...]


class _Evidence(NamedTuple):
    known: _Known
    llm_logprob: float | None = None
    llm_rank: int | None = None
    llm_reason: str | None = None


class _Placed(NamedTuple):
    score: float
    by: Stage


class Blend:
    """The candidates of one request in fallback order, and with the model's judgement the items.

    The fallback order is recall blended with interest, so that what the shopper
    buys again is among the few that the model judges.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        profile: UserProfile | None,
        learned: Sequence[ProductInterest] | None,
        weights: FusionSettings,
    ) -> None:
        """Take what was looked up.

        Args:
            candidates: in recall order.
            profile: of the shopper; None of an anonymous one.
            learned: one a candidate; None where nothing has been learnt of the shop's shoppers.
            weights: of the stages.
        """
        self._weights = weights
        known: list[_Known] = [_Known(each, None, None, ()) for each in candidates]
        if profile is not None or learned is not None:
            interest = Interest(profile)
            nothing: Sequence[ProductInterest | None] = (None,) * len(candidates)
            pairs = zip(candidates, nothing if learned is None else learned, strict=True)
            known = [_Known(each, one, *interest.of(each.product, one)) for each, one in pairs]
        ordered = sorted(
            zip(self._fallback(known), known, strict=True),
            key=lambda pair: (-pair[0].score, pair[1].candidate.recall_rank),
        )
        self._known = [each for _, each in ordered]
        self._shown = 0
        self._behind: tuple[RankedItem, ...] = ()

    def shown(self, most: int | None = None) -> tuple[Candidate, ...]:
        """Return the first candidates, or all, in fallback order: the model's windows take these.

        They tell how much they sell, where that is known. Two are the least: where others lie
        behind it, one alone would be called judged though the model had nothing to compare.
        """
        first = self._known[: None if most is None else max(most, _FEWEST)]
        self._shown = len(first)
        return with_sales([each.candidate for each in first], [each.learned for each in first])

    @property
    def hidden(self) -> int:
        """How many candidates are not among those `shown` last."""
        return len(self._known) - self._shown

    def prepare(self) -> None:
        """Make the items that the model is not shown, which `items` then finds made.

        For the time in which the model is waited for.
        """
        self._behind = self._unseen(self._known[self._shown :], self._shown)

    def items(self, judgement: Judgement) -> tuple[RankedItem, ...]:
        """Return every candidate exactly once, in final order.

        Args:
            judgement: of the model on all candidates, aligned with `shown`.
        """
        told = zip(
            self._known, judgement.logprobs, judgement.places, judgement.reasons, strict=True
        )
        seen = [_Evidence(*each) for each in told if each[2] is not None]
        behind = self._behind
        if len(seen) + len(behind) != len(self._known):  # not prepared, or a window was lost
            places = zip(self._known, judgement.places, strict=True)
            behind = self._unseen([each for each, place in places if place is None], len(seen))
        # Those that the model saw come first, whatever the weights.
        base = 1.0 if behind else 0.0
        judged = [each._replace(score=base + each.score) for each in self._judged(seen)]
        return _items(_best_first(seen, judged), len(seen), first=1) + behind

    def _unseen(self, known: Sequence[_Known], seen: int) -> tuple[RankedItem, ...]:
        """Return the items of candidates that the model has not judged, behind so many others."""
        unseen = [_Evidence(each) for each in known]
        return _items(_best_first(unseen, self._fallback(known)), seen, first=seen + 1)

    def _fallback(self, known: Sequence[_Known]) -> list[_Placed]:
        recall = _borda([each.candidate.recall_rank for each in known])
        share = self._weights.fallback_interest
        return [
            _blended((("recall", 1.0, place), ("interest", share, each.interest)))
            for each, place in zip(known, recall, strict=True)
        ]

    def _judged(self, seen: Sequence[_Evidence]) -> list[_Placed]:
        recall = _borda([item.known.candidate.recall_rank for item in seen])
        model = _borda([item.llm_rank or 0 for item in seen])
        weights = self._weights
        return [
            _blended(
                (
                    ("model", weights.model, judged),
                    ("recall", weights.recall, found),
                    ("interest", weights.interest, item.known.interest),
                )
            )
            for item, judged, found in zip(seen, model, recall, strict=True)
        ]


def _blended(stages: Sequence[tuple[Stage, float, float | None]]) -> _Placed:
    """Return the weighted mean of what is known, and the stage that gives most of it.

    The mean is 0 if nothing has a weight, and recall decides; of equal stages the heavier counts,
    then the first. A stage without weight gives nothing.

    Args:
        stages: each with its weight and its value, None where it is not known.
    """
    placed_by: Stage = "recall"
    most = (0.0, 0.0)
    total = score = 0.0
    for name, weight, value in stages:
        if value is None:
            continue
        part = weight * value
        total += weight
        score += part
        if (part, weight) > most:
            placed_by, most = name, (part, weight)
    return _Placed(score / total if total else 0.0, placed_by)


def _borda(ranks: Sequence[int]) -> list[float]:
    order = sorted(range(len(ranks)), key=ranks.__getitem__)
    last = max(len(ranks) - 1, 1)
    shares = [0.0] * len(ranks)
    for place, index in enumerate(order):
        shares[index] = 1 - place / last
    return shares


def _best_first(
    items: Sequence[_Evidence], placed: Sequence[_Placed]
) -> list[tuple[_Placed, _Evidence]]:
    return sorted(
        zip(placed, items, strict=True),
        key=lambda pair: (-pair[0].score, pair[1].known.candidate.recall_rank),
    )


def _items(
    ranked: Sequence[tuple[_Placed, _Evidence]], seen: int, *, first: int
) -> tuple[RankedItem, ...]:
    """Return items in their order.

    Args:
        ranked: best first.
        seen: number of candidates that the model has judged.
        first: rank of the first.
    """
    return tuple(
        _ranked_item(item, placed, rank, seen)
        for rank, (placed, item) in enumerate(ranked, start=first)
    )


def _ranked_item(item: _Evidence, placed: _Placed, rank: int, seen: int) -> RankedItem:
    candidate, _, interest, facts = item.known
    if item.llm_rank is not None:
        said = f", “{item.llm_reason}”" if item.llm_reason else ""
        judged = f"model: {item.llm_rank} of {seen}{said}"
    else:
        judged = "not judged by the model"
    parts = [judged, f"recall: {candidate.recall_rank}{_arms(candidate)}", *facts]
    return RankedItem(
        product=candidate.product,
        rank=rank,
        score=placed.score,
        recall_rank=candidate.recall_rank,
        recall_score=candidate.recall_score,
        dense_rank=candidate.dense_rank,
        lexical_rank=candidate.lexical_rank,
        from_history=candidate.from_history,
        llm_logprob=item.llm_logprob,
        llm_reason=item.llm_reason,
        interest=interest,
        facts=facts,
        placed_by=placed.by,
        reason="; ".join(parts),
    )


def _arms(candidate: Candidate) -> str:
    if candidate.from_history:
        return " (from the shopper's history)"
    words, meaning = candidate.lexical_rank, candidate.dense_rank
    if words is None:
        return "" if meaning is None else f" (meaning {meaning})"
    return f" (words {words})" if meaning is None else f" (words {words}, meaning {meaning})"
