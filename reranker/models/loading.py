"""Load a model's weights for this machine's processor."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reranker.errors import ConfigError, ModelUnavailable
from reranker.quiet import quiet_transformers

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_OTHER_CONTEXT = 4096
_FOUR_BIT_BLOCK = 64
_PACKS = "support_avx512bf16_for_cpu"


def load_causal_model(
    folder: Path, dtype: str, *, on_processor: bool = False, four_bits: bool = False
) -> "PreTrainedModel":
    """Load a causal model for evaluation, on the GPU where there is one.

    Args:
        folder: with config.json and safetensors.
        dtype: ``auto``, ``bfloat16`` or ``float32``; auto is bfloat16 where that is computed.
        on_processor: leave the GPU alone, but take its number type.
        four_bits: keep the weights of its layers in 4 bits (NormalFloat, quantised twice; arXiv
            2305.14314) and compute in ``dtype``; takes bitsandbytes.

    Raises:
        ConfigError: 4 bits are asked for, and bitsandbytes is not installed, or computes layers of
            this model wrongly.
        ModelUnavailable: its files are missing or damaged, or memory does not suffice.
    """
    if four_bits and find_spec("bitsandbytes") is None:
        raise ConfigError(
            "a model is kept in 4 bits (training.method = qlora) by bitsandbytes, which is not "
            "installed: uv pip install '.[train,qlora]'"
        )
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    best = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device("cpu") if on_processor else best
    number = _number_type(dtype, best)
    placed: dict[str, Any] = {}
    if four_bits:
        placed = {"quantization_config": _four_bits(number), "device_map": {"": device}}
    loader: Any = AutoModelForCausalLM
    try:
        with quiet_transformers():
            model, report = loader.from_pretrained(
                str(folder),
                dtype=number,
                attn_implementation="sdpa",
                local_files_only=True,
                output_loading_info=True,
                **placed,
            )
        model = (model if four_bits else model.to(device)).eval()
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        message = f"{folder}: the model cannot be loaded: {error}"
        raise ModelUnavailable(message) from error
    # transformers fills weights that a file lacks with random numbers, and only warns.
    if missing := sorted(report["missing_keys"]):
        message = f"{folder}: {len(missing)} weights are missing, such as {missing[0]}"
        raise ModelUnavailable(message)
    if four_bits and device.type == "cpu":
        _make_right(model, folder)
    loaded: PreTrainedModel = model
    return loaded


def _four_bits(number: "torch.dtype") -> Any:
    from transformers import BitsAndBytesConfig

    config: Any = BitsAndBytesConfig
    return config(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=number,
    )


def _make_right(model: Any, folder: Path) -> None:
    """Keep the layers of a model in 4 bits from computing wrongly on processors, or refuse them.

    Written for bitsandbytes 0.50.2, which on processors reads rows as if no block of 64 weights
    crossed their ends, and packs a layer's weights anew when it computes outside of training, but
    trains on them as if it had not.

    Raises:
        ConfigError: a layer has other rows, or this bitsandbytes does not know how not to pack.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for name, layer in model.named_modules():
        if not isinstance(layer, Linear4bit):
            continue
        if layer.in_features % _FOUR_BIT_BLOCK:
            raise ConfigError(
                f"{folder}: training.method = qlora: {name} has {layer.in_features} inputs, and in "
                f"4 bits processors compute multiples of {_FOUR_BIT_BLOCK} only: set "
                "training.method = lora, or take a GPU"
            )
        if not hasattr(layer, _PACKS):
            raise ConfigError(
                "training.method = qlora: on processors it was tried with bitsandbytes 0.50.2, and "
                f"the one installed has no {_PACKS}: install that one, or take a GPU"
            )
        setattr(layer, _PACKS, False)


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
