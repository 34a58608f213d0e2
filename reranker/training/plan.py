"""Which lists are seen at which step, and how fast is learnt there.

Everything follows from the settings and the number of the step, so that a training that was killed
goes on with exactly what it would have seen.
"""

import math
import random
from collections.abc import Callable, Sequence

from reranker.errors import ConfigError
from reranker.settings import TrainingSettings
from reranker.training.examples import ExampleSource, TrainingExample

_FALLING = 0.2
"""Share of the steps over which the trapezoid falls."""


Dealt = tuple[int, int, int]
"""Numbers of a source, of a purchase in it, and of the visit to it."""

Share = Callable[[Sequence[Dealt]], Sequence[Dealt]]


class Curriculum:
    """Deals the lists of several sources out to steps.

    Each source is gone through in a new order at each visit, and sources are mixed by their
    weights as evenly as can be.
    """

    def __init__(
        self,
        sources: Sequence[ExampleSource],
        weights: Sequence[float],
        *,
        batch: int,
        seed: int,
        keys: Sequence[str] = (),
        seen: Sequence[int] = (),
    ) -> None:
        """Take the sources; nothing is drawn yet.

        Args:
            sources: at least one, none empty.
            weights: of the sources, above 0.
            batch: lists a step.
            seed: of the orders.
            keys: of each source, by which its orders are drawn; none: their names.
            seen: lists of each source that an earlier training has seen, passed over; none: 0.

        Raises:
            ConfigError: there is nothing to learn from.
        """
        if not sources or not all(map(len, sources)):
            raise ConfigError("there are no purchases to learn from")
        self._sources = sources
        self._weights = weights
        self._batch = batch
        self._seed = seed
        self._keys = list(keys) or [source.name for source in sources]
        self._seen = list(seen) or [0] * len(sources)
        self._orders: dict[tuple[int, int], list[int]] = {}
        self._dealt, self._step = [0] * len(sources), 0

    def batch(self, step: int, share: Share = list) -> list[TrainingExample]:
        """Return the lists of a step, counted from 0.

        Going forward is quick; going back starts over.

        Args:
            step: counted from 0.
            share: picks those that are wanted; the others are not made.
        """
        self._go_to(step)
        dealt = self._deal(self._batch)
        self._step += 1
        return [self._sources[s].example(row, visit) for s, row, visit in share(dealt)]

    def seen(self, step: int) -> list[int]:
        """Return how many lists of each source have been seen before a step, counted from 0."""
        self._go_to(step)
        return [before + dealt for before, dealt in zip(self._seen, self._dealt, strict=True)]

    def _go_to(self, step: int) -> None:
        if step < self._step:
            self._dealt, self._step = [0] * len(self._sources), 0
        while self._step < step:
            self._deal(self._batch)
            self._step += 1

    def _deal(self, lists: int) -> list[Dealt]:
        dealt = []
        for _ in range(lists):
            # The source that lags most behind its share comes next.
            chosen = min(
                range(len(self._sources)), key=lambda s: (self._dealt[s] + 0.5) / self._weights[s]
            )
            number = self._seen[chosen] + self._dealt[chosen]
            visit, place = divmod(number, len(self._sources[chosen]))
            self._dealt[chosen] += 1
            dealt.append((chosen, self._order(chosen, visit)[place], visit))
        return dealt

    def _order(self, source: int, visit: int) -> list[int]:
        key = (source, visit)
        if key not in self._orders:
            order = list(range(len(self._sources[source])))
            random.Random(f"{self._seed}/{self._keys[source]}/{visit}").shuffle(order)
            self._orders = {k: v for k, v in self._orders.items() if k[0] != source}
            self._orders[key] = order
        return self._orders[key]


def steps_of(settings: TrainingSettings) -> int:
    """Return the number of steps that the settings' lists make."""
    return math.ceil(settings.lists / settings.batch)


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Return the learning rate of a step, counted from 0."""
    steps = steps_of(settings)
    rising = max(round(settings.warmup * steps), 1)
    if step < rising:
        return settings.learning_rate * (step + 1) / rising
    if settings.schedule == "trapezoid":
        left = (steps - step) / max(_FALLING * steps, 1)
        return settings.learning_rate * min(left, 1.0)
    done = (step - rising) / max(steps - rising, 1)
    return settings.learning_rate * (1 + math.cos(math.pi * min(done, 1.0))) / 2
