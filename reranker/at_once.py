"""Several questions at the same time, in one event loop."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import anyio

_About = TypeVar("_About")
_Answer = TypeVar("_Answer")


async def at_once(
    ask: Callable[[_About], Awaitable[_Answer]], subjects: Sequence[_About]
) -> list[_Answer]:
    """Ask about all subjects at the same time, and return the answers in their order.

    The first error ends the other questions and is raised as it is.
    """
    answers: dict[int, _Answer] = {}

    async def answer(place: int) -> None:
        answers[place] = await ask(subjects[place])

    try:
        if len(subjects) == 1:  # a task of its own would only cost time
            await answer(0)
        else:
            async with anyio.create_task_group() as group:
                for place in range(len(subjects)):
                    group.start_soon(answer, place)
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    return [answers[place] for place in range(len(subjects))]
