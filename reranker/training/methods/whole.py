"""Training of a model's own weights.

Importing this module loads torch.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reranker.models.adapter import CONFIG_FILE, WEIGHT_DELTA, AdapterConfig
from reranker.settings import TrainingSettings
from reranker.training.methods.base import LOW_RANK, Method, check_method, check_unset


class Whole(Method):
    """All weights of a model but the vocabulary's.

    They are made float32, in which small steps are not lost; what computes in bfloat16 does so
    under autocast. Saved is the change of each weight.
    """

    name = saved_as = "full"
    attends_in_blocks = False

    def __init__(self, model: Any, settings: TrainingSettings) -> None:
        """Make the weights ready.

        Args:
            model: a causal `PreTrainedModel` on its device.
            settings: of the training.

        Raises:
            ConfigError: a setting of matrices of low rank is set.
        """
        check_unset(settings, LOW_RANK, "which trains no matrices of low rank")
        vocabulary = {
            id(parameter)
            for layer in (model.get_input_embeddings(), model.get_output_embeddings())
            if layer is not None
            for parameter in layer.parameters()
        }
        self.autocast = torch.bfloat16 if model.dtype == torch.bfloat16 else None
        model.float()
        for parameter in model.parameters():
            parameter.requires_grad_(id(parameter) not in vocabulary)
        self.wrapped = model
        self._original = {name: p.detach().clone() for name, p in self.trained.items()}

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """Put the original weights in meanwhile."""
        present = {name: p.detach().clone() for name, p in self.trained.items()}
        self._put(self._original)
        try:
            yield
        finally:
            self._put(present)

    def tensors(self) -> dict[str, Tensor]:
        """Return the change of each weight."""
        return {name: p.detach() - self._original[name] for name, p in self.trained.items()}

    def write_config(self, folder: Path, base: str) -> None:
        """Write that the tensors are changes of weights."""
        told = {"base_model_name_or_path": base, "peft_type": WEIGHT_DELTA}
        text = json.dumps(told, indent=2, sort_keys=True)
        (folder / CONFIG_FILE).write_text(f"{text}\n", encoding="utf-8")

    def loaded(self, tensors: Mapping[str, Tensor], told: AdapterConfig) -> dict[str, Tensor]:
        """Add the changes to the original weights; see `Method.loaded`."""
        check_method(told, self.saved_as)
        return {n: t.float() + self._original[n] for n, t in tensors.items() if n in self._original}

    def _put(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(values[name])
