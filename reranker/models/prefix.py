"""A learned prefix, as keys and values that stand before every prompt of a model.

Importing this module loads torch and transformers.
"""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from reranker.errors import ConfigError, DataError
from reranker.models.adapter import PREFIX_TENSOR, WEIGHTS_FILE
from reranker.models.prefill import KeyValues


def learned_prefix(model: Any, folder: Path) -> KeyValues:
    """Return the prefix of an adapter's folder for a model, in its number type and on its device.

    Raises:
        ConfigError: the model's layers keep no whole past.
        DataError: the files are damaged, or do not fit the model.
    """
    check_whole_past(model)
    file = folder / WEIGHTS_FILE
    try:
        saved: Tensor = load_file(file)[PREFIX_TENSOR]
    except (OSError, SafetensorError, KeyError) as error:
        raise DataError(f"{file}: the prefix cannot be read: {error}") from error
    config = model.config.get_text_config()
    layers, heads = config.num_hidden_layers, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if saved.dim() != 2 or saved.shape[1] != 2 * layers * heads * width:
        raise DataError(f"{file}: the prefix does not fit the model")
    # As peft keeps it: of each token and layer the key, then the value.
    parts = saved.view(len(saved), layers, 2, heads, width).permute(1, 2, 3, 0, 4)
    parts = parts.to(dtype=model.dtype, device=model.device)
    return tuple((layer[0][None], layer[1][None]) for layer in parts)


def check_whole_past(model: Any) -> None:
    """Refuse a model with layers that forget, which would forget a prefix.

    Raises:
        ConfigError: it has such layers.
    """
    layers = DynamicCache(config=model.config).layers
    if not layers or not all(type(layer) is DynamicLayer for layer in layers):
        raise ConfigError(
            "a learned prefix needs a model whose layers look back without bounds: set another "
            "training.method"
        )
