"""Arguments of `shelfwise tune` that are refused before anything is read."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from reranker.errors import ConfigError


def check_arguments(
    out: Path, name: str, weights: Sequence[float], sources: int, store_only: Sequence[str]
) -> None:
    """Refuse what a training could not begin or end with.

    Args:
        out: folder of the run.
        name: of the adapter.
        weights: of the sources; none: all alike.
        sources: number of them.
        store_only: options that were given and speak of a store, where no store is learnt from.

    Raises:
        ConfigError: naming the option.
    """
    if not sources:
        raise ConfigError(
            "there is nothing to learn from: name folders, or give --behaviour or --shown"
        )
    if store_only:
        raise ConfigError(
            f"{store_only[0]}: speaks of the behaviour of a store, and only folders are learnt "
            "from: give --behaviour or --shown, too, or leave it out"
        )
    _check_name(name)
    _check_weights(weights, sources)
    _check_folder(out)


def _check_name(name: str) -> None:
    from reranker.models.adapter import NAME

    if not re.fullmatch(NAME, name):
        raise ConfigError(
            f"--name {name!r}: the name of an adapter is of small letters, digits, dots, '_' and "
            "'-', begins with a letter or a digit, and has 64 characters at most"
        )


def _check_weights(weights: Sequence[float], sources: int) -> None:
    if weights and len(weights) != sources:
        raise ConfigError(f"--weight: {len(weights)} are given for {sources} sources")
    for weight in weights:
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"--weight {weight:g}: must be a number above 0")


def _check_folder(out: Path) -> None:
    there = next((place for place in (out, *out.absolute().parents) if place.exists()), None)
    if there is not None and not there.is_dir():
        raise ConfigError(f"--out {out}: {there} is a file: name a folder")
