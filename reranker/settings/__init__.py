"""All settings: one frozen tree of sections; a module for each area, and the tree above them."""

from reranker.settings.behaviour import (
    CleaningSettings,
    LabelSettings,
    PrivacySettings,
    ProfileSettings,
    Purpose,
)
from reranker.settings.database import Database
from reranker.settings.ranking import (
    FusionSettings,
    ModelSettings,
    RankingSettings,
    ServerSettings,
)
from reranker.settings.section import Section
from reranker.settings.shop import EvaluationSettings, RetrievalSettings, StoreSettings
from reranker.settings.training import TrainingSettings
from reranker.settings.tree import CONFIG_FILE, ENV_PREFIX, Origin, Settings, flatten, origins

__all__ = [
    "CONFIG_FILE",
    "ENV_PREFIX",
    "CleaningSettings",
    "Database",
    "EvaluationSettings",
    "FusionSettings",
    "LabelSettings",
    "ModelSettings",
    "Origin",
    "PrivacySettings",
    "ProfileSettings",
    "Purpose",
    "RankingSettings",
    "RetrievalSettings",
    "Section",
    "ServerSettings",
    "Settings",
    "StoreSettings",
    "TrainingSettings",
    "flatten",
    "origins",
]
