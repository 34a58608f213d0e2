"""The secrets behind the pseudonyms: a ring of keys, kept outside the database.

A ring only ever grows: `KeyRing.added` appends a key, and pseudonyms of the new generation are made
of those of the one before (`retrieval.behaviour.pseudonyms`). A store keeps the fingerprint of its
generation, so that several stores can share one ring, each at its own.
"""

import hmac
import logging
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock
from platformdirs import user_config_path

from reranker.errors import ConfigError
from reranker.settings import PrivacySettings
from retrieval.files import replacing

_log = logging.getLogger(__name__)
_SHORTEST = 16
_OTHERS = 0o007
_GROUP_WRITES = 0o020
DIGEST_BYTES = 16
"""Length of a pseudonym: 128 of the 256 bits of HMAC-SHA256 (NIST SP 800-107 allows to cut)."""


@dataclass(frozen=True, repr=False)
class KeyRing:
    """Secrets, oldest first, and where they came from; `repr` shows neither.

    Attributes:
        keys: at least one, unless none has been made yet.
        file: that holds them; None where the setting privacy.key does.
    """

    keys: tuple[bytes, ...]
    file: Path | None

    @classmethod
    def load(cls, privacy: PrivacySettings, *, create: bool = False) -> "KeyRing":
        """Return the ring that the settings name.

        Args:
            privacy: the settings.
            create: make a key where there is none yet, and say so in the log; else the ring is
                empty then.

        Raises:
            ConfigError: a key is too short, or its file unreadable or open to others.
        """
        if privacy.key is not None:
            words = privacy.key.get_secret_value().split(",")
            return cls(tuple(_checked(word, "setting privacy.key") for word in words), None)
        file = privacy.key_file or user_config_path("shelfwise") / "pseudonym.key"
        if file.exists():
            return cls(_read(file), file)
        ring = cls((), file)
        if create:
            ring = ring.added()
            _log.warning(
                "made a key for the pseudonyms of shoppers: %s; keep a copy apart from the data, "
                "since without it no shopper in the store can be found again",
                file,
            )
        return ring

    def added(self) -> "KeyRing":
        """Return the ring with a new key, written to its file.

        Raises:
            ConfigError: the keys are in a setting, which is not ours to write.
        """
        if self.file is None:
            raise ConfigError(
                "setting privacy.key: append a new secret behind a comma, then rotate again"
            )
        self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with FileLock(f"{self.file}.lock"):
            there = _read(self.file) if self.file.exists() else ()
            if there and not self.keys:  # another process was first
                return KeyRing(there, self.file)
            grown = KeyRing((*there, secrets.token_hex(32).encode()), self.file)
            with replacing(self.file, private=True) as temporary:
                temporary.write_bytes(b"\n".join(grown.keys) + b"\n")
        return grown

    def generation(self, fingerprint: str) -> int | None:
        """Return how many keys, from the oldest, have a fingerprint; None if no such number."""
        counts = range(1, len(self.keys) + 1)
        return next((n for n in counts if self.fingerprint(n) == fingerprint), None)

    def fingerprint(self, generation: int) -> str:
        """Return what tells the first keys from all others, and tells nothing of them."""
        return chained(self.keys[:generation], b"fingerprint").hex()

    @property
    def place(self) -> str:
        """Where the keys are, for people."""
        return "setting privacy.key" if self.file is None else str(self.file)


def chained(keys: tuple[bytes, ...], message: bytes) -> bytes:
    """Return HMAC(newest, ... HMAC(oldest, message)), each cut to `DIGEST_BYTES`."""
    for key in keys:
        # Unlike hmac.digest this keeps the interpreter's lock, for which it would have to wait.
        message = hmac.new(key, message, "sha256").digest()[:DIGEST_BYTES]
    return message


def _read(file: Path) -> tuple[bytes, ...]:
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: the key of the pseudonyms cannot be read ({error})") from error
    if os.name == "posix" and mode & (_OTHERS | _GROUP_WRITES):
        raise ConfigError(f"{file}: others can read or change this key; run chmod 600 {file}")
    keys = tuple(_checked(line, str(file)) for line in text.split("\n") if line.strip())
    if not keys:
        raise ConfigError(f"{file}: holds no key; restore it from its copy")
    return keys


def _checked(word: str, where: str) -> bytes:
    key = word.strip().encode()
    if len(key) < _SHORTEST:
        raise ConfigError(
            f"{where}: a key is shorter than {_SHORTEST} characters; "
            "take one from `openssl rand -hex 32`"
        )
    return key
