"""The forms in which rerankers ask for a ranking, each written as its own prompt shows it."""

import json
import re
import string
from collections.abc import Sequence
from random import Random
from typing import Literal, get_args

FormName = Literal["labels", "letters", "numbers", "ids", "relevance"]
"""``labels``: Shelfwise's JSON. ``letters`` and ``numbers``: chains, as RankGPT's ``[2] > [1]``.
``ids``: LangChain's JSON of numbers from 0. ``relevance``: llama_index's ``Doc: 2, Relevance: 7``.
"""
FORMS: tuple[FormName, ...] = get_args(FormName)
MOST = 20
WORDS = (
    "it fits the budget",
    "this brand was bought before",
    "of its size",
    "reviews are good",
    "it matches the search",
    "the price is right",
)
TITLES = ("Green tea", "Desk lamp", "Coffee mug", "Oat milk", "Cable", "Notebook", "Soap", "Rice")


class Asked:
    """One question about some products, and the answer that would be right in form.

    Attributes:
        form: how the answer was asked for.
        order: the slots, best first, as the reply means it.
        random: source of whatever varies.
    """

    def __init__(self, form: FormName, order: Sequence[int], random: Random) -> None:
        self.form = form
        self.order = tuple(order)
        self.random = random

    @property
    def json(self) -> bool:
        """Whether the form is JSON."""
        return self.form in ("labels", "ids")

    @property
    def lettered(self) -> bool:
        """Whether labels are letters."""
        return self.form in ("labels", "letters")

    def label(self, slot: int) -> str:
        """Return what stands for a slot; one at or beyond the number of slots is no label."""
        if self.lettered:
            return string.ascii_uppercase[slot]
        return str(slot if self.form == "ids" else slot + 1)

    def labels(self, order: Sequence[int] | None = None) -> list[str]:
        """Return the labels of an order."""
        return [self.label(slot) for slot in (self.order if order is None else order)]

    def native(self, labels: Sequence[str] | None = None) -> str:
        """Return labels in exactly the form asked for."""
        return self.opened(self.labels() if labels is None else labels) + self._closing()

    def opened(self, labels: Sequence[str]) -> str:
        """Return the form asked for up to and with the last label."""
        if self.form == "labels":
            return '{"ranking": [' + ", ".join(f'"{label}"' for label in labels)
        if self.form == "ids":
            return '{"ranked_document_ids": [' + ", ".join(labels)
        return self.separator.join(self.entries(labels))

    def _closing(self) -> str:
        if not self.json:
            return ""
        if self.form == "ids" or self.random.random() < 0.5:
            return "]}"
        reasons = [
            {"label": label, "cites": "tea", "reason": self.random.choice(WORDS)}
            for label in self.labels()[:3]
        ]
        return f'], "reasons": {json.dumps(reasons)}}}'

    @property
    def separator(self) -> str:
        """What stands between entries."""
        return "\n" if self.form == "relevance" else " > "

    def entries(self, labels: Sequence[str] | None = None) -> list[str]:
        """Return one piece of text for each label, as far as possible in the form asked for."""
        labels = self.labels() if labels is None else labels
        if self.form == "relevance":
            count = len(labels)
            return [f"Doc: {one}, Relevance: {count - n}" for n, one in enumerate(labels)]
        return [f"[{label}]" for label in labels]

    def because(self) -> str:
        """Return half a sentence."""
        return f"because {self.random.choice(WORDS)}"


def quoted(text: str, opening: str, closing: str) -> str:
    """Return a text with its double quotes, or where it has none its labels, in other quotes."""
    if '"' in text:
        return re.sub(r'"([^"]*)"', rf"{opening}\1{closing}", text)
    return re.sub(r"(\[\w+\]|\b\d+\b)", rf"{opening}\1{closing}", text)
