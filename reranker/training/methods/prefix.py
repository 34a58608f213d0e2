"""Prefix tuning: keys and values in every layer that stand before each prompt and are learnt.

Li and Liang 2021, "Prefix-Tuning: Optimizing Continuous Prompts for Generation" (arXiv
2101.00190). The layers are peft's. They begin as the model's own activations of words, as in the
paper, and not at random: of words drawn from the vocabulary.

Importing this module loads torch, transformers and peft.
"""

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor
from transformers import DynamicCache

from reranker.errors import ConfigError
from reranker.models.adapter import PREFIX_TENSOR, AdapterConfig
from reranker.models.prefix import check_whole_past
from reranker.settings import TrainingSettings
from reranker.training.methods.base import LOW_RANK, Method, check_method, check_unset

_NAME = "prompt_encoder.default.embedding.weight"


class Prefix(Method):
    """A learned prefix before the prompts of one model, whose weights stay as they are."""

    name = saved_as = "prefix"
    attends_in_blocks = False

    def __init__(self, model: Any, settings: TrainingSettings) -> None:
        """Put a prefix before a model's prompts.

        Args:
            model: a causal `PreTrainedModel` on its device.
            settings: length and seed.

        Raises:
            ConfigError: activations are to be computed again, which forgets a prefix, a setting of
                matrices of low rank is set, or layers of the model keep no whole past.
        """
        if settings.gradient_checkpointing:
            raise ConfigError(
                "training.gradient_checkpointing: does not go with training.method = prefix: "
                "leave it out"
            )
        check_unset(settings, LOW_RANK, "which trains no matrices of low rank")
        check_whole_past(model)
        self.tokens_before = settings.prefix_tokens
        torch.manual_seed(settings.seed)
        words = torch.randint(len(model.get_input_embeddings().weight), (settings.prefix_tokens,))
        started = _activations(model, words)
        config = PrefixTuningConfig(
            task_type="CAUSAL_LM", num_virtual_tokens=settings.prefix_tokens
        )
        self.wrapped: Any = get_peft_model(model, config)
        (parameter,) = self.trained.values()
        parameter.data = started.to(parameter.device)

    def tensors(self) -> dict[str, Tensor]:
        """Return the prefix by peft's name."""
        return {PREFIX_TENSOR: self.trained[_NAME].detach()}

    def write_config(self, folder: Path, base: str) -> None:
        """Write peft's configuration."""
        config = copy(self.wrapped.peft_config["default"])
        config.base_model_name_or_path = base
        config.inference_mode = True
        config.save_pretrained(str(folder))

    def loaded(self, tensors: Mapping[str, Tensor], told: AdapterConfig) -> dict[str, Tensor]:
        """See `Method.loaded`."""
        check_method(told, self.saved_as)
        if told.num_virtual_tokens != len(self.trained[_NAME]):
            raise ConfigError(
                "its prefix has another length: set training.prefix_tokens = "
                f"{told.num_virtual_tokens}"
            )
        return {_NAME: tensors[PREFIX_TENSOR]}


def _activations(model: Any, words: Tensor) -> Tensor:
    """Return keys and values of some tokens in all layers as peft keeps them, float32.

    Shape (tokens, layers times 2 times heads times width).
    """
    cache = DynamicCache(config=model.config)
    with torch.no_grad():
        model(input_ids=words[None].to(model.device), past_key_values=cache, use_cache=True)
    layers: Any = cache.layers
    pairs = [tensor[0].transpose(0, 1) for layer in layers for tensor in (layer.keys, layer.values)]
    return torch.stack(pairs, dim=1).flatten(1).float()
