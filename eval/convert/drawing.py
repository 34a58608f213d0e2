"""Candidates drawn beside a target where a data set names none, or too many."""

from collections.abc import Iterable
from hashlib import blake2b


def drawn_beside(target: str, ids: Iterable[str], seed: str, count: int) -> tuple[str, ...]:
    """Return a target and a draw of others, by id, so that its place tells nothing.

    Args:
        target: is among them in any case.
        ids: to draw from; their order does not matter.
        seed: the same one draws the same products.
        count: of products, the target counted; fewer where there are no more.
    """
    others = sorted(
        (each for each in ids if each != target),
        key=lambda each: blake2b(f"{seed}\n{each}".encode()).digest(),
    )
    return tuple(sorted([target, *others[: count - 1]]))
