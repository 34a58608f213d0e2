"""How a list that is longer than one window is ranked by comparing windows.

A strategy decides which windows the model judges, in which rounds, and puts their answers together.
It knows candidates by their index only and asks nobody itself: a `Ranking` names the windows of the
next round, whoever has them judged hands it the answers, and its order is the best so far: whoever
runs out of time keeps that.

Every candidate is shown to the model, whatever the length of the list. A window that was lost (its
answer is None) costs its candidates that window's evidence and nothing else: those that no window
judged are left out of the order. Two rounds in a row that are lost whole end the ranking.
"""

import math
from collections.abc import Generator, Sequence, Set
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

Window = tuple[int, ...]
Scores = tuple[float, ...]
Answers = Sequence[Scores | None]
"""Of each window of a round: one score a candidate, higher is better, comparable within one window
only; None for a window that was lost."""

Strategy = Literal["pivot", "sliding"]
_LOST_ROUNDS = 2
_MOST_ROUNDS = 24


class Ranking:
    """The ranking of one list, round by round.

    Attributes:
        windows: to be judged next, at the same time; empty at the end.
        order: of candidates 0 to size - 1, the best known; empty before there is one to show.
    """

    def __init__(
        self, size: int, *, strategy: Strategy, window: int, step: int, top_k: int
    ) -> None:
        """Begin with candidates that come most promising first.

        Args:
            size: number of candidates; up to ``window`` they are one window, whatever the strategy.
            strategy: for more than one window.
            window: most candidates in one window, at least 2.
            step: places by which the sliding window moves; less than ``window``.
            top_k: places whose order matters; the rest may be in rough order.
        """
        sliding = strategy == "sliding" and size > window
        self._rounds = _sliding(size, window, step) if sliding else _pivot(size, window, top_k)
        self.windows, self.order = next(self._rounds)

    def take(self, answers: Answers) -> None:
        """Go on to the next round with the answers to all windows of this one."""
        self.windows, self.order = self._rounds.send(answers)


class _Round(NamedTuple):
    windows: tuple[Window, ...]
    order: Window


_Rounds = Generator[_Round, Answers, None]
"""The last has no windows."""


def _sliding(size: int, window: int, step: int) -> _Rounds:
    """Slide a window from the back to the front (RankGPT: Sun et al. 2023, arXiv 2304.09542).

    Windows end at ``size``, ``size - step`` and so on, and the last starts at the very front, so
    that each candidate is shown and neighbours always overlap. Half-way the best are still on
    their way to the front: there is no order to show before the end.
    """
    order = list(range(size))
    judged: set[int] = set()
    lost = 0
    end = size
    while True:
        start = max(end - window, 0)
        shown = tuple(order[start:end])
        (scores,) = yield _Round((shown,), ())
        lost = lost + 1 if scores is None else 0
        if scores is not None:
            order[start:end] = _best_first(shown, scores)[0]
            judged.update(shown)
        if start == 0 or lost == _LOST_ROUNDS:
            break
        end = max(end - step, window)
    heard = judged if lost < _LOST_ROUNDS else set()
    yield _Round((), tuple(candidate for candidate in order if candidate in heard))


@dataclass(frozen=True)
class _Segment:
    """A run of places in the final order whose candidates are known.

    Attributes:
        members: most promising first.
        settled: whether their order is final.
        ranked: how many of the first have been ranked in one window, to find a pivot among them.
        scores: of these, in that window.
    """

    members: Window
    settled: bool = False
    ranked: int = 0
    scores: Scores = ()


def _pivot(size: int, window: int, top_k: int) -> _Rounds:
    """Partition by a pivot (top-down partitioning: Parry et al. 2024, arXiv 2405.14589).

    The first window is ranked and gives a pivot. All other candidates are compared with it at the
    same time, each window together with the pivot, and what beats it goes before it. So on with
    each part that reaches into the first ``top_k`` places, until it fits one window. Scores less
    the pivot's are comparable between windows: they order what is not looked at again.

    With a faultless judge the rounds grow with the logarithm of the list's length; a judge that
    contradicts itself is asked in `_MOST_ROUNDS` at most.
    """
    segments = [_Segment(tuple(range(size)), settled=size < 2)]
    judged: set[int] = set()
    order: Window = ()
    lost = 0
    for _ in range(_MOST_ROUNDS):
        plans = _plans(segments, window, top_k)
        windows = tuple(shown for plan in plans for shown in plan.windows)
        if not windows:
            break
        found = yield _Round(windows, order)
        lost = lost + 1 if all(scores is None for scores in found) else 0
        if lost == _LOST_ROUNDS:
            break
        answers = iter(found)
        segments = []
        for plan in plans:
            taken = [next(answers) for _ in plan.windows]
            for shown, scores in zip(plan.windows, taken, strict=True):
                judged.update(shown if scores is not None else ())
            segments += plan.refined(taken, judged)
        order = tuple(c for segment in segments for c in segment.members if c in judged)
    yield _Round((), order)


@dataclass(frozen=True)
class _Plan:
    """What is asked about one segment in a round; no windows: nothing, it stays as it is.

    Attributes:
        pivot: index among the segment's members of what the others are compared with; None where
            the window's own order is wanted.
    """

    segment: _Segment
    windows: tuple[Window, ...] = ()
    pivot: int | None = None

    def refined(self, answers: Sequence[Scores | None], judged: Set[int]) -> list[_Segment]:
        """Return the segments that take this one's place."""
        if not self.windows:
            return [self.segment]
        if self.pivot is None:
            return self._ranked(answers[0], judged)
        return self._parted(self.pivot, answers)

    def _ranked(self, scores: Scores | None, judged: Set[int]) -> list[_Segment]:
        (shown,) = self.windows
        rest = tuple(m for m in self.segment.members if m not in set(shown))
        if scores is None:  # lost: these keep the order that they have, unknown ones at the end
            head = [_Segment(shown, settled=True)]
            return [*head, *_segment(rest)] if judged >= set(shown) else [*_segment(rest), *head]
        order, scores = _best_first(shown, scores)
        if not rest:
            return [_Segment(order, settled=True)]
        return [_Segment(order + rest, ranked=len(order), scores=scores)]

    def _parted(self, pivot: int, answers: Sequence[Scores | None]) -> list[_Segment]:
        segment = self.segment
        bar = segment.scores[pivot]
        middle = segment.members[pivot]
        lead = {m: score - bar for m, score in zip(segment.members, segment.scores, strict=False)}
        for shown, scores in zip(self.windows, answers, strict=True):
            if scores is not None:
                bar = scores[shown.index(middle)]
                lead.update({m: score - bar for m, score in zip(shown, scores, strict=True)})
        ahead = [m for m in segment.members[: segment.ranked] if m != middle]
        above, below = ahead[:pivot], ahead[pivot:]
        newcomers = [m for m in segment.members[segment.ranked :] if lead.get(m, 0.0) > 0]
        below += [m for m in segment.members[segment.ranked :] if lead.get(m, 0.0) <= 0]
        # A member of a lost window has no lead: it goes behind all that have one.
        first = sorted(above + newcomers, key=lambda m: -lead[m])
        last = sorted(below, key=lambda m: -lead.get(m, -math.inf))
        return [
            *_segment(first, settled=not newcomers),
            _Segment((middle,), settled=True),
            *_segment(last),
        ]


def _plans(segments: Sequence[_Segment], window: int, top_k: int) -> list[_Plan]:
    plans = []
    place = 0
    for segment in segments:
        wanted = top_k - place
        place += len(segment.members)
        if segment.settled or wanted <= 0:
            plans.append(_Plan(segment))
        elif not segment.ranked:
            plans.append(_Plan(segment, windows=(_head(segment.members, window, wanted),)))
        else:
            pivot = min(wanted, window // 2)
            chunks = _chunks(segment.members[segment.ranked :], window - 1)
            windows = tuple(_around(segment.members[pivot], chunk) for chunk in chunks)
            plans.append(_Plan(segment, windows=windows, pivot=pivot))
    return plans


def _head(members: Window, window: int, wanted: int) -> Window:
    """Return the window in which a pivot is looked for.

    Where a few places are wanted, the most promising: what beats their middle is few. Where more
    are wanted than a window holds, a sample from end to end, so that the pivot parts in halves.
    """
    if wanted <= window or len(members) <= window:
        return members[:window]
    return tuple(members[len(members) * place // window] for place in range(window))


def _around(pivot: int, chunk: Window) -> Window:
    """Return a window with the pivot in its middle, where a bias by place is least."""
    middle = len(chunk) // 2
    return (*chunk[:middle], pivot, *chunk[middle:])


def _segment(members: Sequence[int], *, settled: bool = False) -> list[_Segment]:
    return [_Segment(tuple(members), settled=settled or len(members) < 2)] if members else []


def _chunks(members: Window, most: int) -> list[Window]:
    """Split into as few runs as the limit allows, of nearly equal length."""
    count = math.ceil(len(members) / most)
    edges = [len(members) * number // count for number in range(count + 1)]
    return [members[start:end] for start, end in pairwise(edges)]


def _best_first(shown: Window, scores: Scores) -> tuple[Window, Scores]:
    """Return candidates and scores, best first; of equal scores the one shown first."""
    pairs = sorted(zip(scores, shown, strict=True), key=lambda pair: -pair[0])
    return tuple(candidate for _, candidate in pairs), tuple(score for score, _ in pairs)
