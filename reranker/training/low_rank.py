"""LoRA layers around a frozen model, and a leaner way to compute them.

The layers are peft's own, so that what is saved is an ordinary peft adapter. Their arithmetic is
peft's too, but written as one autograd function: peft's adds, for every layer, casts and sums over
tensors of the layer's width, and these cost a processor about as much as the layer itself.

Importing this module loads torch and peft.
"""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.adalora.layer import SVDLinear
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn

from reranker.settings import TrainingSettings
from reranker.training.adaptive_rank import adaptive_config

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


def attach(model: Any, settings: TrainingSettings) -> Any:
    """Freeze a model and put matrices of low rank beside all of its linear layers but the output.

    Args:
        model: a causal `PreTrainedModel` on its device.
        settings: method, rank, scale, dropout and seed of the layers. The model's answers are not
            changed by their first values.

    Returns:
        The `peft.PeftModel`, its adapter's parameters in float32.

    Raises:
        ConfigError: AdaLoRA has too few steps.
    """
    torch.manual_seed(settings.seed)
    common: dict[str, Any] = {
        "lora_alpha": settings.alpha,  # fractions work, and are saved
        "lora_dropout": settings.dropout,
        "target_modules": "all-linear",
        "task_type": "CAUSAL_LM",
    }
    if settings.method == "adalora":
        config: LoraConfig = adaptive_config(settings, **common)
    else:
        dora, stabilised = settings.method == "dora", settings.rank_stabilised
        config = LoraConfig(r=settings.rank, use_rslora=stabilised, use_dora=dora, **common)
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


def trained(wrapped: Any) -> dict[str, nn.Parameter]:
    """Return the parameters of a model that training changes, by name."""
    return {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
