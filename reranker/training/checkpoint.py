"""The state of a training on disk, whole or not there: a kill costs what came since, no more.

Importing this module loads torch.
"""

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from reranker.errors import ConfigError, DataError
from reranker.schema import Value

CHECKPOINT_FILE = "checkpoint.pt"


class Best(Value):
    """The best validation so far.

    Attributes:
        value: of the measure; higher is better.
        step: after which it was measured.
        misses: validations since.
    """

    value: float = -1.0
    step: int = 0
    misses: int = 0


class Checkpoint(Value):
    """Everything that a training needs to go on as if nothing had happened.

    Attributes:
        plan: identity of settings and data; a training goes on with the same ones alone.
        step: steps done.
        weights: trained parameters.
        optimizer: its `state_dict`.
        average: of the trained parameters over the latest steps.
        best: validation so far.
        best_weights: trained parameters at the best validation.
        method_state: what the method remembers besides the weights.
        seconds: of computing so far.
        tokens: learnt from so far.
    """

    plan: str
    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    average: dict[str, Tensor]
    best: Best
    best_weights: dict[str, Tensor]
    method_state: dict[str, Tensor] = Field(default_factory=dict)
    seconds: float
    tokens: int


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint in place of the one before.

    Raises:
        DataError: the disk is full or cannot be written.
    """
    file = folder / CHECKPOINT_FILE
    temporary = file.with_suffix(".part")
    content = {name: getattr(checkpoint, name) for name in Checkpoint.model_fields}
    content["best"] = checkpoint.best.model_dump()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as target:
            torch.save(content, target)
            target.flush()
            os.fsync(target.fileno())
        temporary.replace(file)
    except (OSError, RuntimeError) as error:
        raise DataError(f"{file}: the checkpoint cannot be written: {error}") from error


def load(folder: Path, plan: str) -> Checkpoint | None:
    """Read the checkpoint of a folder; None where there is none.

    Raises:
        ConfigError: it is of a training with other settings or data.
        DataError: it is damaged.
    """
    file = folder / CHECKPOINT_FILE
    if not file.is_file():
        return None
    try:
        content = torch.load(file, weights_only=True)
        found = Checkpoint(**content)
    except (
        OSError,
        RuntimeError,
        ValueError,
        TypeError,
        EOFError,
        pickle.UnpicklingError,
    ) as error:
        raise DataError(f"{file}: the checkpoint is damaged ({error}): delete it") from error
    if found.plan != plan:
        message = (
            f"{file}: it is of a training with other settings or data: name another folder, or "
            "delete this one to start over"
        )
        raise ConfigError(message)
    return found
