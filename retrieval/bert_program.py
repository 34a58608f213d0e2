"""The pass of a BERT over one short text, as one program that torch runs without Python.

From Python each of its hundred steps would hand the interpreter's lock back and ask for it again.
Where another thread is busy in Python, each time may take the 5 ms after which that one is made to
let go: beside one such thread, a query of eight tokens took 560 ms step by step and takes 14 ms as
a program (3.2 and 2.5 ms alone; MiniLM, AMD EPYC).
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, scaled_dot_product_attention

_packed_linear = torch.ops.quantized.linear_dynamic_fp16


def compiled(bert: Any, *, mean: bool) -> Any:
    """Return the program: token ids, shape (tokens,), to the text's vector before its length.

    Where this torch cannot compile it, the same steps run one by one.

    Args:
        bert: a `transformers.BertModel` with gelu, on the processor.
        mean: whether the tokens' mean is taken; else the first token.
    """
    steps = _Bert(bert, mean=mean).eval()
    try:
        # Deprecated by torch in favour of what needs a C++ compiler on the user's machine.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            return torch.jit.freeze(torch.jit.script(steps))
    except (AttributeError, RuntimeError):
        return steps


class _Bert(nn.Module):
    def __init__(self, bert: Any, *, mean: bool) -> None:
        super().__init__()
        table = bert.embeddings
        self.words = table.word_embeddings.weight.detach()
        kind = table.token_type_embeddings.weight[0]
        self.places = (table.position_embeddings.weight + kind).detach()
        self.weight, self.bias = _norm(table.LayerNorm)
        self.epsilon = float(bert.config.layer_norm_eps)
        heads = int(bert.config.num_attention_heads)
        self.layers = nn.ModuleList(
            _Layer(layer, heads, self.epsilon) for layer in bert.encoder.layer
        )
        self.mean = mean

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words[ids] + self.places[: ids.shape[0]]
        x = layer_norm(x, [x.shape[1]], self.weight, self.bias, self.epsilon)
        for layer in self.layers:
            x = layer(x)
        pooled: Tensor = x.mean(0) if self.mean else x[0]
        return pooled


class _Layer(nn.Module):
    """One layer; its weights are packed: queries, keys and values side by side in `attend`."""

    def __init__(self, layer: Any, heads: int, epsilon: float) -> None:
        super().__init__()
        attention, output = layer.attention.self, layer.attention.output
        self.heads = heads
        self.epsilon = epsilon
        self.attend = _pack(attention.query, attention.key, attention.value)
        self.join = _pack(output.dense)
        self.join_weight, self.join_bias = _norm(output.LayerNorm)
        self.widen = _pack(layer.intermediate.dense)
        self.narrow = _pack(layer.output.dense)
        self.weight, self.bias = _norm(layer.output.LayerNorm)

    def forward(self, x: Tensor) -> Tensor:
        count, width = x.shape
        joined = _packed_linear(x, self.attend).view(count, 3, self.heads, -1)
        query, key, value = joined.permute(1, 2, 0, 3).unbind()
        seen = scaled_dot_product_attention(query, key, value)
        seen = _packed_linear(seen.transpose(0, 1).reshape(count, -1), self.join)
        x = layer_norm(seen.add_(x), [width], self.join_weight, self.join_bias, self.epsilon)
        wide = _packed_linear(gelu(_packed_linear(x, self.widen)), self.narrow)
        return layer_norm(wide.add_(x), [width], self.weight, self.bias, self.epsilon)


def _pack(*side_by_side: Any) -> Any:
    weight = torch.cat([linear.weight.detach() for linear in side_by_side])
    bias = torch.cat([linear.bias.detach() for linear in side_by_side])
    return torch.ops.quantized.linear_prepack_fp16(weight, bias)


def _norm(module: Any) -> tuple[Tensor, Tensor]:
    return module.weight.detach(), module.bias.detach()
