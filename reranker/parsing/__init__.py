"""Written rankings: the form asked for, what was really written, and which reasons hold."""

from reranker.parsing.answer import parse_ranking
from reranker.parsing.form import (
    Reason,
    Repair,
    RepairCode,
    WrittenRanking,
    answer_schema,
    answer_tokens,
)
from reranker.parsing.reasons import DropCause, supported_reasons

__all__ = [
    "DropCause",
    "Reason",
    "Repair",
    "RepairCode",
    "WrittenRanking",
    "answer_schema",
    "answer_tokens",
    "parse_ranking",
    "supported_reasons",
]
