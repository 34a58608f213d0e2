"""What shoppers chose, in columns, and how some of it is held out to learn from."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Choices:
    """N choices, by sequence, each sequence in its order.

    Attributes:
        sequence, user: of each choice a number; one shopper may have several sequences.
        product: of each choice a number from 0, below ``products``.
        products: how many products there are.
    """

    sequence: Integers
    user: Integers
    product: Integers
    products: int


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
    """Hold out the last choice of some shoppers, at most of a third of those who made two.

    The answer goes from all of the shopper's sequences, unless the shopper had chosen it before:
    what is counted must not have seen what it is to tell.
    """
    starts = np.flatnonzero(np.diff(choices.sequence, prepend=-1))
    ends = np.append(starts[1:], len(choices.product))[: len(starts)]
    long = ends - starts >= 2
    # The last sequence of a shopper; later ones overwrite earlier ones.
    last = dict(
        zip(choices.user[starts[long]].tolist(), np.flatnonzero(long).tolist(), strict=True)
    )
    users = np.array(sorted(last), np.int64)
    chosen = rng.permutation(users)[: min(most, len(users) // 3)]
    spans = [(int(starts[last[user]]), int(ends[last[user]])) for user in chosen.tolist()]
    histories = tuple(choices.product[start : end - 1] for start, end in spans)
    answers = np.array([choices.product[end - 1] for _, end in spans], np.int64)
    known = np.ones(len(choices.product), bool)
    known[[end - 1 for _, end in spans]] = False
    new = np.full(int(choices.user.max(initial=0)) + 1, -1, np.int64)
    for user, history, answer in zip(chosen.tolist(), histories, answers.tolist(), strict=True):
        if answer not in history:
            new[user] = answer
    known &= new[choices.user] != choices.product
    rest = Choices(
        choices.sequence[known], choices.user[known], choices.product[known], choices.products
    )
    return HeldOut(histories, answers, rest)
