"""The one place where a user id becomes a pseudonym.

The pseudonym of the first generation is HMAC-SHA256(key 1, id), cut to 128 bits; that of each
later one is HMAC-SHA256(key n, pseudonym of generation n - 1). So a rotation needs no ids, which
the store does not have; the price is that the older keys have to be kept. Whoever has got hold of
an old key and an old copy of the store learns nothing of the new one.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple
from uuid import UUID

from retrieval.behaviour.keys import KeyRing, chained

_PREFIX = "pseudonym:"
_WRITTEN = re.compile(f"{_PREFIX}([0-9a-f]{{32}})")


class Pseudonym(NamedTuple):
    """Stands for a shopper; ``str`` writes it so that it is taken wherever a user id is."""

    uuid: UUID

    @property
    def hex(self) -> str:
        """32 hexadecimal digits."""
        return self.uuid.hex

    @property
    def bytes(self) -> bytes:
        """16 bytes."""
        return self.uuid.bytes

    def __str__(self) -> str:
        return f"{_PREFIX}{self.uuid.hex}"

    @classmethod
    def written(cls, user_id: str) -> "Pseudonym | None":
        """Return the pseudonym that a text is; None for a user id."""
        found = _WRITTEN.fullmatch(user_id.strip())
        return None if found is None else cls(UUID(found[1]))

    @classmethod
    def of_hex(cls, digits: str) -> "Pseudonym | None":
        """Return the pseudonym of 32 hexadecimal digits; None for anything else."""
        return cls.written(f"{_PREFIX}{digits}")


@dataclass(frozen=True)
class Pseudonyms:
    """Makes the pseudonyms of one generation of a key ring.

    Attributes:
        ring: holds at least ``generation`` keys.
        generation: number of its keys that are used, from the oldest.
    """

    ring: KeyRing
    generation: int

    @property
    def fingerprint(self) -> str:
        """What a store of these pseudonyms is marked with."""
        return self.ring.fingerprint(self.generation)

    def of(self, user_id: str) -> Pseudonym:
        """Return the pseudonym of a user id; of a pseudonym as text, itself."""
        made = chained(self._keys, _message(user_id))
        return Pseudonym.written(user_id) or Pseudonym(UUID(bytes=made))

    def hexes(self, user_ids: Iterable[str]) -> list[str]:
        """Return the pseudonyms of many user ids as hexadecimal digits."""
        keys, prefix = self._keys, _PREFIX
        return [
            self.of(user_id).hex if prefix in user_id else chained(keys, _message(user_id)).hex()
            for user_id in user_ids
        ]

    def advanced(self, older: Sequence[UUID], generation: int) -> list[UUID]:
        """Return pseudonyms of an older generation in this one."""
        keys = self.ring.keys[generation : self.generation]
        return [UUID(bytes=chained(keys, each.bytes)) for each in older]

    @cached_property
    def _keys(self) -> tuple[bytes, ...]:
        return self.ring.keys[: self.generation]


def _message(user_id: str) -> bytes:
    return b"shopper:" + user_id.strip().encode(errors="surrogatepass")
