"""A model in training: from groups of lists to the scores of their slots.

Importing this module loads torch, transformers and peft.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor, nn

from reranker.errors import ConfigError
from reranker.models.adapter import (
    CONFIG_FILE,
    WEIGHT_DELTA,
    WEIGHTS_FILE,
    AdapterConfig,
    BaseModelCard,
    read_card,
    read_config,
)
from reranker.models.adapter_use import check_base
from reranker.models.loading import context_length, load_causal_model
from reranker.models.merging import weights_fingerprint
from reranker.models.prefill import ScoreHead, padded, slot_logprobs
from reranker.settings import TrainingSettings
from reranker.training.adaptive_rank import AdaptiveRank
from reranker.training.causal_attention import use_blocks
from reranker.training.encoding import EncodedList
from reranker.training.low_rank import ADAPTER, attach, make_lean, trained
from reranker.training.whole import computing_in, unfreeze


def _has_windows(config: Any) -> bool:
    """Tell whether a layer looks back only so far, which attention in blocks does not know."""
    own = config.get_text_config()
    return bool(getattr(own, "sliding_window", None)) or any(
        kind != "full_attention" for kind in getattr(own, "layer_types", None) or ()
    )


class TunedNetwork:
    """A base model in training: matrices beside its frozen layers, or its own weights.

    The vocabulary is computed only where a score is read, in float32 as in serving.
    """

    def __init__(
        self, folder: Path, settings: TrainingSettings, *, dtype: str, lean: bool = True
    ) -> None:
        """Load a model and make ready what is trained of it; its answers are not changed yet.

        Args:
            folder: of the base model.
            settings: method of the training, and rank, scale, dropout and seed of an adapter.
            dtype: number type of the base model: ``auto``, ``bfloat16`` or ``float32``.
            lean: compute an adapter's layers, and on a processor attention, in leaner ways.

        Raises:
            ConfigError: the settings do not go with their method.
            ModelUnavailable: the model cannot be loaded.
        """
        base: Any = load_causal_model(folder, dtype)
        self.fingerprint = weights_fingerprint(base.named_parameters())
        self.context_length = context_length(base)
        self._head = ScoreHead(base.get_output_embeddings())
        base.set_output_embeddings(self._head)
        self._original: dict[str, Tensor] = {}
        self._autocast: torch.dtype | None = None
        self._ranks: AdaptiveRank | None = None
        self.lean_layers = 0
        if settings.method == "full":
            self._autocast = computing_in(base)
            self._original = unfreeze(base)
            self.wrapped = base
        else:
            self.wrapped = attach(base, settings)
            if settings.method == "adalora":
                self._ranks = AdaptiveRank(self.wrapped, ADAPTER)
            self.lean_layers = make_lean(self.wrapped) if lean else 0
            if lean and base.device.type == "cpu" and not _has_windows(base.config):
                use_blocks(base)
        if settings.gradient_checkpointing:
            kept = {"use_reentrant": False}
            self.wrapped.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kept)
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
        with torch.autocast(device.type, self._autocast, enabled=self._autocast is not None):
            output: Any = self.wrapped(input_ids=tokens.to(device), use_cache=False)
        logits: Tensor = output.logits
        return [slot_logprobs(prompt, row) for prompt, row in zip(prompts, logits, strict=True)]

    def regularisation(self) -> Tensor | None:
        """Return what the method adds to the loss of a step, a scalar; None: nothing."""
        return None if self._ranks is None else self._ranks.regularisation()

    def after_step(self, step: int) -> None:
        """Let the method take in the gradients of a step, counted from 1, after the optimizer."""
        if self._ranks is not None:
            self._ranks.after_step(step)

    def is_settled(self, step: int) -> bool:
        """Tell whether what is trained has its final form after a step, and can be saved."""
        return self._ranks is None or self._ranks.is_settled(step)

    def constrain(self, values: dict[str, Tensor]) -> None:
        """Give other values of the trained parameters, such as an average, the present form."""
        if self._ranks is not None:
            self._ranks.constrain(values)

    def method_state(self) -> dict[str, Tensor]:
        """Return what the method remembers besides the parameters, by name."""
        return {} if self._ranks is None else self._ranks.state()

    def restore_method(self, state: dict[str, Tensor]) -> None:
        """Take over what `method_state` gave."""
        if self._ranks is not None:
            self._ranks.restore(state)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Leave nothing out by chance meanwhile."""
        self.wrapped.eval()
        try:
            yield
        finally:
            self.wrapped.train()

    def untuned_scores(self, group: Sequence[EncodedList]) -> list[Tensor]:
        """Return what `scores` would before any training."""
        with torch.no_grad(), self._untuned():
            return self.scores(group)

    @contextmanager
    def _untuned(self) -> Iterator[None]:
        if not self._original:
            with self.wrapped.disable_adapter():
                yield
            return
        present = self.state()
        self.restore(self._original)
        try:
            yield
        finally:
            self.restore(present)

    def state(self) -> dict[str, Tensor]:
        """Return copies of the trained parameters, by name."""
        return {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over trained parameters."""
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(state[name])

    def to_save(self) -> dict[str, Tensor]:
        """Return what an adapter's file holds: peft's tensors, or the change of each weight."""
        if self._original:
            return {name: p.detach() - self._original[name] for name, p in self.trained.items()}
        if self._ranks is not None:
            return self._ranks.as_plain()
        # Asked for by name: peft would otherwise look the base model up on the hub.
        state = get_peft_model_state_dict(self.wrapped, save_embedding_layers=False)
        return {name: tensor.detach() for name, tensor in state.items()}

    def save_config(self, folder: Path, base: str) -> None:
        """Write the file that says what the tensors are."""
        if self._original:
            told = {"base_model_name_or_path": base, "peft_type": WEIGHT_DELTA}
            text = json.dumps(told, indent=2, sort_keys=True)
            (folder / CONFIG_FILE).write_text(f"{text}\n", encoding="utf-8")
            return
        config = self._ranks.plain_config() if self._ranks else self.wrapped.peft_config[ADAPTER]
        config = copy(config)
        config.base_model_name_or_path = base  # not the folder that it lies in here
        config.save_pretrained(str(folder))

    def start_from(self, folder: Path) -> str:
        """Take over the weights of an adapter, and return their hash.

        Raises:
            ConfigError: the adapter is of another model, method or rank.
            DataError: it is damaged.
        """
        card = read_card(folder)
        check_base(card, BaseModelCard(name="the model", fingerprint=self.fingerprint))
        self._check_kind(folder, read_config(folder))
        saved = load_file(folder / WEIGHTS_FILE)
        if self._original:
            state = {n: t.float() + self._original[n] for n, t in saved.items()}
        else:
            state = {_trained_name(name): tensor for name, tensor in saved.items()}
        trained = self.trained
        if {n: t.shape for n, t in state.items()} != {n: p.shape for n, p in trained.items()}:
            rank = read_config(folder).r
            raise ConfigError(f"{folder}: the adapter has another rank: set training.rank = {rank}")
        self.restore(state)
        return card.weights_sha256

    def _check_kind(self, folder: Path, told: AdapterConfig) -> None:
        method, own = "full", None
        if self._ranks is not None:
            method = "adalora"
        elif not self._original:
            own = self.wrapped.peft_config[ADAPTER]
            method = "dora" if own.use_dora else "lora"
        if told.method != method:
            raise ConfigError(
                f"{folder}: it is saved as another method's: set training.method = {told.method}"
            )
        if own is not None and (told.lora_alpha, told.use_rslora) != (
            own.lora_alpha,
            own.use_rslora,
        ):
            raise ConfigError(
                f"{folder}: its products are scaled in another way: set training.alpha = "
                f"{told.lora_alpha:g} and training.rank_stabilised = {told.use_rslora}"
            )


def _trained_name(saved: str) -> str:
    """Return what peft calls a parameter that it saves under a name."""
    whole = saved if saved.endswith(".weight") else f"{saved}.weight"
    return f"{whole.removesuffix('.weight')}.{ADAPTER}.weight"
