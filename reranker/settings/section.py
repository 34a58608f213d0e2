"""What sections of settings have in common: their base, and values written as one text."""

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Section(BaseModel):
    """Base of the sections: frozen; unknown keys and numbers that are not finite are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def split_text(value: Any) -> Any:
    """Take several words in one text: with commas between them, or as a list in JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [word.strip() for word in value.split(",") if word.strip()]


def pairs(form: str, example: str) -> BeforeValidator:
    """Take pairs as a table, a list of texts in a form, or one text of them with commas between."""
    meaning = form.partition("=")[2].lower()

    def take(value: Any) -> Any:
        if isinstance(value, Mapping):
            for name, text in value.items():
                if not isinstance(text, str):
                    raise ValueError(
                        f"{name} has no {meaning} as text; a name with dots needs quotes"
                    )
            return [f"{name}={text}" for name, text in value.items()]
        found = split_text(value)
        for pair in found if isinstance(found, list | tuple) else ():
            if isinstance(pair, str) and "=" not in pair:
                raise ValueError(f"{pair!r} is not {form}, such as {example}")
        return found

    return BeforeValidator(take)
