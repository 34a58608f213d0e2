"""A model in training: from groups of lists to the scores of their slots.

Importing this module loads torch, transformers and peft.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from reranker.errors import ConfigError
from reranker.models.adapter import WEIGHTS_FILE, BaseModelCard, read_card, read_config
from reranker.models.adapter_use import check_base
from reranker.models.loading import context_length, load_causal_model
from reranker.models.merging import weights_fingerprint
from reranker.models.prefill import ScoreHead, padded, slot_logprobs
from reranker.models.rendering import RenderedPrompt
from reranker.settings import TrainingSettings
from reranker.training.causal_attention import use_blocks
from reranker.training.encoding import EncodedList
from reranker.training.methods import Method, method_of


def _has_windows(config: Any) -> bool:
    """Tell whether a layer looks back only so far, which attention in blocks does not know."""
    own = config.get_text_config()
    return bool(getattr(own, "sliding_window", None)) or any(
        kind != "full_attention" for kind in getattr(own, "layer_types", None) or ()
    )


def _base(folder: Path, dtype: str, *, four_bits: bool) -> tuple[Any, str]:
    """Load a base model, and tell the fingerprint of its weights as they are served."""
    if not four_bits:
        base: Any = load_causal_model(folder, dtype)
        return base, weights_fingerprint(base.named_parameters())
    # In the number type that is hashed: the smallest that tells.
    whole = load_causal_model(folder, "bfloat16", on_processor=True)
    fingerprint = weights_fingerprint(whole.named_parameters())
    del whole
    return load_causal_model(folder, dtype, four_bits=True), fingerprint


class TunedNetwork:
    """A base model in training.

    The vocabulary is computed only where a score is read, in float32 as in serving.

    Attributes:
        method: by which it is trained.
    """

    def __init__(
        self, folder: Path, settings: TrainingSettings, *, dtype: str, lean: bool = True
    ) -> None:
        """Load a model and make ready what is trained of it.

        Args:
            folder: of the base model.
            settings: method of the training, and what it takes.
            dtype: number type of the base model: ``auto``, ``bfloat16`` or ``float32``.
            lean: compute an adapter's layers, and on a processor attention, in leaner ways.

        Raises:
            ConfigError: the settings do not go with their method.
            ModelUnavailable: the model cannot be loaded.
        """
        base, self.fingerprint = _base(folder, dtype, four_bits=settings.method == "qlora")
        self.context_length = context_length(base)
        self._head = ScoreHead(base.get_output_embeddings())
        base.set_output_embeddings(self._head)
        self.method: Method = method_of(base, settings, lean=lean)
        self.context_length -= self.method.tokens_before
        blocks = self.method.attends_in_blocks and base.device.type == "cpu"
        if lean and blocks and not _has_windows(base.config):
            use_blocks(base)
        self.wrapped = self.method.wrapped
        if settings.gradient_checkpointing:
            kept = {"use_reentrant": False}
            self.wrapped.gradient_checkpointing_enable(gradient_checkpointing_kwargs=kept)
        self.wrapped.train()

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name; float32."""
        return self.method.trained

    def scores(self, group: Sequence[EncodedList]) -> list[Tensor]:
        """Return for each list the log-probability of each of its slots, shape (slots,)."""
        prompts = [one.prompt for one in group]
        logits = self._logits(prompts)
        return [slot_logprobs(prompt, row) for prompt, row in zip(prompts, logits, strict=True)]

    def scores_and_written(self, group: Sequence[EncodedList]) -> list[tuple[Tensor, Tensor]]:
        """Return `scores`, and for each list the log-probability of each token written behind it.

        A list behind which nothing is written has none of the latter, shape (0,).
        """
        if not any(one.written for one in group):
            return [(scores, scores[:0]) for scores in self.scores(group)]
        whole = [one.with_written for one in group]
        # The first token behind a prompt is read where its labels are.
        return [
            (slot_logprobs(one.prompt, row), slot_logprobs(prompt, row))
            for one, prompt, row in zip(group, whole, self._logits(whole), strict=True)
        ]

    def _logits(self, prompts: Sequence[RenderedPrompt]) -> Tensor:
        """Return the logits at the places of the scores, shape (prompts, most scores, words)."""
        tokens, positions = padded(prompts)
        device, number = self.wrapped.device, self.method.autocast
        self._head.positions = positions.to(device)
        with torch.autocast(device.type, number, enabled=number is not None):
            output: Any = self.wrapped(input_ids=tokens.to(device), use_cache=False)
        logits: Tensor = output.logits
        return logits

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
        with torch.no_grad(), self.method.untuned():
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
            ConfigError: the adapter is of another model, method or size.
            DataError: it is damaged.
        """
        card = read_card(folder)
        check_base(card, BaseModelCard(name="the model", fingerprint=self.fingerprint))
        try:
            state = self.method.loaded(load_file(folder / WEIGHTS_FILE), read_config(folder))
        except ConfigError as error:
            raise ConfigError(f"{folder}: {error}") from None
        trained = self.trained
        if {n: t.shape for n, t in state.items()} != {n: p.shape for n, p in trained.items()}:
            raise ConfigError(f"{folder}: the adapter holds other tensors than are trained here")
        self.restore(state)
        return card.weights_sha256
