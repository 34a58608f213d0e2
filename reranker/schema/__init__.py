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
from reranker.schema.impressions import (
    GRADES,
    Attribution,
    Impression,
    ShownItem,
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
    PriceSense,
    PromotionUse,
    RecentItem,
    RepeatPurchase,
    SessionIntent,
    UserProfile,
)

__all__ = [
    "CATEGORY_SEPARATOR",
    "GRADES",
    "VERDICT_SLOT",
    "Affinity",
    "AffinityKind",
    "Attribution",
    "BehaviourEvent",
    "Candidate",
    "EventKind",
    "Filters",
    "FrozenMapping",
    "Identifier",
    "Impression",
    "Issue",
    "IssueCode",
    "Language",
    "Outcome",
    "PriceSense",
    "Product",
    "PromotionUse",
    "Prompt",
    "RankedItem",
    "Readout",
    "RecentItem",
    "RepeatPurchase",
    "RerankResult",
    "SearchRequest",
    "SessionIntent",
    "ShownItem",
    "SlotScores",
    "TemplateRef",
    "Timings",
    "UserProfile",
    "Value",
    "category_paths",
    "one_line",
]
