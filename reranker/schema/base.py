"""The base of all values, and the types that many of them share."""

import unicodedata
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, PlainSerializer, StringConstraints

Language = Literal["en", "zh"]
Readout = Literal["labels", "verdict", "generate"]
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=256, strip_whitespace=True)]
LONGEST_QUERY = 2000
"""In characters."""
Query = Annotated[str, StringConstraints(strip_whitespace=True, max_length=LONGEST_QUERY)]
FrozenMapping = Annotated[
    Mapping[str, str],
    AfterValidator(lambda mapping: MappingProxyType(dict(mapping))),
    PlainSerializer(dict, return_type=dict[str, str]),
]


class Value(BaseModel):
    """Base of all values: frozen, and unknown fields are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


def one_line(text: str) -> str:
    """Return a text on one line, without control, format or private characters."""
    if text.isprintable():
        return " ".join(text.split())
    spaced = "".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join(spaced.split())


def is_blank(text: str) -> bool:
    """Tell whether a text holds nothing but spaces and invisible characters."""
    return not one_line(text)
