"""How fast training is, beside the loop that one would write with peft alone.

Importing this module loads torch, transformers and peft.
"""

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch

from reranker.models.loading import load_causal_model
from reranker.ports import Progress, no_progress
from reranker.schema import Value
from reranker.settings import Settings
from reranker.training.encoding import EncodedList
from reranker.training.loop import Trainer
from reranker.training.methods import method_of
from reranker.training.objective import as_tensor, listwise

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


class SpeedComparison(Value):
    """Seconds of a step over the same lists.

    Attributes:
        ours: median seconds of a whole step, lists read and put into tokens in it.
        bare: median seconds of peft's layers, torch's attention, and the vocabulary at every token,
            on lists that are tokens already.
        ratio: the median over the rounds of ours to bare; below 1 is faster.
        tokens: of the lists of all rounds.
        lists: of a step.
        peak_mib, bare_peak_mib: most memory that the process (on a GPU: torch) held in a step of
            either, the weights of both models in it; None where the system does not tell.
    """

    ours: float
    bare: float
    ratio: float
    tokens: int
    lists: int
    rounds: int
    peak_mib: float | None
    bare_peak_mib: float | None


def compare_speed(
    trainer: Trainer,
    folder: Path,
    settings: Settings,
    *,
    rounds: int = 3,
    progress: Progress = no_progress,
) -> SpeedComparison:
    """Take turns with both loops over the same lists, and time the steps.

    A first round warms up and is not counted.

    Args:
        trainer: at its start.
        folder: of its base model.
        settings: of the training.
        rounds: counted.
        progress: told of the rounds.
    """
    bare = _bare(folder, settings)
    ours: list[_Measured] = []
    theirs: list[_Measured] = []
    tokens = 0
    for number in range(rounds + 1):
        ours.append(_measured(trainer.train_step))
        lists = trainer.lists_of(number)
        theirs.append(_measured(lambda given=lists: bare(given)))  # type: ignore[misc]
        tokens += sum(map(len, lists)) if number else 0
        progress("timing steps", number, rounds)
    return SpeedComparison(
        ours=median(one.seconds for one in ours[1:]),
        bare=median(one.seconds for one in theirs[1:]),
        ratio=median(a.seconds / b.seconds for a, b in zip(ours[1:], theirs[1:], strict=True)),
        tokens=tokens,
        lists=settings.training.batch,
        rounds=rounds,
        peak_mib=_highest(ours[1:]),
        bare_peak_mib=_highest(theirs[1:]),
    )


class _Measured(NamedTuple):
    seconds: float
    peak_mib: float | None


def _measured(step: Callable[[], None]) -> _Measured:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):
        _RESET.write_text("5", encoding="ascii")  # the peak is counted anew from here
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return _Measured(time.perf_counter() - started, _peak())


def _peak() -> float | None:
    """Return the most memory since the last reset, in MiB: of the GPU, or else of the process.

    The latter on Linux alone, see proc_pid_status(5).
    """
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def _highest(measured: Sequence[_Measured]) -> float | None:
    return max((one.peak_mib for one in measured if one.peak_mib is not None), default=None)


def _bare(folder: Path, settings: Settings) -> Callable[[Sequence[EncodedList]], None]:
    training = settings.training
    base: Any = load_causal_model(folder, settings.model.dtype)
    method = method_of(base, training, lean=False)
    model = method.wrapped
    model.train()
    optimizer = torch.optim.AdamW(list(method.trained.values()), lr=training.learning_rate)
    number = method.autocast or (torch.bfloat16 if base.dtype == torch.bfloat16 else None)

    def step(lists: Sequence[EncodedList]) -> None:
        optimizer.zero_grad()
        for one in lists:
            tokens = torch.tensor([one.prompt.token_ids], device=base.device)
            with torch.autocast(base.device.type, number, enabled=number is not None):
                logits = model(input_ids=tokens, use_cache=False).logits[0]
            places = torch.tensor(one.prompt.score_positions, device=base.device)
            answers = tokens[0, torch.tensor(one.prompt.verdict_positions, device=base.device)]
            logprobs = torch.log_softmax(logits[places].float(), dim=-1)
            scores = logprobs.gather(1, answers[:, None])[:, 0]
            loss: Any = listwise(scores, as_tensor(one.grades, scores)) / len(lists)
            loss.backward()
        optimizer.step()

    return step
