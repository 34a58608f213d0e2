"""What all imports share: how a refused row is reported, and how progress is told."""

from collections.abc import Callable
from typing import Annotated

from pydantic import Field

from reranker.schema import Value

REJECTED_IN_MEMORY = 1000
"""Refused rows that a report holds; all of them are in the file that it names."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is in all."""


class RejectedRow(Value):
    """One row that was not imported.

    Attributes:
        row: 1-based number of the record; the header of a CSV file does not count.
        field: the field at fault, or ``row`` where the whole record could not be read.
        reason: what is wrong with it.
    """

    file: str
    row: Annotated[int, Field(ge=1)]
    field: str
    reason: str


def no_progress(_what: str, _done: int, _total: int) -> None:
    """Tell nobody."""
