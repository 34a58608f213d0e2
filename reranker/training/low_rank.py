"""LoRA layers around a frozen model, and a leaner way to compute them.

The layers are peft's own, so that what is saved is an ordinary peft adapter. Their arithmetic is
peft's too, but written as one autograd function: peft's adds, for every layer, casts and sums over
tensors of the layer's width, and these cost a processor about as much as the layer itself.

Importing this module loads torch and peft.
"""

from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear as PeftLinear
from torch import Tensor, nn

from reranker.settings import TrainingSettings

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
        base: Any = self.get_base_layer()
        if self.disable_adapters:
            plain: Tensor = base(x)
            return plain
        flat = x.reshape(-1, x.shape[-1]).to(base.weight.dtype)
        result: Tensor = LowRankLinear.apply(  # type: ignore[no-untyped-call]
            flat,
            base.weight,
            base.bias,
            self.lora_A[ADAPTER].weight,
            self.lora_B[ADAPTER].weight,
            self.scaling[ADAPTER],
        )
        return result.view(*x.shape[:-1], -1)


def attach(model: Any, settings: TrainingSettings) -> Any:
    """Freeze a model and put LoRA or DoRA layers around all of its linear layers but the output.

    Args:
        model: a causal `PreTrainedModel` on its device.
        settings: rank, scale, dropout and seed of the layers. The model's answers are not changed
            by their first values.

    Returns:
        The `peft.PeftModel`, its adapter's parameters in float32.
    """
    torch.manual_seed(settings.seed)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type] # fractions work, and are saved
        lora_dropout=settings.dropout,
        use_rslora=settings.rank_stabilised,
        use_dora=settings.method == "dora",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
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
    """Let the LoRA layers of a peft model compute leanly; return how many there are.

    Layers of other kinds (with dropout, DoRA and the like) are left as they are.
    """
    layers = [layer for layer in wrapped.modules() if type(layer) is PeftLinear]
    plain = [
        layer
        for layer in layers
        if not layer.lora_variant and isinstance(layer.lora_dropout[ADAPTER], nn.Identity)
    ]
    for layer in plain:
        layer.__class__ = LeanLinear
    return len(plain)


def trained(wrapped: Any) -> dict[str, nn.Parameter]:
    """Return the parameters of a model that training changes, by name."""
    return {name: p for name, p in wrapped.named_parameters() if p.requires_grad}
