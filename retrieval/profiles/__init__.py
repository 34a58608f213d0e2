"""Profiles: from a shopper's behaviour to typed facts, and to the text that the model reads."""

from retrieval.behaviour import PastEvent
from retrieval.profiles.builder import ProfileBuilder
from retrieval.profiles.history import KIND_WEIGHTS, untimed_purchases
from retrieval.profiles.store import POPULAR_DAYS, DuckDBProfileStore

__all__ = [
    "KIND_WEIGHTS",
    "POPULAR_DAYS",
    "DuckDBProfileStore",
    "PastEvent",
    "ProfileBuilder",
    "untimed_purchases",
]
