"""The form of a written ranking: as it is asked for, and as it is once read."""

from collections.abc import Sequence
from typing import Any, Literal

from reranker.schema import Value

RepairCode = Literal[
    "too_long",
    "thinking",
    "fullwidth",
    "chatter",
    "syntax",
    "truncated",
    "wrong_form",
    "several",
    "case",
    "duplicate",
    "out_of_range",
    "omitted",
]
CITES_CHARACTERS = 80
REASON_CHARACTERS = 160
LONGEST_ANSWER = 32_000
_FRAME_TOKENS = 24
_LABEL_TOKENS = 5
_REASON_TOKENS = 100


class Repair(Value):
    """Something in an answer that had to be put right.

    Attributes:
        code: ``too_long``, cut at `LONGEST_ANSWER` characters; ``thinking``, passed over;
            ``fullwidth`` signs; ``chatter`` beside the answer; ``syntax``, JSON with slips;
            ``truncated``, the text ends within the answer; ``wrong_form``, not the form asked for;
            ``several`` rankings, of which one was taken; ``case`` of labels; ``duplicate``,
            ``out_of_range`` and ``omitted`` labels.
        detail: what it was about, for people.
    """

    code: RepairCode
    detail: str


class Reason(Value):
    """What the model wrote on the product in one slot.

    Attributes:
        cites: the words that it says to have from the profile or the card; may be empty.
        text: on one line, without markup, at most `REASON_CHARACTERS` long.
    """

    slot: int
    cites: str
    text: str


class WrittenRanking(Value):
    """What an answer says about a window.

    Attributes:
        order: every slot once, best first.
        ranked: how many the model placed; the slots behind follow in the order shown.
        repairs: one a kind; empty for an answer as asked for.
        reasons: at most one a slot, as written; `supported_reasons` tells which hold.
    """

    order: tuple[int, ...]
    ranked: int
    repairs: tuple[Repair, ...] = ()
    reasons: tuple[Reason, ...] = ()


def answer_schema(labels: Sequence[str], reasons: int) -> dict[str, Any]:
    """Return the JSON Schema of an answer about slots with these labels.

    Everything is bounded, so that a model held to it comes to an end. No schema that inference
    engines enforce forbids a label twice: `parse_ranking` sees to that.

    Args:
        labels: of the slots shown.
        reasons: number of products to give a reason for; 0 leaves reasons out.
    """
    label = {"type": "string", "enum": list(labels)}
    properties: dict[str, Any] = {
        "ranking": {
            "type": "array",
            "items": label,
            "minItems": len(labels),
            "maxItems": len(labels),
        }
    }
    if reasons:
        fields = {
            "label": label,
            "cites": {"type": "string", "minLength": 1, "maxLength": CITES_CHARACTERS},
            "reason": {"type": "string", "minLength": 1, "maxLength": REASON_CHARACTERS},
        }
        properties["reasons"] = {
            "type": "array",
            "items": _closed(fields),
            "maxItems": min(reasons, len(labels)),
        }
    return _closed(properties)


def answer_tokens(count: int, reasons: int) -> int:
    """Return how many tokens to leave for an answer.

    The ranking always fits; long reasons in a script that the tokenizer splits finely may be cut.

    Args:
        count: number of slots.
        reasons: number of reasons asked for.
    """
    return _FRAME_TOKENS + _LABEL_TOKENS * count + _REASON_TOKENS * min(reasons, count)


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }
