"""An average of the weights of the latest steps: what is validated and saved.

Single steps of a small batch are noisy; their average ranks better at any moment, as if the
learning rate had been lowered (Polyak and Juditsky 1992; Izmailov et al. 2018, arXiv 1803.05407).

Importing this module loads torch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class RunningAverage:
    """An exponential average of parameters, whose memory grows with the steps up to a limit."""

    def __init__(self, parameters: Mapping[str, nn.Parameter], memory: float) -> None:
        """Start from the present weights.

        Args:
            parameters: that are trained.
            memory: share of the old average that is kept at a step; 0: no averaging.
        """
        self._parameters = parameters
        self._memory = memory
        self.values = {name: p.detach().clone() for name, p in parameters.items()}

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        memory = min(self._memory, step / (step + 10))
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                self.values[name].lerp_(parameter, 1 - memory)

    def restore(self, values: Mapping[str, Tensor]) -> None:
        """Take over an average."""
        for name, value in values.items():
            self.values[name].copy_(value)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Give the network the average for a while, and then its own weights again."""
        own = {name: p.detach().clone() for name, p in self._parameters.items()}
        self._put(self.values)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._parameters.items():
                parameter.copy_(values[name])
