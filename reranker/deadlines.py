"""The time that a request has, how much of it its end needs, and where it goes."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

_MOST_KEPT_BACK = 0.25
_FADING = 0.98
_AT_FIRST_S = 0.1


@dataclass(frozen=True)
class Deadline:
    """The time of one request. Moments are those of `time.monotonic`.

    Attributes:
        started: when the request came.
        seconds: that it has; infinite without a deadline.
    """

    started: float
    seconds: float

    @classmethod
    def of(cls, milliseconds: int | None) -> Self:
        """Begin now."""
        return cls(time.monotonic(), milliseconds / 1000 if milliseconds else math.inf)

    @property
    def ends(self) -> float:
        """When an answer is due."""
        return self.started + self.seconds

    def since(self) -> float:
        """Return the milliseconds gone by."""
        return (time.monotonic() - self.started) * 1000


class Finishing:
    """How long it takes of late from giving up the wait for the model to the answer.

    On a busy machine that is more than the time of the computation: many requests may end at the
    same moment. So much sooner the wait ends, lest answers come after their deadlines.
    """

    def __init__(self) -> None:
        self._usual_s = _AT_FIRST_S  # more than it takes but in a crowd

    def seconds(self, deadline: Deadline) -> float:
        """Return the seconds of a deadline to keep back."""
        if math.isinf(deadline.seconds):
            return 0.0
        return min(self._usual_s, deadline.seconds * _MOST_KEPT_BACK)

    def ended(self, due: float, deadline: Deadline) -> None:
        """Learn from an answer: the most of late counts, and fades.

        What took longer than may be kept back of that deadline counts as so much: one stall is no
        reason to give the answers that follow less time.

        Args:
            due: moment at which the wait ended or should have, not before it began. An answer that
                was there sooner lets what was learnt fade, at most to where it began.
            deadline: of the answer.
        """
        seconds = time.monotonic() - due
        faded = self._usual_s * _FADING
        if seconds > 0:
            most = deadline.seconds * _MOST_KEPT_BACK
            self._usual_s = max(min(seconds, most), faded)
        else:
            self._usual_s = max(faded, min(self._usual_s, _AT_FIRST_S))


class Stopwatch:
    """Adds up where the time of one ranking goes, over all of its rounds, in milliseconds."""

    def __init__(self) -> None:
        self.prompt_ms = 0.0
        self.model_ms = 0.0
        self.rounds = 0

    @contextmanager
    def making_prompts(self) -> Iterator[None]:
        """Count the making of a round's prompts."""
        started = time.monotonic()
        yield
        self.prompt_ms += (time.monotonic() - started) * 1000

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Count a round, and the wait for the model's answers, be it given up."""
        self.rounds += 1
        started = time.monotonic()
        try:
            yield
        finally:
            self.model_ms += (time.monotonic() - started) * 1000
