"""A model with an adapter in training: from groups of lists to the scores of their slots.

Importing this module loads torch, transformers and peft.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reranker.errors import ConfigError
from reranker.models.adapter import CONFIG_FILE, WEIGHTS_FILE, BaseModelCard, check_base, read_card
from reranker.models.loading import context_length, load_causal_model
from reranker.models.merging import weights_fingerprint
from reranker.models.prefill import ScoreHead, padded, slot_logprobs
from reranker.training.causal_attention import use_blocks
from reranker.training.encoding import EncodedList
from reranker.training.low_rank import ADAPTER, attach, make_lean, trained


def _has_windows(config: Any) -> bool:
    """Tell whether a layer looks back only so far, which attention in blocks does not know."""
    own = config.get_text_config()
    return bool(getattr(own, "sliding_window", None)) or any(
        kind != "full_attention" for kind in getattr(own, "layer_types", None) or ()
    )


class TunedNetwork:
    """A frozen base model whose LoRA layers are trained.

    The vocabulary is computed only where a score is read, in float32 as in serving.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: str,
        rank: int,
        alpha: float,
        rank_stabilised: bool = False,
        seed: int = 0,
        lean: bool = True,
    ) -> None:
        """Load a model and put an adapter around it that changes nothing yet.

        Args:
            folder: of the base model.
            dtype: number type of the base model: ``auto``, ``bfloat16`` or ``float32``.
            rank: of the adapter.
            alpha: its products are scaled by ``alpha / rank``.
            rank_stabilised: scale by ``alpha / sqrt(rank)`` instead.
            seed: of the adapter's first values.
            lean: compute the adapter's layers, and on a processor attention, in leaner ways.

        Raises:
            ModelUnavailable: the model cannot be loaded.
        """
        base: Any = load_causal_model(folder, dtype)
        self.fingerprint = weights_fingerprint(base.named_parameters())
        self.context_length = context_length(base)
        self._head = ScoreHead(base.get_output_embeddings())
        base.set_output_embeddings(self._head)
        self.wrapped = attach(
            base, rank=rank, alpha=alpha, rank_stabilised=rank_stabilised, seed=seed
        )
        self.lean_layers = make_lean(self.wrapped) if lean else 0
        if lean and base.device.type == "cpu" and not _has_windows(base.config):
            use_blocks(base)
        self.wrapped.train()

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name; float32."""
        return trained(self.wrapped)

    def scores(self, group: Sequence[EncodedList]) -> list[Tensor]:
        """Return for each list the log-probability of each of its slots, shape (slots,)."""
        prompts = [one.prompt for one in group]
        tokens, positions = padded(prompts)
        device = self.wrapped.device
        self._head.positions = positions.to(device)
        output: Any = self.wrapped(input_ids=tokens.to(device), use_cache=False)
        logits: Tensor = output.logits
        return [slot_logprobs(prompt, row) for prompt, row in zip(prompts, logits, strict=True)]

    def untuned_scores(self, group: Sequence[EncodedList]) -> list[Tensor]:
        """Return what `scores` would without the adapter."""
        with torch.no_grad(), self.wrapped.disable_adapter():
            return self.scores(group)

    def state(self) -> dict[str, Tensor]:
        """Return copies of the trained parameters, by name."""
        return {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over trained parameters."""
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state[name])

    def start_from(self, folder: Path) -> str:
        """Take over the weights of an adapter, and return their hash.

        Raises:
            ConfigError: the adapter is of another model or rank.
            DataError: it is damaged.
        """
        card = read_card(folder)
        check_base(card, BaseModelCard(name="the model", fingerprint=self.fingerprint))
        told = json.loads((folder / CONFIG_FILE).read_bytes())
        own = self.wrapped.peft_config[ADAPTER]
        if (told["lora_alpha"], told["use_rslora"]) != (own.lora_alpha, own.use_rslora):
            message = (
                f"{folder}: its products are scaled in another way: set training.alpha = "
                f"{told['lora_alpha']} and training.rank_stabilised = {told['use_rslora']}"
            )
            raise ConfigError(message)
        saved = load_file(folder / WEIGHTS_FILE)
        state = {name.replace(".weight", f".{ADAPTER}.weight"): t for name, t in saved.items()}
        trained = self.trained
        if {n: t.shape for n, t in state.items()} != {n: p.shape for n, p in trained.items()}:
            message = f"{folder}: the adapter has another rank than training.rank: set the same"
            raise ConfigError(message)
        self.restore(state)
        return card.weights_sha256
