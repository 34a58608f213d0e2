"""Rankers by name: what an evaluation compares."""

from eval.rankers.bench import Bench
from eval.rankers.ranked import Ranked, Ranker
from eval.rankers.registry import describe, make_ranker, ranker_names

__all__ = ["Bench", "Ranked", "Ranker", "describe", "make_ranker", "ranker_names"]
