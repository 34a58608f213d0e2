"""What the language model is asked, and what it says."""

from langchain_core.messages import BaseMessage
from pydantic import FiniteFloat

from reranker.schema.base import Language, Readout, Value

VERDICT_SLOT = "\x00"
"""Stands in a `verdict` prompt where the model's verdict token belongs. Product text, queries and
profiles are stripped of control characters, so that nothing else can contain it."""


class TemplateRef(Value):
    """The exact prompt template that was used."""

    name: str
    version: int
    language: Language
    sha256: str


class Prompt(Value):
    """One question to the language model about one window of candidates.

    Attributes:
        messages: the chat messages, in order; the candidates are in the last user message.
        order: slot i of the prompt shows candidate ``order[i]`` of the window.
        labels: for the ``labels`` readout, the label of each slot; empty for ``verdict``.
        token_count: estimate by the model's own tokenizer of the messages' text.
    """

    messages: tuple[BaseMessage, ...]
    order: tuple[int, ...]
    labels: tuple[str, ...]
    readout: Readout
    template: TemplateRef
    token_count: int


class SlotScores(Value):
    """What the language model said about the slots of one prompt.

    Attributes:
        logprobs: one natural-log probability a slot, in slot order.
        label_mass: probability on all labels together, 0 to 1; None for ``verdict``.
    """

    logprobs: tuple[FiniteFloat, ...]
    label_mass: float | None = None
