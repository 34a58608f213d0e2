"""AdaLoRA: matrices of low rank whose ranks move to the layers that need them.

Zhang et al. 2023, "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning" (arXiv
2303.10512). Layers and budget are peft's; what comes out is an ordinary LoRA adapter, since the
singular values go into one of the two matrices.

Importing this module loads torch and peft.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from peft import AdaLoraConfig, LoraConfig
from peft.tuners.adalora.layer import SVDLinear
from torch import Tensor

from reranker.errors import ConfigError
from reranker.models.adapter import AdapterConfig
from reranker.settings import TrainingSettings
from reranker.training.methods.base import check_method
from reranker.training.methods.low_rank import ADAPTER, LowRank, common
from reranker.training.plan import steps_of

_FEWEST_STEPS = 10
_MORE = 1.5
"""Ranks to begin with, for each that is left; as in the paper."""
_BEFORE, _AFTER = 0.1, 0.3
"""Shares of the steps before the budget begins to fall, and after it has fallen."""
_ORTHOGONALITY = 0.1
"""Weight of the distance of the matrices from orthogonal ones; the paper takes 0.1 to 0.5."""
_SEEN = ("exp_avg_ipt", "exp_avg_unc")
"""What peft remembers of each parameter: its importance, and how uncertain that is."""
_KEPT = "kept"


def first_rank(settings: TrainingSettings) -> int:
    """Return the rank of every layer before any is taken away; saved adapters have it, too."""
    return math.ceil(_MORE * settings.rank)


def adaptive_config(settings: TrainingSettings) -> AdaLoraConfig:
    """Return peft's configuration, by which each layer has ``settings.rank`` on average in the end.

    Raises:
        ConfigError: there are too few steps to tell what each layer needs, or a setting makes no
            sense with it.
    """
    steps = steps_of(settings)
    for name in ("rank_stabilised", "patience"):
        if getattr(settings, name):
            raise ConfigError(
                f"training.{name}: does not go with training.method = adalora, whose scale and "
                "steps are fixed: leave it out"
            )
    if steps < _FEWEST_STEPS:
        raise ConfigError(
            f"training.method = adalora takes {_FEWEST_STEPS} steps at least, and "
            f"training.lists = {settings.lists} makes {steps}: set more lists, or a smaller batch"
        )
    return AdaLoraConfig(
        init_r=first_rank(settings),
        target_r=settings.rank,
        tinit=int(_BEFORE * steps),
        tfinal=int(_AFTER * steps),
        total_step=steps,
        orth_reg_weight=_ORTHOGONALITY,
        **common(settings),
    )


class AdaptiveRank(LowRank):
    """AdaLoRA over one model, and its budget of ranks. It is saved as plain LoRA."""

    def __init__(self, model: Any, settings: TrainingSettings, *, lean: bool = True) -> None:
        """See `LowRank`.

        Raises:
            ConfigError: there are too few steps, or a setting makes no sense with them.
        """
        super().__init__(model, settings, lean=lean)
        self._tuner = self.wrapped.base_model
        self._config: AdaLoraConfig = self.wrapped.peft_config[ADAPTER]
        self._layers: dict[str, Any] = {
            name: layer
            for name, layer in self.wrapped.named_modules()
            if isinstance(layer, SVDLinear)
        }

    def config_of(self, settings: TrainingSettings) -> LoraConfig:
        """Return peft's configuration."""
        return adaptive_config(settings)

    def regularisation(self) -> Tensor:
        """Return what the loss adds for vectors that are not orthogonal, a scalar."""
        distances = []
        for layer in self._layers.values():
            down, up = layer.lora_A[ADAPTER], layer.lora_B[ADAPTER]
            one = torch.eye(len(down), device=down.device)
            distances += [(down @ down.T - one).norm(), (up.T @ up - one).norm()]
        return self._config.orth_reg_weight * torch.stack(distances).mean()

    def after_step(self, step: int) -> None:
        """Take in the gradients of a step, counted from 1, and take ranks away that matter least.

        Those that are gone when the budget has fallen stay away.
        """
        self._tuner.update_and_allocate(step)

    def is_settled(self, step: int) -> bool:
        """Tell whether the budget has fallen by a step, so that what is saved keeps to it."""
        return step >= (self._config.total_step or 0) - self._config.tfinal

    def constrain(self, values: Mapping[str, Tensor]) -> None:
        """Take the ranks that are gone from other values of the parameters, such as an average."""
        for name, kept in (self._config.rank_pattern or {}).items():
            value = values[f"base_model.model.{name}"]
            value.masked_fill_(~torch.tensor(kept, device=value.device).view(-1, 1), 0.0)

    def state(self) -> dict[str, Tensor]:
        """Return what the budget remembers, by name."""
        allocator = self._tuner.rankallocator
        found = {
            f"{what}/{name}": tensor.clone()
            for what in _SEEN
            for name, tensor in getattr(allocator, what).items()
        }
        kept = self._config.rank_pattern or {}
        return found | {f"{_KEPT}/{name}": torch.tensor(flags) for name, flags in kept.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what a budget remembered."""
        allocator, kept = self._tuner.rankallocator, {}
        for key, tensor in state.items():
            what, _, name = key.partition("/")
            if what == _KEPT:
                kept[name] = tensor.tolist()
                continue
            getattr(allocator, what)[name] = tensor.clone()
            allocator.ipt[name] = torch.zeros_like(tensor)
        self._config.rank_pattern = kept or None

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors of the LoRA adapter that computes the same, by peft's names."""
        found = {}
        for name, layer in self._layers.items():
            singular = layer.lora_E[ADAPTER]
            found[f"{name}.lora_A.weight"] = (layer.lora_A[ADAPTER] * singular).detach()
            found[f"{name}.lora_B.weight"] = layer.lora_B[ADAPTER].detach().clone()
        return found

    def saved_config(self) -> LoraConfig:
        """Return peft's configuration of that LoRA adapter."""
        config = self._config
        return LoraConfig(
            r=config.init_r,
            lora_alpha=config.lora_alpha,
            lora_dropout=config.lora_dropout,
            target_modules=config.target_modules,
            task_type=config.task_type,
            inference_mode=True,
        )

    def loaded(self, tensors: Mapping[str, Tensor], told: AdapterConfig) -> dict[str, Tensor]:
        """Refuse: what is saved is plain LoRA, and what its ranks did is not known any more."""
        del tensors
        check_method(told, self.name)
        raise AssertionError("adapters are never saved as AdaLoRA's")
