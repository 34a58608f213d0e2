"""What all imports share: how a refused row is reported."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from reranker.schema import Value

REJECTED_IN_MEMORY = 1000
"""Refused rows that a report holds; all of them are in the file that it names."""


def _writable(text: Any) -> Any:
    """Return a text with halves of characters escaped, which no file and no terminal takes."""
    return text.encode(errors="backslashreplace").decode() if isinstance(text, str) else text


Writable = Annotated[str, BeforeValidator(_writable)]
"""Text from outside that can always be written as UTF-8: what cannot is escaped."""


class RejectedRow(Value):
    """One row that was not imported.

    Attributes:
        row: 1-based number of the record; a header and blank lines do not count.
        field: the field at fault, or ``row`` where the whole record could not be read.
        reason: what is wrong with it.
    """

    file: Writable
    row: Annotated[int, Field(ge=1)]
    field: Writable
    reason: Writable
