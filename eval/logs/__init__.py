"""Logged lists: what was shown where, with which propensity, and what became of it."""

from eval.logs.impressions import Joined, join_outcomes, read_impressions, write_impressions
from eval.logs.lists import LoggedLists

__all__ = [
    "Joined",
    "LoggedLists",
    "join_outcomes",
    "read_impressions",
    "write_impressions",
]
