"""Training of a model's own weights.

Importing this module loads torch.
"""

from typing import Any

import torch
from torch import Tensor


def unfreeze(model: Any) -> dict[str, Tensor]:
    """Let all weights of a model but the vocabulary's be trained.

    Weights are made float32, in which small steps are not lost; what computes in bfloat16 does so
    under autocast.

    Args:
        model: a causal `PreTrainedModel` on its device.

    Returns:
        Copies of what is trained as it was, by name.
    """
    vocabulary = {
        id(parameter)
        for layer in (model.get_input_embeddings(), model.get_output_embeddings())
        if layer is not None
        for parameter in layer.parameters()
    }
    model.float()
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) not in vocabulary)
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def computing_in(model: Any) -> torch.dtype | None:
    """Return the number type to compute in under autocast; None for that of the weights."""
    return torch.bfloat16 if model.dtype == torch.bfloat16 else None
