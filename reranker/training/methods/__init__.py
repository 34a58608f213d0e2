"""The methods of training: matrices of low rank, learned prefixes, or a model's own weights.

Importing this package loads torch and peft.
"""

from typing import Any

from reranker.settings import TrainingSettings
from reranker.training.methods.adaptive_rank import AdaptiveRank
from reranker.training.methods.base import Method
from reranker.training.methods.low_rank import LowRank
from reranker.training.methods.prefix import Prefix
from reranker.training.methods.whole import Whole


def method_of(model: Any, settings: TrainingSettings, *, lean: bool = True) -> Method:
    """Make ready what is trained of a model.

    Args:
        model: a causal `PreTrainedModel` on its device.
        settings: method, its size, scale, dropout and seed.
        lean: compute layers in leaner ways, where there are some.

    Raises:
        ConfigError: the settings do not go with their method.
    """
    if settings.method == "full":
        return Whole(model, settings)
    if settings.method == "prefix":
        return Prefix(model, settings)
    if settings.method == "adalora":
        return AdaptiveRank(model, settings, lean=lean)
    return LowRank(model, settings, lean=lean)


__all__ = ["Method", "method_of"]
