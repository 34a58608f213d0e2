"""Causal attention in blocks, forwards and backwards, for processors.

torch's own kernel for processors takes, for lists of some six hundred tokens, as long as half of
all the matrix products around it. Written as products of blocks in the model's number type, with
what is above the diagonal left out, it takes half of that. Softmax is computed in float32.

Importing this module loads torch and transformers.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "shelfwise_causal"
_BLOCK = 96


class CausalAttention(torch.autograd.Function):
    """Attention of queries (rows, heads, tokens, width) to keys and values of fewer heads."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:  # noqa: D102
        grouped, keys, values = _grouped(query * scaling, key), _flat(key), _flat(value)
        hidden = torch.ones(_BLOCK, _BLOCK, dtype=torch.bool, device=query.device).triu_(1)
        shares, results = [], []
        for start in range(0, query.shape[2], _BLOCK):
            asked = _block(grouped, start)
            width = asked.shape[2]
            end = start + width
            scores = torch.bmm(asked.flatten(1, 2), keys[:, :end].mT)
            diagonal = scores.view(*asked.shape[:3], end)[..., start:]
            diagonal.masked_fill_(hidden[:width, :width], float("-inf"))
            share = torch.softmax(scores, dim=-1)
            results.append(torch.bmm(share, values[:, :end]).view(asked.shape))
            shares.append(share)
        ctx.save_for_backward(grouped, keys, values, *shares)
        ctx.scaling = scaling
        ctx.shapes = query.shape, key.shape
        return torch.cat(results, dim=2).view(query.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        grouped, keys, values, *shares = ctx.saved_tensors
        given = gradients[0].reshape(grouped.shape)
        to_query = []
        to_key = torch.zeros_like(keys, dtype=torch.float32)
        to_value = torch.zeros_like(values, dtype=torch.float32)
        for number, share in enumerate(shares):
            start, end = number * _BLOCK, share.shape[-1]
            block = _block(grouped, start)
            asked, got = block.flatten(1, 2), _block(given, start).flatten(1, 2)
            slope = torch.bmm(got, values[:, :end].mT)
            slope = torch.ops.aten._softmax_backward_data(slope, share, -1, share.dtype)
            to_query.append(torch.bmm(slope, keys[:, :end]).view(block.shape))
            to_key[:, :end] += torch.bmm(slope.mT, asked)
            to_value[:, :end] += torch.bmm(share.mT, got)
        shape, narrow = ctx.shapes
        return (
            (torch.cat(to_query, dim=2) * ctx.scaling).view(shape),
            to_key.to(keys.dtype).view(narrow),
            to_value.to(values.dtype).view(narrow),
            None,
        )


def use_blocks(model: Any) -> None:
    """Let a model attend in blocks. Its attention masks are ignored: pad on the right only."""
    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, _no_mask)
    model.set_attn_implementation(NAME)


def _attend(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **_options: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers asks for it; the answer has shape (rows, tokens, heads, width)."""
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    found: Tensor = CausalAttention.apply(query, key, value, scale)  # type: ignore[no-untyped-call]
    return found.transpose(1, 2).contiguous(), None


def _no_mask(*_arguments: Any, **_options: Any) -> None:
    return None


def _grouped(query: Tensor, key: Tensor) -> Tensor:
    """Return queries as (rows times key heads, queries a key head, tokens, width)."""
    rows, heads, tokens, width = query.shape
    narrow = key.shape[1]
    return query.reshape(rows * narrow, heads // narrow, tokens, width)


def _flat(heads: Tensor) -> Tensor:
    """Return keys or values as (rows times heads, tokens, width)."""
    return heads.reshape(-1, *heads.shape[2:])


def _block(grouped: Tensor, start: int) -> Tensor:
    return grouped[:, :, start : start + _BLOCK]
