"""The address of a database, as a setting and in messages."""

import re
from typing import Self
from urllib.parse import parse_qs, urlsplit

_SCHEMES = ("postgresql://", "postgres://")
_SECRETS = ("password", "sslpassword")


class Database(str):
    """``postgresql://USER@HOST/DATABASE#WITHIN``: PostgreSQL, and a schema or table of it.

    Attributes:
        url: of the database, as libpq takes it.
        within: what is named behind ``#``; may be empty.
        name: for messages; nobody's account or password is in it.
    """

    url: str
    within: str
    name: str

    def __new__(cls, text: str) -> Self:
        """Take an address apart.

        Raises:
            ValueError: it is none; the message does not repeat it.
        """
        found = super().__new__(cls, text)
        found.url, _, found.within = text.partition("#")
        try:
            parts = urlsplit(found.url)
            port = f":{parts.port}" if parts.port else ""
        except ValueError:
            raise ValueError(f"not postgresql://USER@HOST/DATABASE{_ESCAPES}") from None
        if "@" in found.within:
            raise ValueError(f"there is a # before the host{_ESCAPES}")
        host = parts.hostname or "".join(parse_qs(parts.query).get("host", [])) or "localhost"
        found.name = f"postgresql://{host}{port}{parts.path}#{found.within}"
        return found

    def __repr__(self) -> str:
        """Return what it is in messages: without a password that may be in it."""
        return f"Database({self.name!r})"

    @staticmethod
    def is_meant(value: object) -> bool:
        """Tell whether something is a text that names a database, not a file."""
        return isinstance(value, str) and value.lower().startswith(_SCHEMES)

    @property
    def holds_password(self) -> bool:
        """Whether a password is in it."""
        parts = urlsplit(self.url)
        return bool(parts.password or any(name in parse_qs(parts.query) for name in _SECRETS))


_ESCAPES = "; in names and passwords write # as %23, @ as %40, / as %2F"
_CREDENTIALS = re.compile(r"(?<=://)[^/]*@|(?:ssl)?password=[^&#\s]*", re.IGNORECASE)


def without_credentials(text: str) -> str:
    """Return a text with what stands before the host of an address taken out."""
    return _CREDENTIALS.sub("", text)
