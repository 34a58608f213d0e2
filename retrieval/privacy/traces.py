"""Where shoppers leave traces outside the behaviour file: written profiles, and trained models.

A model's folder holds ``data_card.json``; its field ``shoppers`` names the file with the pseudonyms
that it was trained on, ``key_fingerprint`` the key that they were made with.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from pydantic import Field

from reranker.errors import DataError
from reranker.schema import Value
from retrieval.behaviour.keys import DIGEST_BYTES
from retrieval.behaviour.pseudonyms import Pseudonym, Pseudonyms
from retrieval.files import replacing

PROFILES = "profiles"
"""Folder of the store whose files about one shopper have names that begin with the pseudonym."""
DATA_CARD = "data_card.json"
SHOPPERS = "shoppers.bin"


class TrainedModel(Value):
    """A model or adapter that was trained on a shopper.

    Attributes:
        certain: False where its pseudonyms were made with a key that is not at hand, so that it
            cannot be told who is among them.
        erased_shoppers: how many of its shoppers have been erased since; it still knows of them.
    """

    folder: Path
    certain: bool
    erased_shoppers: int = Field(ge=0)


def written_profiles(store: Path, shoppers: Iterable[Pseudonym]) -> list[Path]:
    """Return the files about some shoppers in the folder of a store."""
    folder = store / PROFILES
    return sorted(file for each in shoppers for file in folder.rglob(f"{each.hex}*"))


def remove_profiles(store: Path) -> None:
    """Remove what has been written about all shoppers; it is made again when it is needed."""
    shutil.rmtree(store / PROFILES, ignore_errors=True)


def write_shoppers(folder: Path, shoppers: Iterable[UUID | Pseudonym]) -> Path:
    """Write whom a model was trained on, sorted, 16 bytes each; return the file."""
    path = folder / SHOPPERS
    with replacing(path, private=True) as temporary:
        temporary.write_bytes(b"".join(sorted({each.bytes for each in shoppers})))
    return path


def read_shoppers(path: Path) -> list[UUID]:
    """Return whom a model was trained on.

    Raises:
        DataError: the file is missing or cut off.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}), though a data card names it") from error
    if len(content) % DIGEST_BYTES:
        raise DataError(f"{path}: is cut off; restore it, or train the model again")
    starts = range(0, len(content), DIGEST_BYTES)
    return [UUID(bytes=content[start : start + DIGEST_BYTES]) for start in starts]


def trained_on(
    folders: Sequence[Path], pseudonyms: Pseudonyms, shoppers: Sequence[Pseudonym]
) -> tuple[TrainedModel, ...]:
    """Return the models in some folders, searched in depth, that were trained on any shopper.

    Args:
        folders: those that do not exist hold none.
        pseudonyms: that the shoppers are of.
        shoppers: one person, who may have several pseudonyms.

    Raises:
        DataError: a data card, or the file that it names, cannot be read.
    """
    found = []
    for folder, card in _cards(folders):
        places = _places(folder, card, pseudonyms, shoppers)
        if places is None or places:
            erased = int(card.get("erased_shoppers", 0))
            certain = places is not None
            found.append(TrainedModel(folder=folder, certain=certain, erased_shoppers=erased))
    return tuple(found)


def take_out(
    folders: Sequence[Path], pseudonyms: Pseudonyms, shoppers: Sequence[Pseudonym]
) -> tuple[TrainedModel, ...]:
    """Take a person out of the lists of whom models were trained on; return `trained_on` of before.

    What the models have learnt stays in them: their data cards count the erased, to show that they
    should be trained again.
    """
    models = trained_on(folders, pseudonyms, shoppers)
    for folder, card in _cards([model.folder for model in models if model.certain]):
        places = _places(folder, card, pseudonyms, shoppers) or set()
        # In this order: killed in between, the model counts once too often, but is not forgotten.
        card["erased_shoppers"] = int(card.get("erased_shoppers", 0)) + 1
        with replacing(folder / DATA_CARD) as temporary:
            text = json.dumps(card, indent=2, ensure_ascii=False) + "\n"
            temporary.write_text(text, encoding="utf-8")
        everyone = read_shoppers(folder / str(card["shoppers"]))
        kept = (each for place, each in enumerate(everyone) if place not in places)
        with replacing(folder / str(card["shoppers"]), private=True) as temporary:
            temporary.write_bytes(b"".join(each.bytes for each in kept))
    return models


def _cards(folders: Sequence[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    files = sorted({file.resolve() for folder in folders for file in folder.rglob(DATA_CARD)})
    for file in files:
        try:
            card = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{file}: not a readable data card ({error})") from error
        if isinstance(card, dict) and card.get("shoppers"):
            yield file.parent, card


def _places(
    folder: Path, card: dict[str, Any], pseudonyms: Pseudonyms, shoppers: Sequence[Pseudonym]
) -> set[int] | None:
    """Return where a person is in a model's list; None if the key of the list is not at hand."""
    generation = pseudonyms.ring.generation(str(card.get("key_fingerprint")))
    if generation is None:
        return None
    everyone = read_shoppers(folder / str(card["shoppers"]))
    newest = max(generation, pseudonyms.generation)
    maker = Pseudonyms(pseudonyms.ring, newest)
    sought = set(maker.advanced([each.uuid for each in shoppers], pseudonyms.generation))
    listed = maker.advanced(everyone, generation)
    return {place for place, each in enumerate(listed) if each in sought}
