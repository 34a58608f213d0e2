"""What counts as a label, and what does not.

A label is a letter that stands for itself: not a letter of a word, not the article of a sentence.
"""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

TOKEN = r"[A-Za-z0-9_@#+-]{1,12}"
"""What may stand in a label's place; whether it is one of the window's labels is another matter."""
NOUN = (
    r"(?:(?:product|item|option|choice|candidate|document|doc|passage|label|id|no\.?|"
    r"商品|产品|选项|编号|标签)\s{0,4}[:#：]?\s{0,4})?"
)
NOUN_BEFORE = (
    r"\b(?:products?|items?|options?|documents?|docs?|passages?|labels?)\b[:#]?|商品|产品|选项"
)
_OPEN = r"[\[({<\"'`*_~\s]{0,12}"
_CLOSE = r"[\])}>\"'`*_~]{0,12}"
_REST = r"$|[:;|)\]=(].*|[.,–—-](?:\s.*|$)"
_WRITTEN = re.compile(
    rf"{_OPEN}{NOUN}{_OPEN}(?P<token>{TOKEN}?){_CLOSE}\s*(?P<rest>{_REST})",
    re.IGNORECASE | re.DOTALL,
)
_LIKE = re.compile(r"[A-Za-z]|[A-Z]{2}|-?\d{1,4}|[@#]")
_BETWEEN = re.compile(r"(?:[\s,;/|+&>\[\](){}\"'`*_~]|\b(?:and|then)\b|和|及|与|再)+")
_LONGEST = 120


class Written(NamedTuple):
    """A label as it was written, known or not, and what follows it."""

    token: str
    rest: str


class Labels:
    """The labels of one window."""

    def __init__(self, labels: Sequence[str]) -> None:
        self.names = tuple(labels)
        self._slots = {label: slot for slot, label in enumerate(labels)}
        folded = [label.casefold() for label in labels]
        # "c" may stand for "C" only where no label is called "c".
        self._folded = {f: slot for slot, f in enumerate(folded) if folded.count(f) == 1}

    def slot(self, token: str) -> int | None:
        """Return the slot that a label stands for, in whatever case; None for no label."""
        exact = self._slots.get(token)
        return self._folded.get(token.casefold()) if exact is None else exact

    def is_exact(self, token: str) -> bool:
        """Tell whether a label is written in its own case."""
        return token in self._slots

    def spelled(self, word: str) -> tuple[str, ...] | None:
        """Return the labels of a word such as ``CAB`` that puts each label once; else None."""
        whole = len(word) == len(self.names) >= 2 and set(word) == set(self.names)
        return tuple(word) if whole else None


def halfwidth(text: str) -> str:
    """Return a text with full-width letters, brackets and marks replaced, character by character.

    The length stays, so that places in both texts are the same.
    """
    return text if text.isascii() else text.translate(_NARROW)


def plain_spaces(text: str) -> str:
    """Return a text with odd, invisible and zero-width spaces replaced by a plain one each."""
    return text if text.isascii() else text.translate(_SPACES)


def read_label(text: str) -> Written | None:
    """Return the label that a short text consists of or begins with; None where it has none.

    ``C``, ``[C]``, ``**C**``, ``Product C`` and ``C: tea`` have one, ``A few notes`` has none.
    """
    match = _WRITTEN.match(halfwidth(text[:_LONGEST]).strip())
    return Written(match["token"], match["rest"]) if match else None


def looks_like_label(token: str) -> bool:
    """Tell whether a word could be meant as a label, be it one of the window's or not."""
    return _LIKE.fullmatch(token) is not None


def only_labels(text: str) -> tuple[str, ...]:
    """Return the labels of a text that holds nothing else but what separates them; else nothing."""
    plain = re.sub(NOUN_BEFORE, " ", halfwidth(text), flags=re.IGNORECASE).strip(" .\n")
    tokens = tuple(token for token in _BETWEEN.split(plain) if token)
    return tokens if all(looks_like_label(token) for token in tokens) else ()


def _narrow() -> dict[int, str]:
    table = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    table |= {ord(c): "[" for c in "【〔〖［「『《〈"} | {ord(c): "]" for c in "】〕〗］」』》〉"}
    table |= {ord(c): '"' for c in "“”„‟＂"} | {ord(c): "'" for c in "‘’‚`´"}
    table |= {ord(c): ">" for c in "→➔➜⟶⇒≻›»⟩＞≥❯"}
    return table | _SPACES | {ord("、"): ",", ord("。"): "."}


def _spaces() -> dict[int, str]:
    kinds = {"Zs": " ", "Cf": " ", "Zl": "\n", "Zp": "\n"}
    found = {code: kinds.get(unicodedata.category(chr(code))) for code in range(0x3001)}
    return {code: space for code, space in found.items() if space} | {0xFEFF: " "}


_SPACES = _spaces()
_NARROW = _narrow()
