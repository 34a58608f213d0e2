"""Prompts like the real ones, for tests of language models."""

import random
from collections.abc import Sequence

import anyio
import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from reranker.models.embedded import EmbeddedModel
from reranker.schema import VERDICT_SLOT, Prompt, Readout, SlotScores, TemplateRef

TEMPLATE = TemplateRef(name="test", version=1, language="en", sha256="0")
WORDS = ("oat", "milk", "tea", "bread", "coffee", "honey", "cheese", "apple", "rice", "basil")


def ask(readout: Readout, seed: int, *, query: str = "tea", slots: int = 6) -> Prompt:
    """Return a prompt like the real ones: task, query, cards, in one of many orders."""
    cards = [" ".join(random.Random(card).choices(WORDS, k=2 + card)) for card in range(slots)]
    random.Random(seed).shuffle(cards)
    labels = () if readout == "verdict" else tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"[:slots])
    lines = [
        f"[{label}] {card}" if labels else f"{card}. Buys it:{VERDICT_SLOT}"
        for label, card in zip(labels or [""] * slots, cards, strict=True)
    ]
    task = "You rank the products of an online shop for one shopper. Answer with a label."
    question = "\n".join([f"The shopper searches for: {query}", *lines])
    answer = [AIMessage("[")] if readout == "labels" else []
    return Prompt(
        messages=(SystemMessage(task), HumanMessage(question), *answer),
        order=tuple(range(slots)),
        labels=labels,
        readout=readout,
        template=TEMPLATE,
        token_count=1,
    )


def order(scores: SlotScores) -> list[int]:
    """Return the slots, best first."""
    return sorted(range(len(scores.logprobs)), key=lambda slot: -scores.logprobs[slot])


def read(model: EmbeddedModel, prompts: Sequence[Prompt]) -> tuple[SlotScores, ...]:
    return anyio.run(model.read, prompts)


def assert_same(first: Sequence[SlotScores], second: Sequence[SlotScores]) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
        assert order(one) == order(other)


def widest_gap(first: Sequence[SlotScores], second: Sequence[SlotScores]) -> float:
    """Return the largest difference between two models' log-probabilities."""
    return max(
        abs(one - other)
        for left, right in zip(first, second, strict=True)
        for one, other in zip(left.logprobs, right.logprobs, strict=True)
    )
