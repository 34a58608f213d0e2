"""Load a model's weights for this machine's processor."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reranker.errors import ModelUnavailable

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_OTHER_CONTEXT = 4096


def load_causal_model(folder: Path, dtype: str) -> "PreTrainedModel":
    """Load a causal model for evaluation, on the GPU where there is one.

    Args:
        folder: with config.json and safetensors.
        dtype: ``auto``, ``bfloat16`` or ``float32``; auto is bfloat16 where that is computed.

    Raises:
        ModelUnavailable: its files are missing or damaged, or memory does not suffice.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader: Any = AutoModelForCausalLM
    try:
        model, report = loader.from_pretrained(
            str(folder),
            dtype=_number_type(dtype, device),
            attn_implementation="sdpa",
            local_files_only=True,
            output_loading_info=True,
        )
        model = model.to(device).eval()
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        message = f"{folder}: the model cannot be loaded: {error}"
        raise ModelUnavailable(message) from error
    # transformers fills weights that a file lacks with random numbers, and only warns.
    if missing := sorted(report["missing_keys"]):
        message = f"{folder}: {len(missing)} weights are missing, such as {missing[0]}"
        raise ModelUnavailable(message)
    loaded: PreTrainedModel = model
    return loaded


def _number_type(dtype: str, device: "torch.device") -> "torch.dtype":
    import torch

    if dtype != "auto":
        return torch.float32 if dtype == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # Private names, as torch has no public ones: without them float32 is always right.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    quick = any(getattr(torch.cpu, name, lambda: False)() for name in checks)
    return torch.bfloat16 if quick else torch.float32


def context_length(model: "PreTrainedModel") -> int:
    """Return how many tokens a model can look at, prompt and answer together."""
    config: Any = model.config.get_text_config()
    return getattr(config, "max_position_embeddings", None) or _OTHER_CONTEXT
