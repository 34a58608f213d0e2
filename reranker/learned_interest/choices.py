"""What shoppers chose, in columns, and how some of it is held out to learn from."""

from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


_VISIT_US = 30 * 60 * 1_000_000
"""Choices that lie no further apart are of one visit."""


@dataclass(frozen=True)
class Choices:
    """N choices, by sequence, each sequence in its order. Build it with `of`.

    Attributes:
        sequence, user: of each choice a number; one shopper may have several sequences.
        product: of each choice a number from 0, below ``products``.
        visit: of each choice a number that rises along a sequence: what was chosen in one visit has
            no order, and what is foretold of a visit must not know the rest of it.
        products: how many products there are.
    """

    sequence: Integers
    user: Integers
    product: Integers
    visit: Integers
    products: int

    @classmethod
    def of(
        cls,
        sequence: Integers,
        user: Integers,
        product: Integers,
        products: int,
        *,
        at_us: Integers | None = None,
        seed: int = 0,
    ) -> Self:
        """Find the visits.

        Args:
            sequence: see the class.
            user: see the class.
            product: see the class.
            products: how many there are.
            at_us: time of each in microseconds since 1970, below 0 where it is not known; None
                where no time is known: then each choice is a visit of its own.
            seed: of the order inside of visits.
        """
        new = np.ones(len(product), bool)
        if at_us is not None and len(product):
            near = (np.diff(at_us) <= _VISIT_US) & (at_us[1:] >= 0) & (at_us[:-1] >= 0)
            new[1:] = (np.diff(sequence) != 0) | ~near
        visit = np.cumsum(new)
        # Files order what has one time by its name: that would be taken for an order of choice.
        order = np.lexsort((np.random.default_rng(seed).random(len(product)), visit))
        return cls(sequence[order], user[order], product[order], visit[order], products)

    def some(self, kept: npt.NDArray[np.bool_]) -> "Choices":
        """Return those that a mask keeps."""
        return Choices(
            self.sequence[kept],
            self.user[kept],
            self.product[kept],
            self.visit[kept],
            self.products,
        )


class HeldOut(NamedTuple):
    """Examples to learn from, and the choices without their answers.

    Attributes:
        histories: what the shopper of each example had chosen before, oldest first.
        answers: what each chose next.
        rest: all other choices: what was known before the answers.
    """

    histories: tuple[Integers, ...]
    answers: Integers
    rest: Choices


def hold_out(choices: Choices, most: int, rng: np.random.Generator) -> HeldOut:
    """Hold out a choice of the last visit of some shoppers, at most of a third of who had two.

    The history ends before that visit. The answer goes from all of the shopper's sequences, unless
    the shopper had chosen it before: what is counted must not have seen what it is to tell.
    """
    starts = np.flatnonzero(np.diff(choices.sequence, prepend=-1))
    ends = np.append(starts[1:], len(choices.product))[: len(starts)]
    # Of each sequence, where its last visit begins.
    last_visit = np.searchsorted(choices.visit, choices.visit[ends - 1])
    long = last_visit > starts
    # The last sequence of a shopper; later ones overwrite earlier ones.
    last = dict(
        zip(choices.user[starts[long]].tolist(), np.flatnonzero(long).tolist(), strict=True)
    )
    users = np.array(sorted(last), np.int64)
    chosen = rng.permutation(users)[: min(most, len(users) // 3)]
    spans = [
        (int(starts[row]), int(last_visit[row]), int(ends[row]))
        for row in (last[user] for user in chosen.tolist())
    ]
    places = [int(rng.integers(first, end)) for _, first, end in spans]
    histories = tuple(choices.product[start:first] for start, first, _ in spans)
    answers = np.array([choices.product[place] for place in places], np.int64)
    known = np.ones(len(choices.product), bool)
    known[places] = False
    new = np.full(int(choices.user.max(initial=0)) + 1, -1, np.int64)
    for user, history, answer in zip(chosen.tolist(), histories, answers.tolist(), strict=True):
        if answer not in history:
            new[user] = answer
    known &= new[choices.user] != choices.product
    return HeldOut(histories, answers, choices.some(known))
