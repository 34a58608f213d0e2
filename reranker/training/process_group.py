"""The processes of one training: one alone, or those that `accelerate launch` starts, a GPU each.

Importing this module loads torch.
"""

import os
from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

_T = TypeVar("_T")


class ProcessGroup:
    """Shares work out and puts results together. All processes must call the same methods."""

    def __init__(self) -> None:
        """Find the others, if this process was started with others."""
        self.rank, self.size = 0, 1
        self._state: Any = None
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import PartialState

            self._state = PartialState()
            self.rank, self.size = self._state.process_index, self._state.num_processes

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[_T]) -> list[_T]:
        """Return what of some items is this process's."""
        return list(items[self.rank :: self.size])

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, the same ones in each."""
        if self.size == 1:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def gather(self, found: Sequence[_T]) -> list[_T]:
        """Return what all processes have found, one of each in turn."""
        if self.size == 1:
            return list(found)
        shares: list[list[_T]] = [[] for _ in range(self.size)]
        torch.distributed.all_gather_object(shares, list(found))
        longest = max(map(len, shares))
        return [share[place] for place in range(longest) for share in shares if place < len(share)]

    def agree(self, value: _T | None) -> _T:
        """Return the first process's value, whatever the others have."""
        told: list[Any] = [value]
        if self.size > 1:
            torch.distributed.broadcast_object_list(told, src=0)
        agreed: _T = told[0]
        return agreed

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self._state is not None:
            self._state.wait_for_everyone()
