"""Every value that crosses a boundary: immutable, typed, and strict about unknown fields."""

from reranker.schema.asking import (
    VERDICT_SLOT,
    Prompt,
    SlotScores,
    TemplateRef,
)
from reranker.schema.base import (
    FrozenMapping,
    Identifier,
    Language,
    Readout,
    Value,
    one_line,
)
from reranker.schema.products import (
    CATEGORY_SEPARATOR,
    Filters,
    Product,
    category_paths,
)
from reranker.schema.results import (
    Candidate,
    Issue,
    IssueCode,
    Outcome,
    RankedItem,
    RerankResult,
    SearchRequest,
    Timings,
)
from reranker.schema.shoppers import (
    Affinity,
    AffinityKind,
    BehaviourEvent,
    EventKind,
    RecentItem,
    RepeatPurchase,
    UserProfile,
)

__all__ = [
    "CATEGORY_SEPARATOR",
    "VERDICT_SLOT",
    "Affinity",
    "AffinityKind",
    "BehaviourEvent",
    "Candidate",
    "EventKind",
    "Filters",
    "FrozenMapping",
    "Identifier",
    "Issue",
    "IssueCode",
    "Language",
    "Outcome",
    "Product",
    "Prompt",
    "RankedItem",
    "Readout",
    "RecentItem",
    "RepeatPurchase",
    "RerankResult",
    "SearchRequest",
    "SlotScores",
    "TemplateRef",
    "Timings",
    "UserProfile",
    "Value",
    "category_paths",
    "one_line",
]
