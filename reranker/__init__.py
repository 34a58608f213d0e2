"""Shelfwise: re-rank a shop's search results for each shopper with an open LLM.

from reranker import SearchRequest, build

with build() as shelf:
    result = shelf.search(SearchRequest(query="yogurt", user_id="1228"))
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reranker.errors import (
        ConfigError,
        DataError,
        IndexMismatchError,
        ModelError,
        OutputError,
        ShelfwiseError,
    )
    from reranker.pipeline import Reranker
    from reranker.schema import (
        BehaviourEvent,
        Candidate,
        Filters,
        Product,
        RankedItem,
        RerankResult,
        SearchRequest,
        UserProfile,
    )
    from reranker.settings import Settings
    from reranker.wiring import build

_HOMES = {
    "ConfigError": "errors",
    "DataError": "errors",
    "IndexMismatchError": "errors",
    "ModelError": "errors",
    "OutputError": "errors",
    "ShelfwiseError": "errors",
    "Reranker": "pipeline",
    "BehaviourEvent": "schema",
    "Candidate": "schema",
    "Filters": "schema",
    "Product": "schema",
    "RankedItem": "schema",
    "RerankResult": "schema",
    "SearchRequest": "schema",
    "UserProfile": "schema",
    "Settings": "settings",
    "build": "wiring",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the models' libraries take seconds, and `--help` needs none of them."""
    if name not in _HOMES:
        raise AttributeError(f"module 'reranker' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"reranker.{_HOMES[name]}"), name)


__all__ = [
    "BehaviourEvent",
    "Candidate",
    "ConfigError",
    "DataError",
    "Filters",
    "IndexMismatchError",
    "ModelError",
    "OutputError",
    "Product",
    "RankedItem",
    "RerankResult",
    "Reranker",
    "SearchRequest",
    "Settings",
    "ShelfwiseError",
    "UserProfile",
    "build",
]
