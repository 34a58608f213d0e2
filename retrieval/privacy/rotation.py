"""Moves a store to a new key, so that whoever has got hold of the old one can find nobody in it."""

from pathlib import Path
from uuid import UUID

import pyarrow as pa
from pydantic import Field

from reranker.ports import Progress, no_progress
from reranker.schema import Value
from reranker.settings import PrivacySettings
from retrieval.behaviour import BehaviourStore
from retrieval.behaviour.keys import KeyRing
from retrieval.behaviour.pseudonyms import Pseudonyms
from retrieval.privacy.traces import remove_profiles

_EVERYONE = """SELECT shopper FROM event UNION SELECT shopper FROM client UNION
    SELECT client FROM client UNION SELECT shopper FROM consent UNION
    SELECT shopper FROM quarantine WHERE shopper IS NOT NULL"""


class Rotation(Value):
    """What a rotation has done.

    Attributes:
        shoppers: number of pseudonyms that were replaced.
        keys: number of keys behind each pseudonym now; all of them are needed.
        place: where the keys are.
    """

    shoppers: int = Field(ge=0)
    keys: int = Field(ge=1)
    place: str


def rotate(
    store: BehaviourStore,
    folder: Path,
    privacy: PrivacySettings,
    *,
    progress: Progress = no_progress,
) -> Rotation:
    """Replace every pseudonym by one of the newest key, which is made if the store has it already.

    The key is kept before the store is written anew: killed in between, the store is as it was, and
    the next rotation takes the key that is there. Lists of whom models were trained on stay as they
    are; they can be read with the older keys.

    Args:
        store: open for writing, and in no other object of this process.
        folder: of the store.
        privacy: says where the keys are.
        progress: told what is being done.

    Raises:
        ConfigError: the keys are in a setting, and no new one has been appended to it.
        DataError: the store is read-only.
    """
    ring = KeyRing.load(privacy)
    if len(ring.keys) == store.pseudonyms.generation:
        ring = ring.added()
    made = Pseudonyms(ring, len(ring.keys))
    with store.reading() as connection:
        older: list[UUID] = [row[0] for row in connection.execute(_EVERYONE).fetchall()]
    newer = made.advanced(older, store.pseudonyms.generation)
    rotated = pa.table(
        {"old": [str(each) for each in older], "new": [str(each) for each in newer]},
        schema=pa.schema([("old", "string"), ("new", "string")]),
    )
    remove_profiles(folder)
    kept = {
        name: _renamed(name, columns)
        for name, columns in {
            "event": ("shopper",),
            "client": ("shopper", "client"),
            "consent": ("shopper",),
            "quarantine": ("shopper",),
        }.items()
    }
    store.rewrite(kept, tables={"rotated": rotated}, pseudonyms=made, progress=progress)
    return Rotation(shoppers=len(older), keys=len(ring.keys), place=ring.place)


def _renamed(table: str, columns: tuple[str, ...]) -> str:
    replaced = ", ".join(f"r_{name}.new::UUID AS {name}" for name in columns)
    joins = " ".join(
        f"LEFT JOIN rotated r_{name} ON t.{name} = r_{name}.old::UUID" for name in columns
    )
    return f"SELECT t.* REPLACE ({replaced}) FROM {table} t {joins}"
