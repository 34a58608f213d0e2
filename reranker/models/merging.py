"""The arithmetic of adapters: what identifies a model's weights, and adding to them."""

import hashlib
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reranker.errors import ConfigError, DataError
from reranker.models.adapter import (
    CARD_FILE,
    CONFIG_FILE,
    DATA_CARD_FILE,
    WEIGHTS_FILE,
    AdapterCard,
    AdapterConfig,
    BaseModelCard,
    read_card,
    read_config,
    read_data_card,
)
from reranker.models.adapter_use import check_base
from reranker.models.loading import load_causal_model
from reranker.models.stored_folder import MANIFEST

_SAMPLED = 64
_SPECIAL = ("modules_to_save", "rank_pattern", "alpha_pattern", "fan_in_fan_out")


def weights_fingerprint(tensors: Iterable[tuple[str, Any]]) -> str:
    """Return an identity of a model's weights that neither file format nor number type changes.

    Hashed are the name and shape of each tensor, and 64 of its values, evenly spaced, in bfloat16.

    Args:
        tensors: names and `torch.Tensor` values of `PreTrainedModel.named_parameters`.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        flat = tensor.detach().reshape(-1)
        places = torch.linspace(0, len(flat) - 1, min(_SAMPLED, len(flat)), dtype=torch.float64)
        values = flat[places.long().to(flat.device)].to(torch.bfloat16).float().cpu()
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def merge(model: Any, folder: Path) -> int:
    """Add what was tuned to a model's weights, and return how many of them it changed.

    Each change is computed in float32 and then rounded to the weights' number type once.

    Args:
        model: a causal `PreTrainedModel` without adapters.
        folder: of the adapter: LoRA, DoRA (arXiv 2402.09353, equation 5), or a change of weights.

    Raises:
        ConfigError: it is a learned prefix.
        DataError: the files are damaged, or do not fit the model.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    file = folder / WEIGHTS_FILE
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise DataError(f"{folder}: the adapter cannot be read: {error}") from error
    config = read_config(folder)
    _check_mergeable(folder)
    whole = config.method == "full"
    changes = _whole(tensors) if whole else _products(config, tensors, folder)
    weights = dict(model.named_parameters(remove_duplicate=False))
    for name, change in changes.items():
        weight = weights.get(name)
        if weight is None or change.shape != tuple(weight.shape):
            raise DataError(f"{file}: {name} does not fit the model")
        with torch.no_grad():
            weight.copy_(change.applied(weight.float()).to(weight.dtype))
    return len(changes)


@dataclass(frozen=True)
class _Change:
    """A change of one weight: a whole one, or a product of low rank, then rows of given length."""

    shape: tuple[int, ...]
    whole: Any = None
    down: Any = None
    up: Any = None
    scaling: float = 1.0
    magnitudes: Any = None

    def applied(self, weight: Any) -> Any:
        """Return the weight with the change, both float32 on the weight's device."""
        if self.whole is not None:
            return weight + self.whole.float().to(weight.device)
        product = (self.up.float() @ self.down.float()).mul_(self.scaling)
        changed = weight + product.to(weight.device)
        if self.magnitudes is None:
            return changed
        magnitudes = self.magnitudes.float().to(weight.device)
        return changed * (magnitudes / changed.norm(dim=1)).unsqueeze(1)


def _whole(tensors: Mapping[str, Any]) -> dict[str, _Change]:
    return {name: _Change(tuple(t.shape), whole=t) for name, t in tensors.items()}


def _products(
    config: AdapterConfig, tensors: Mapping[str, Any], folder: Path
) -> dict[str, _Change]:
    _check_plain(config, folder)
    dora, found = config.use_dora, {}
    for name, down in tensors.items():
        layer, marked, _ = name.partition(".lora_A.")
        if not marked:
            continue
        up = tensors.get(name.replace(".lora_A.", ".lora_B."))
        magnitudes = tensors.get(f"{layer}.lora_magnitude_vector") if dora else None
        if up is None or (magnitudes is None and dora) or up.shape[1] != down.shape[0]:
            raise DataError(f"{folder / WEIGHTS_FILE}: {name} lacks what belongs to it")
        shape = (up.shape[0], down.shape[1])
        weight = f"{layer.removeprefix('base_model.model.')}.weight"
        found[weight] = _Change(
            shape, down=down, up=up, scaling=config.scaling, magnitudes=magnitudes
        )
    if not found or len(found) * (3 if dora else 2) != len(tensors):
        raise DataError(f"{folder / WEIGHTS_FILE}: it holds other tensors than pairs of matrices")
    return found


def write_merged(base: Path, adapter: Path, target: Path, *, name: str, dtype: str) -> AdapterCard:
    """Write a base model with an adapter merged into it as a Hugging Face folder, for vLLM.

    Args:
        base: folder of the base model.
        adapter: folder of the adapter.
        target: a new folder; it is there when it is whole.
        name: what messages call the base model.
        dtype: of the weights: ``auto``, ``bfloat16`` or ``float32``.

    Raises:
        ConfigError: the adapter was made for another model, or the target is there already.
        DataError: the adapter is damaged, or the target cannot be written.
        ModelUnavailable: the base model cannot be loaded.
    """
    if target.exists():
        raise ConfigError(f"{target}: it is there already: name a new folder")
    card = read_card(adapter)
    _check_mergeable(adapter)
    model = load_causal_model(base, dtype, on_processor=True)
    own = BaseModelCard(name=name, fingerprint=weights_fingerprint(model.named_parameters()))
    check_base(card, own)
    merge(model, adapter)
    fresh = target.with_name(f"{target.name}.partial")
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        for file in base.iterdir():
            weights = "safetensors" in file.name or file.suffix in {".bin", ".pt", ".pth"}
            if file.is_file() and not weights and file.name != MANIFEST:
                shutil.copy2(file, fresh / file.name)
        model.save_pretrained(str(fresh))
        _copy_cards(adapter, fresh)
        fresh.replace(target)
    except OSError as error:
        raise DataError(f"{target}: it cannot be written: {error}") from error
    return card


def _check_mergeable(folder: Path) -> None:
    if read_config(folder).method == "prefix":
        raise ConfigError(
            f"{folder}: a learned prefix cannot be merged into weights: use it with the embedded "
            f"model, by model.adapter = {folder}"
        )


def _copy_cards(adapter: Path, target: Path) -> None:
    """Keep what tells of the adapter, and of whom it learnt from, beside the merged weights."""
    shutil.copy2(adapter / CARD_FILE, target / CARD_FILE)
    if (adapter / DATA_CARD_FILE).is_file():
        shutil.copy2(adapter / DATA_CARD_FILE, target / DATA_CARD_FILE)
        shoppers = read_data_card(adapter).shoppers
        if shoppers:
            shutil.copy2(adapter / shoppers, target / shoppers)


def _check_plain(config: AdapterConfig, folder: Path) -> None:
    special = [name for name in _SPECIAL if getattr(config, name)]
    if config.peft_type != "LORA" or special or config.bias != "none":
        what = ", ".join(special) or f"{config.peft_type} with bias {config.bias}"
        message = f"{folder / CONFIG_FILE}: only LoRA and DoRA adapters can be loaded, not {what}"
        raise DataError(message)
