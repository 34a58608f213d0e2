"""The training loop: steps, validations and checkpoints.

Importing this module loads torch, transformers and peft.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reranker.errors import DataError
from reranker.ports import Progress, no_progress
from reranker.settings import TrainingSettings
from reranker.training.averaging import RunningAverage
from reranker.training.checkpoint import Best, Checkpoint, load, save
from reranker.training.encoding import EncodedList, ExampleEncoder, by_length
from reranker.training.network import TunedNetwork
from reranker.training.objective import list_loss
from reranker.training.plan import Curriculum, learning_rate, steps_of
from reranker.training.process_group import ProcessGroup
from reranker.training.record import TrainingRecord
from reranker.training.validation import by_score, summary

MEASURE = "nDCG@10"
_BETAS = (0.9, 0.98)
"""A second moment with a short memory: trainings of LoRA layers have some hundred steps."""

Improved = Callable[[Mapping[str, float], int], object]
"""Told of the measures of the best validation so far and its step; the network has its weights."""


class Trainer:
    """Trains one network on one curriculum, in one folder.

    A trainer that is made for a folder with a checkpoint goes on from there: the same weights come
    out as if it had never stopped.
    """

    def __init__(
        self,
        network: TunedNetwork,
        encoder: ExampleEncoder,
        curriculum: Curriculum,
        validation: Sequence[EncodedList],
        settings: TrainingSettings,
        folder: Path,
        *,
        plan: str,
        processes: ProcessGroup,
    ) -> None:
        """Start, or go on from the folder's checkpoint.

        Args:
            network: as the training begins with it.
            encoder: of the same model.
            curriculum: deals out what is learnt from.
            validation: lists of other shoppers.
            settings: of the training.
            folder: for checkpoint and record.
            plan: identity of settings and data.
            processes: that the lists are shared out to; the first writes.

        Raises:
            ConfigError: the folder's checkpoint is of another plan.
            DataError: it is damaged.
        """
        self.network = network
        self._encoder = encoder
        self._curriculum = curriculum
        self._validation = validation
        self._settings = settings
        self._folder = folder
        self._plan = plan
        self._processes = processes
        self._parameters = list(network.trained.values())
        self._optimizer = torch.optim.AdamW(
            self._parameters,
            lr=settings.learning_rate,
            betas=_BETAS,
            weight_decay=settings.weight_decay,
        )
        self.step, self.seconds, self.tokens = 0, 0.0, 0
        self.best = Best()
        self.best_weights = network.state()
        self._average = RunningAverage(network.trained, settings.average)
        found = load(folder, plan)
        if found is not None:
            self._restore(found)
        self._record = TrainingRecord(folder, after=self.step) if processes.is_first else None

    def run(self, *, improved: Improved | None = None, progress: Progress = no_progress) -> None:
        """Train to the end of the settings' lists, or until validation stops getting better.

        Args:
            improved: told of each validation that is the best so far.
            progress: told of the lists seen.

        Raises:
            DataError: the loss is no finite number any more, or a checkpoint cannot be written.
        """
        settings, steps = self._settings, steps_of(self._settings)
        if self.step == 0 and self.best.step == 0 and self.best.value < 0:
            self._validate(improved, progress)
        while self.step < steps and not self._is_stale():
            self.train_step()
            progress(
                f"tuning ({self._rate():.0f} tokens/s, best {MEASURE} {self.best.value:.3f})",
                self.step * settings.batch,
                steps * settings.batch,
            )
            last = self.step == steps
            if self.step % settings.validate_every == 0 or last:
                self._validate(improved, progress)
            if self.step % settings.checkpoint_every == 0 or last:
                self._save()
        self._save()
        if self._record is not None:
            self._record.close()

    def measure(
        self, lists: Sequence[EncodedList], progress: Progress = no_progress
    ) -> Mapping[str, float]:
        """Return how well the network ranks some lists; see `validation.summary`."""
        rankings, own = [], self._processes.share(lists)
        with torch.inference_mode(), self.network.evaluating():
            for group in by_length(own, self._settings.pass_tokens):
                scores = self.network.scores(group)
                rankings += [
                    by_score(found.tolist(), one.grades)
                    for found, one in zip(scores, group, strict=True)
                ]
                progress("validating", len(rankings), len(own))
        return summary(self._processes.gather(rankings))

    def lists_of(self, step: int) -> list[EncodedList]:
        """Return what this process learns from at a step, counted from 0."""
        own = self._curriculum.batch(step, self._processes.share)
        writes = self._settings.written > 0
        return [self._encoder.encode(one, writes=writes) for one in own]

    def train_step(self) -> None:
        """Learn from the next lists.

        Raises:
            DataError: the loss is no finite number any more.
        """
        started = time.monotonic()
        # What is left out at a step follows from its number, as everything else does.
        torch.manual_seed(self._drawn_at(self.step))
        rate = learning_rate(self.step, self._settings)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        lists = self.lists_of(self.step)
        self._optimizer.zero_grad()
        loss = sum(self._learn(group) for group in self._groups(lists)) + self._regularise()
        loss, tokens = self._added_up(loss, sum(map(len, lists)))
        length = torch.nn.utils.clip_grad_norm_(self._parameters, self._settings.clip)
        self._optimizer.step()
        self.step += 1
        self.network.method.after_step(self.step)
        self._average.update(self.step)
        self.network.method.constrain(self._average.values)
        seconds = time.monotonic() - started
        self.seconds += seconds
        self.tokens += tokens
        if not math.isfinite(loss):
            message = f"step {self.step}: the training has diverged: lower training.learning_rate"
            raise DataError(message)
        values = {
            "loss": loss,
            "gradient": float(length),
            "learning_rate": rate,
            "seconds": round(seconds, 3),
            "tokens": tokens,
            "lists": self.step * self._settings.batch,
        }
        self._note("step", values)

    def _drawn_at(self, step: int) -> int:
        text = f"{self._settings.seed}/{step}/{self._processes.rank}"
        return int.from_bytes(blake2b(text.encode(), digest_size=7).digest(), "big")

    def _groups(self, lists: Sequence[EncodedList]) -> list[list[EncodedList]]:
        return by_length(lists, self._settings.pass_tokens)

    def _added_up(self, loss: float, tokens: int) -> tuple[float, int]:
        """Add gradients, loss and tokens up over all processes."""
        if self._processes.size == 1:
            return loss, tokens
        for parameter in self._parameters:
            if parameter.grad is None:  # there were fewer lists than processes
                parameter.grad = torch.zeros_like(parameter)
        told = torch.tensor([loss, float(tokens)], device=self._parameters[0].device)
        self._processes.add_up([told, *(p.grad for p in self._parameters if p.grad is not None)])
        return float(told[0]), int(told[1])

    def _learn(self, group: Sequence[EncodedList]) -> float:
        """Add a group's share of the step's gradients; return its share of the loss."""
        settings, losses = self._settings, []
        references: Sequence[Tensor | None] = [None] * len(group)
        if settings.objective == "preference":
            references = self.network.untuned_scores(group)
        found = self.network.scores_and_written(group)
        for one, (scores, written), reference in zip(group, found, references, strict=True):
            losses.append(list_loss(scores, one, settings, reference, written) * one.weight)
        total = torch.stack(losses).sum() / settings.batch
        total.backward()  # type: ignore[no-untyped-call]
        return float(total.detach())

    def _regularise(self) -> float:
        """Add the gradients of what the method adds to the loss; return its share of that."""
        added = self.network.method.regularisation()
        if added is None:
            return 0.0
        share = added / self._processes.size
        share.backward()  # type: ignore[no-untyped-call]
        return float(share.detach())

    def _validate(self, improved: Improved | None, progress: Progress) -> None:
        with self._average.in_place():
            measures = self.measure(self._validation, progress)
            values = {**measures, "seen": self.step * self._settings.batch}
            self._note("validation", {**values, "seconds": self.seconds})
            if self.step and not self.network.method.is_settled(self.step):
                return
            if measures[MEASURE] > self.best.value:
                self.best = Best(value=measures[MEASURE], step=self.step)
                self.best_weights = self.network.state()
                if improved is not None and self.step and self._processes.is_first:
                    improved(measures, self.step)
            else:
                self.best = self.best.model_copy(update={"misses": self.best.misses + 1})

    def _note(self, kind: str, values: Mapping[str, Any]) -> None:
        if self._record is not None:
            self._record.write(kind, self.step, values)

    def _save(self) -> None:
        if self._processes.is_first:
            save(self._folder, self._checkpoint())

    def _is_stale(self) -> bool:
        patience = self._settings.patience
        return patience > 0 and self.best.misses >= patience

    def _rate(self) -> float:
        return self.tokens / self.seconds if self.seconds else 0.0

    def _checkpoint(self) -> Checkpoint:
        return Checkpoint(
            plan=self._plan,
            step=self.step,
            weights=self.network.state(),
            optimizer=self._optimizer.state_dict(),
            average=self._average.values,
            best=self.best,
            best_weights=self.best_weights,
            method_state=self.network.method.state(),
            seconds=self.seconds,
            tokens=self.tokens,
        )

    def _restore(self, found: Checkpoint) -> None:
        self.step, self.seconds, self.tokens = found.step, found.seconds, found.tokens
        self.best, self.best_weights = found.best, found.best_weights
        self.network.restore(found.weights)
        self.network.method.restore(found.method_state)
        self._average.restore(found.average)
        self._optimizer.load_state_dict(found.optimizer)
