"""What a method of training is: which parameters there are, and what is saved of them.

Importing this module loads torch.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reranker.errors import ConfigError
from reranker.models.adapter import AdapterConfig
from reranker.settings import TrainingSettings


class Method(ABC):
    """One model in training by one method.

    Attributes:
        name: of the setting ``training.method``.
        saved_as: the method whose adapters those of this one cannot be told from.
        wrapped: the model to be called; what does not require gradients is not trained.
        autocast: number type to compute in; None for that of the weights.
        lean_layers: layers that compute in a leaner way than their library's.
        tokens_before: places of the context that the method takes before every prompt.
        attends_in_blocks: whether prompts are all that there is to attend to, so that attention may
            be computed in blocks.
    """

    name: str
    saved_as: str
    wrapped: Any
    autocast: torch.dtype | None = None
    lean_layers: int = 0
    tokens_before: int = 0
    attends_in_blocks: bool = True

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name; float32."""
        return trained(self.wrapped)

    def regularisation(self) -> Tensor | None:
        """Return what the method adds to the loss of a step, a scalar; None: nothing."""
        return None

    def after_step(self, step: int) -> None:  # noqa: B027 - for those that need it
        """Take in the gradients of a step, counted from 1, after the optimizer."""

    def is_settled(self, step: int) -> bool:
        """Tell whether what is trained has its final form after a step, and can be saved."""
        return True

    def constrain(self, values: Mapping[str, Tensor]) -> None:  # noqa: B027 - for those that need it
        """Give other values of the trained parameters, such as an average, the present form."""

    def state(self) -> dict[str, Tensor]:
        """Return what the method remembers besides the parameters, by name."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 - for those that need it
        """Take over what `state` gave."""

    @contextmanager
    def untuned(self) -> Iterator[None]:
        """Let the model answer as before any training meanwhile."""
        with self.wrapped.disable_adapter():
            yield

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Return what an adapter's file holds."""

    @abstractmethod
    def write_config(self, folder: Path, base: str) -> None:
        """Write the file that says what the tensors are, for a base model of a name."""

    @abstractmethod
    def loaded(self, tensors: Mapping[str, Tensor], told: AdapterConfig) -> dict[str, Tensor]:
        """Return values of the trained parameters from an adapter's tensors.

        Raises:
            ConfigError: the adapter is of another method, or scaled in another way.
        """


LOW_RANK = ("rank", "alpha", "dropout", "rank_stabilised")
"""Settings of matrices of low rank."""


def check_unset(settings: TrainingSettings, names: Sequence[str], why: str) -> None:
    """Refuse settings that a method has no use for and that are not as they are by default.

    Args:
        settings: of the training.
        names: of settings that say nothing to the method.
        why: says that they do not.

    Raises:
        ConfigError: naming the setting.
    """
    for name in names:
        if getattr(settings, name) != type(settings).model_fields[name].default:
            raise ConfigError(
                f"training.{name}: does not go with training.method = {settings.method}, {why}: "
                "leave it out"
            )


def trained(model: Any) -> dict[str, nn.Parameter]:
    """Return the parameters of a model that training changes, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def check_method(told: AdapterConfig, method: str) -> None:
    """Refuse an adapter of another method than the one that it is to be gone on with.

    Raises:
        ConfigError: naming what to set.
    """
    if told.method != method:
        raise ConfigError(f"it is saved as another method's: set training.method = {told.method}")
