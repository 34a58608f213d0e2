"""Options that many commands share, and the settings that they add up to."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from reranker.errors import ConfigError

if TYPE_CHECKING:
    from reranker.schema import Language
    from reranker.settings import Settings

StoreOption = Annotated[
    Path | None,
    typer.Option("--store", help="Folder of the shop's data. [setting store.path]"),
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", help="Settings file; without it ./shelfwise.toml if it is there."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Override a setting; may be repeated."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
AtOption = Annotated[
    datetime | None,
    typer.Option(
        "--at",
        "--as-of",
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%S%z"],
        help="The moment to look from: later events do not exist. [default: now]",
    ),
]
MapOption = Annotated[
    list[str] | None,
    typer.Option("--map", metavar="FIELD=COLUMN", help="Take a field from this column."),
]

MaxRejectedOption = Annotated[
    float,
    typer.Option(
        "--max-rejected",
        metavar="SHARE",
        min=0,
        max=1,
        help="Import nothing if more than this share, 0 to 1, is rejected.",
    ),
]


def pairs(values: list[str] | None, option: str) -> dict[str, str]:
    """Split ``NAME=VALUE`` arguments.

    Raises:
        ConfigError: one has no ``=``.
    """
    found = {}
    for value in values or []:
        name, separator, rest = value.partition("=")
        if not separator or not name:
            raise ConfigError(f"{option} {value}: write {option} NAME=VALUE")
        found[name.strip()] = rest.strip()
    return found


def arguments(store: Path | None, sets: list[str] | None) -> dict[str, Any]:
    """Return the settings given as arguments, by dotted name."""
    given: dict[str, Any] = dict(pairs(sets, "--set"))
    if store is not None:
        given["store.path"] = store
    return given


def load_settings(config: Path | None, store: Path | None, sets: list[str] | None) -> "Settings":
    """Return the settings in force for a command."""
    from reranker.settings import Settings

    return Settings.load(config, arguments(store, sets))


def moment(at: datetime | None) -> datetime:
    """Return the moment that is meant: without a zone in UTC, without any now."""
    if at is None:
        return datetime.now(UTC)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def check_output(path: Path | None, option: str) -> None:
    """Refuse a place where a command could not write, before the work is done that would be lost.

    Raises:
        ConfigError: it is a folder, or lies where no file can be made.
    """
    if path is None:
        return
    if path.is_dir():
        raise ConfigError(f"{option} {path}: this is a folder; name a file in it")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise ConfigError(f"{option} {path}: nothing can be written in {above}; name another place")


def language_named(name: str) -> "Language":
    """Return a language of prompts.

    Raises:
        ConfigError: there is no such one.
    """
    if name == "en":
        return "en"
    if name == "zh":
        return "zh"
    raise ConfigError(f"--language {name}: must be en or zh")
