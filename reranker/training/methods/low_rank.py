"""LoRA layers around a frozen model, and a leaner way to compute them.

The layers are peft's own, so that what is saved is an ordinary peft adapter. Their arithmetic is
peft's too, but written as one autograd function: peft's adds, for every layer, casts and sums over
tensors of the layer's width, and these cost a processor about as much as the layer itself.

Importing this module loads torch and peft.
"""

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from peft.tuners.adalora.layer import SVDLinear
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn

from reranker.errors import ConfigError
from reranker.models.adapter import AdapterConfig
from reranker.settings import TrainingSettings
from reranker.training.methods.base import Method, check_method, trained

ADAPTER = "default"
"""The name that peft gives an adapter that was not named."""


class LowRankLinear(torch.autograd.Function):
    """``x W^T + b + (x A^T)(s B)^T`` with gradients for x, A and B alone.

    x is (tokens, in), W (out, in), A (rank, in), B (out, rank). The product is computed in W's
    number type; the gradients of A and B have their own.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        down: Tensor,
        up: Tensor,
        scaling: float,
    ) -> Tensor:
        down, up = down.to(x.dtype), (up * scaling).to(x.dtype)
        low = x @ down.T
        result = nn.functional.linear(x, weight, bias)
        result.addmm_(low, up.T)
        ctx.save_for_backward(x, weight, low, down, up)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight, low, down, up = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        low_gradient = gradient @ up
        towards_x = None
        if ctx.needs_input_grad[0]:
            towards_x = gradient @ weight
            towards_x.addmm_(low_gradient, down)
        towards_down = (low_gradient.T @ x).float()
        towards_up = (gradient.T @ low).float().mul_(ctx.scaling)
        return towards_x, None, None, towards_down, towards_up, None


class LeanLinear(PeftLinear):
    """peft's LoRA layer around a linear one, for training a single plain adapter."""

    def forward(self, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:  # noqa: D102
        down, up = self.lora_A[ADAPTER].weight, self.lora_B[ADAPTER].weight
        return _lean(self, x, down, up, self.scaling[ADAPTER])


class LeanSVDLinear(SVDLinear):
    """peft's AdaLoRA layer around a linear one, for training a single adapter."""

    def forward(self, x: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:  # noqa: D102
        down = self.lora_A[ADAPTER] * self.lora_E[ADAPTER]
        scaling = self.scaling[ADAPTER] / self.r[ADAPTER]
        return _lean(self, x, down, self.lora_B[ADAPTER], scaling)


def _lean(layer: Any, x: Tensor, down: Any, up: Any, scaling: float) -> Tensor:
    base: Any = layer.get_base_layer()
    if layer.disable_adapters:
        plain: Tensor = base(x)
        return plain
    flat = x.reshape(-1, x.shape[-1]).to(base.weight.dtype)
    result: Tensor = LowRankLinear.apply(  # type: ignore[no-untyped-call]
        flat, base.weight, base.bias, down, up, scaling
    )
    return result.view(*x.shape[:-1], -1)


_LEAN: dict[type, type] = {PeftLinear: LeanLinear, SVDLinear: LeanSVDLinear}


class LowRank(Method):
    """LoRA, rank-stabilised if asked for, and DoRA.

    QLoRA is LoRA over a model that was loaded in 4 bits. What it saves is served beside the model's
    whole weights, which differ by their rounding from those that it was learnt beside.
    """

    def __init__(self, model: Any, settings: TrainingSettings, *, lean: bool = True) -> None:
        """Put matrices beside all linear layers of a model but its output.

        Args:
            model: a causal `PreTrainedModel` on its device.
            settings: method, rank, scale, dropout and seed.
            lean: let layers compute leanly, see `make_lean`.
        """
        self.name = settings.method
        self.saved_as = "lora" if self.name in {"qlora", "adalora"} else self.name
        self.wrapped = attach(model, self.config_of(settings), seed=settings.seed)
        self.lean_layers = make_lean(self.wrapped) if lean else 0

    def config_of(self, settings: TrainingSettings) -> LoraConfig:
        """Return peft's configuration."""
        return LoraConfig(
            r=settings.rank,
            use_rslora=settings.rank_stabilised,
            use_dora=settings.method == "dora",
            **common(settings),
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return peft's tensors."""
        # Asked for by name: peft would otherwise look the base model up on the hub.
        state = get_peft_model_state_dict(self.wrapped, save_embedding_layers=False)
        return {name: tensor.detach() for name, tensor in state.items()}

    def write_config(self, folder: Path, base: str) -> None:
        """Write peft's configuration."""
        config = copy(self.saved_config())
        config.base_model_name_or_path = base  # not the folder that it lies in here
        config.save_pretrained(str(folder))

    def saved_config(self) -> LoraConfig:
        """Return the configuration of what `tensors` gives."""
        config: LoraConfig = self.wrapped.peft_config[ADAPTER]
        return config

    def loaded(self, tensors: Mapping[str, Tensor], told: AdapterConfig) -> dict[str, Tensor]:
        """Name the tensors as the layers do; see `Method.loaded`."""
        check_method(told, self.saved_as)
        own = self.wrapped.peft_config[ADAPTER]
        if (told.lora_alpha, told.use_rslora) != (own.lora_alpha, own.use_rslora):
            raise ConfigError(
                "its products are scaled in another way: set training.alpha = "
                f"{told.lora_alpha:g} and training.rank_stabilised = {told.use_rslora}"
            )
        if told.r != own.r:
            raise ConfigError(f"the adapter has another rank: set training.rank = {told.r}")
        return {_trained_name(name): tensor for name, tensor in tensors.items()}


def common(settings: TrainingSettings) -> dict[str, Any]:
    """Return what the configurations of all matrices of low rank share."""
    return {
        "lora_alpha": settings.alpha,  # fractions work, and are saved
        "lora_dropout": settings.dropout,
        "target_modules": "all-linear",
        "task_type": "CAUSAL_LM",
    }


def attach(model: Any, config: LoraConfig, *, seed: int) -> Any:
    """Freeze a model and put matrices of low rank beside its layers.

    Args:
        model: a causal `PreTrainedModel` on its device.
        config: of the layers. The model's answers are not changed by their first values.
        seed: of these.

    Returns:
        The `peft.PeftModel`, its adapter's parameters in float32.
    """
    torch.manual_seed(seed)
    wrapped: Any = get_peft_model(model, config)
    for parameter in trained(wrapped).values():
        parameter.data = parameter.data.float()
    for layer in wrapped.modules():
        if isinstance(layer, PeftLinear) and layer.lora_variant:
            # peft's own are rounded as the weights are, which moves the first answers.
            magnitude: Any = layer.lora_magnitude_vector[ADAPTER]
            weight: Any = layer.get_base_layer().weight
            magnitude.weight.data = weight.float().norm(dim=1)
    return wrapped


def make_lean(wrapped: Any) -> int:
    """Let the LoRA and AdaLoRA layers of a peft model compute leanly; return how many there are.

    Layers of other kinds (with dropout, DoRA and the like) are left as they are.
    """
    count = 0
    for layer in wrapped.modules():
        lean = _LEAN.get(type(layer))
        if lean is None or layer.lora_variant:
            continue
        if isinstance(layer.lora_dropout[ADAPTER], nn.Identity):
            layer.__class__ = lean
            count += 1
    return count


def _trained_name(saved: str) -> str:
    """Return what peft calls a parameter that it saves under a name."""
    whole = saved if saved.endswith(".weight") else f"{saved}.weight"
    return f"{whole.removesuffix('.weight')}.{ADAPTER}.weight"
