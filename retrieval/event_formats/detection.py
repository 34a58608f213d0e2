"""Which format a file of events is in, by the names that it holds."""

from collections.abc import Collection
from typing import Literal

from reranker.errors import ConfigError

Format = Literal["native", "ubi", "metarank"]
FORMATS: tuple[Format, ...] = ("native", "ubi", "metarank")
_UBI_HITS = ("query_response_hit_ids", "query_response_object_ids", "query_response_objects_ids")
_METARANK_ONE_OF = ("item", "user", "items", "fields", "ranking", "session")


def detect(names: Collection[str], native: Collection[str]) -> Format:
    """Tell the format of a file.

    Args:
        names: of its columns, or of the keys of its first documents.
        native: the columns that a file of native events must have, after mapping.
    """
    if all(name in names for name in native):
        return "native"
    ubi_query = "user_query" in names and "query_id" in names
    if "action_name" in names or ubi_query or any(name in names for name in _UBI_HITS):
        return "ubi"
    if {"event", "timestamp"} <= set(names) and any(name in names for name in _METARANK_ONE_OF):
        return "metarank"
    return "native"


def format_named(name: str) -> Format:
    """Return the format of a name.

    Raises:
        ConfigError: there is none.
    """
    for format_ in FORMATS:
        if format_ == name:
            return format_
    raise ConfigError(f"--format {name}: unknown; the formats are {', '.join(FORMATS)}")
