"""How fast training is, beside the loop that one would write with peft alone.

Importing this module loads torch, transformers and peft.
"""

import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from reranker.models.loading import load_causal_model
from reranker.ports import Progress, no_progress
from reranker.schema import Value
from reranker.training.encoding import EncodedList
from reranker.training.low_rank import attach, trained
from reranker.training.network import TunedNetwork
from reranker.training.objective import as_tensor, listwise

_RATE = 1e-4


class SpeedComparison(Value):
    """Seconds of a step over the same lists.

    Attributes:
        ours: median seconds.
        bare: median seconds of peft's layers, torch's attention, and the vocabulary at every token.
        ratio: the median over the rounds of ours to bare; below 1 is faster.
        tokens: of the lists of a step.
        peak_mib: most memory that this process has held, both models together.
    """

    ours: float
    bare: float
    ratio: float
    tokens: int
    lists: int
    rounds: int
    peak_mib: float


def compare_speed(
    network: TunedNetwork,
    folder: Path,
    lists: Sequence[EncodedList],
    *,
    dtype: str,
    rank: int,
    alpha: float,
    rounds: int = 3,
    progress: Progress = no_progress,
) -> SpeedComparison:
    """Take turns with both loops over the same lists, one list a pass, and time the steps.

    A first round warms up and is not counted.

    Args:
        network: in training.
        folder: of its base model.
        lists: of one step.
        dtype: number type of the base model.
        rank: of the adapter.
        alpha: of the adapter.
        rounds: counted.
        progress: told of the rounds.
    """
    loops = _ours(network), _bare(folder, dtype, rank, alpha)
    times: list[tuple[float, float]] = []
    for number in range(rounds + 1):
        ours, bare = (_timed(loop, lists) for loop in loops)
        times.append((ours, bare))
        progress("timing steps", number, rounds)
    counted = times[1:]
    unit = 1024 if sys.platform == "linux" else 1024 * 1024
    return SpeedComparison(
        ours=median(ours for ours, _ in counted),
        bare=median(bare for _, bare in counted),
        ratio=median(ours / bare for ours, bare in counted),
        tokens=sum(map(len, lists)),
        lists=len(lists),
        rounds=rounds,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
    )


def _timed(step: Callable[[Sequence[EncodedList]], None], lists: Sequence[EncodedList]) -> float:
    started = time.perf_counter()
    step(lists)
    return time.perf_counter() - started


def _ours(network: TunedNetwork) -> Callable[[Sequence[EncodedList]], None]:
    optimizer = torch.optim.AdamW(list(network.trained.values()), lr=_RATE)

    def step(lists: Sequence[EncodedList]) -> None:
        optimizer.zero_grad()
        for one in lists:
            (scores,) = network.scores([one])
            _learn(scores, one)
        optimizer.step()

    return step


def _bare(
    folder: Path, dtype: str, rank: int, alpha: float
) -> Callable[[Sequence[EncodedList]], None]:
    base: Any = load_causal_model(folder, dtype)
    model = attach(base, rank=rank, alpha=alpha, rank_stabilised=False, seed=0)
    model.train()
    optimizer = torch.optim.AdamW(list(trained(model).values()), lr=_RATE)
    half = base.dtype == torch.bfloat16

    def step(lists: Sequence[EncodedList]) -> None:
        optimizer.zero_grad()
        for one in lists:
            tokens = torch.tensor([one.prompt.token_ids], device=base.device)
            with torch.autocast(base.device.type, torch.bfloat16, enabled=half):
                logits = model(input_ids=tokens, use_cache=False).logits[0]
            places = torch.tensor(one.prompt.score_positions, device=base.device)
            answers = tokens[0, torch.tensor(one.prompt.verdict_positions, device=base.device)]
            logprobs = torch.log_softmax(logits[places].float(), dim=-1)
            _learn(logprobs.gather(1, answers[:, None])[:, 0], one)
        optimizer.step()

    return step


def _learn(scores: Tensor, one: EncodedList) -> None:
    loss: Any = listwise(scores, as_tensor(one.grades, scores))
    loss.backward()
