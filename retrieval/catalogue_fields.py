"""Turns the values of a row, as files give them, into the fields of a `Product`."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from reranker.errors import ConfigError, DataError
from reranker.schema import Product

_FIELDS = tuple(Product.model_fields)
_REQUIRED = ("product_id", "title")
_PLAIN_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_REPLACED = "\ufffd"
"""Stands for bytes that are not UTF-8 in what could be read of a broken row."""
_FLAGS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


class RefusedError(Exception):
    """A row does not make a product.

    Attributes:
        field: of `Product`, or ``row``.
        reason: for people.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True)
class ColumnPlan:
    """Which column of a file goes where. Build it with `of`.

    Attributes:
        columns: the column of each field.
        attributes: columns that become attributes of their own name.
        explicit: columns that were asked for by name, so that a file must have them.
        used: all columns that are looked at.
    """

    columns: Mapping[str, str]
    attributes: tuple[str, ...]
    explicit: frozenset[str]
    used: frozenset[str]

    @classmethod
    def of(cls, mapping: Mapping[str, str], attributes: Sequence[str]) -> "ColumnPlan":
        """Plan with a mapping of fields to columns; other fields take the column of their name.

        Raises:
            ConfigError: the mapping names an unknown field.
        """
        unknown = ", ".join(sorted(set(mapping) - set(_FIELDS)))
        if unknown:
            raise ConfigError(
                f"--map: unknown field {unknown}; the fields are {', '.join(_FIELDS)}"
            )
        columns = {name: mapping.get(name, name) for name in _FIELDS}
        explicit = frozenset({*mapping.values(), *attributes})
        return cls(columns, tuple(attributes), explicit, explicit | set(columns.values()))

    def check(self, path: Path, names: Sequence[str]) -> None:
        """Make sure that a file has the columns that are needed, each once.

        Raises:
            DataError: naming the file, its columns and the remedy.
        """
        found = ", ".join(names)
        for name in _REQUIRED:
            if self.columns[name] not in names:
                raise DataError(
                    f"{path}: no column {self.columns[name]!r} for the field {name}; the columns "
                    f"are {found}; name the right one with --map {name}=COLUMN"
                )
        missing = ", ".join(sorted(self.explicit - set(names)))
        if missing:
            raise DataError(f"{path}: no column {missing}; the columns are {found}")
        twice = ", ".join(sorted({name for name in names if names.count(name) > 1} & self.used))
        if twice:
            raise DataError(f"{path}: column {twice} comes twice; rename or remove one of them")

    def product(self, values: Mapping[str, Any]) -> Product:
        """Make the product of a row from its values by column.

        Raises:
            RefusedError: a value is missing or not what its field takes.
        """
        fields: dict[str, Any] = {}
        for name, column in self.columns.items():
            value = values.get(column)
            if value is not None and value != "":
                fields[name] = _converted(name, _CONVERTERS[name], value)
        if self.attributes:
            extra = {
                name: _converted(name, _attribute, values.get(name)) for name in self.attributes
            }
            shown = {name: text for name, text in extra.items() if text}
            fields["attributes"] = (fields.get("attributes") or {}) | shown
        for name in _REQUIRED:
            if not fields.get(name):
                raise RefusedError(name, self._missing(name, values))
        try:
            # A field without a value takes the default of `Product`.
            return Product(**{name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            problem = error.errors()[0]
            reason = f"{problem['msg']}, not {problem['input']!r}"
            raise RefusedError(str(problem["loc"][0]), reason) from None

    def product_id(self, values: Mapping[str, Any]) -> str | None:
        """Return the product id of a row that may be bad elsewhere; None if it cannot be read."""
        value = values.get(self.columns["product_id"])
        try:
            found = None if value is None else _converted("product_id", _identifier, value)
        except RefusedError:
            return None
        return found if found and _REPLACED not in found else None

    def _missing(self, name: str, values: Mapping[str, Any]) -> str:
        column = self.columns[name]
        if column in values:
            return f"missing or blank (column {column!r})"
        found = ", ".join(values)
        return f"no column {column!r} among {found}; name the right one with --map {name}=COLUMN"


def _converted(name: str, converter: Callable[[Any], Any], value: Any) -> Any:
    if _is_nan(value):
        return None
    try:
        found = converter(value)
        # JSON can spell half a character, which Python takes and nothing can store.
        for text in (*found, *found.values()) if isinstance(found, dict) else (found,):
            if isinstance(text, str) and not text.isascii():
                text.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise RefusedError(name, f"not unicode text: {half!r} is half a character") from None
    except ValueError as error:
        raise RefusedError(name, str(error)) from None
    return found


def _is_nan(value: Any) -> bool:
    """Tell whether a value is the number NaN, by which tables of numbers say that there is none."""
    return isinstance(value, float | Decimal) and math.isnan(value)


def _identifier(value: Any) -> str | None:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value).strip() or None
    raise ValueError(f"must be text or a whole number, not {value!r}")


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"must be text, not {value!r}")


def _price(value: Any) -> float | None:
    if isinstance(value, str):
        text = value.strip()
        if text and not _PLAIN_NUMBER.fullmatch(text):
            raise ValueError(f"must be a plain number such as 1299.00, not {value!r}")
        return float(text) if text else None
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise ValueError(f"must be a plain number such as 1299.00, not {value!r}")


def _flag(value: Any) -> bool | None:
    if isinstance(value, bool):
        return value
    text = str(value).strip().casefold()
    if not text:
        return None
    if text not in _FLAGS:
        raise ValueError(f"must be one of {', '.join(_FLAGS)}, not {value!r}")
    return _FLAGS[text]


def _attributes(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        value = _json(value) if value.strip() else {}
    if isinstance(value, list):  # a map of Parquet comes as pairs
        value = _pairs(value)
    if not isinstance(value, Mapping):
        raise ValueError(f'must be a JSON object such as {{"colour": "red"}}, not {value!r}')
    texts = {str(name): _attribute(each) for name, each in value.items()}
    return {name: text for name, text in texts.items() if text}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"must be a JSON object, but is not JSON: {error}") from None


def _pairs(value: list[Any]) -> Any:
    try:
        return dict(value)
    except (TypeError, ValueError):
        return value


def _attribute(value: Any) -> str | None:
    """Return the text of an attribute; a list of values is joined by commas."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(filter(None, map(_attribute, value))) or None
    if value is None or isinstance(value, Mapping) or _is_nan(value):
        if isinstance(value, Mapping) and value:
            raise ValueError(f"an attribute must be text or a number, not {value!r}")
        return None
    return str(value).strip() or None


_CONVERTERS: Mapping[str, Callable[[Any], Any]] = {
    "product_id": _identifier,
    "title": _text,
    "description": _text,
    "brand": _text,
    "category": _text,
    "price": _price,
    "currency": _text,
    "in_stock": _flag,
    "attributes": _attributes,
}
