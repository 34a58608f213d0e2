"""Read JSON as careless models write it.

Single, curly and missing quotes, full-width punctuation, trailing and missing commas, comments,
Python's literals, and an end in the middle are read for what they mean. Every character is looked
at a bounded number of times, and nothing raises.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

_DEPTH = 12
_OPEN = {"{": "}", "[": "]", "｛": "}", "［": "]", "【": "]"}
_CLOSE = {"}": "}", "]": "]", "｝": "}", "］": "]", "】": "]"}
_QUOTES = {'"': '"', "'": "'", "“": "”", "”": "”", "「": "」", "‘": "’", "＂": "＂", "`": "`"}
_BARE_END = frozenset(",，、:：;；\n") | _OPEN.keys() | _CLOSE.keys()
_SKIPPED = re.compile(r"(?:[\s,，、;；]|//[^\n]*|#[^\n]*|/\*)+")
_COLON = re.compile(r"\s*(?:[:：]|=>?)\s*")
_START = re.compile(r"[{\[｛［【]")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_AFTER_STRING = re.compile(r"[^\S\n]*(?:[<\n,，、;；:：=}\]｝］】)\"'“”「‘`]|//|$)")
_LITERALS = {"true": True, "false": False, "null": None, "none": None}


class Found(NamedTuple):
    """A value in a text.

    Attributes:
        value: of dicts, lists, strings, numbers, booleans and None.
        start: its first character in the text.
        end: one behind its last.
        strict: whether it is JSON as the standard has it.
        complete: whether it is closed; False where the text ends within it.
    """

    value: Any
    start: int
    end: int
    strict: bool
    complete: bool


def find_values(text: str) -> Iterator[Found]:
    """Yield the objects and arrays of a text, outermost ones only, in their order."""
    place = 0
    decoder = json.JSONDecoder()
    while (match := _START.search(text, place)) is not None:
        start = match.start()
        try:
            value, end = decoder.raw_decode(text, start)
            found = Found(value, start, end, strict=True, complete=True)
        except (ValueError, RecursionError):
            found = read_value(text, start)
        yield found
        place = max(found.end, start + 1)


def read_value(text: str, start: int) -> Found:
    """Read the value that begins at a place, whatever is wrong with it."""
    reader = _Reader(text, start)
    value = reader.value(0)
    return Found(value, start, reader.place, strict=False, complete=reader.complete)


class _Reader:
    def __init__(self, text: str, place: int) -> None:
        self.text = text
        self.place = place
        self.complete = True

    def value(self, depth: int) -> Any:
        character = self._peek()
        if character in _OPEN:
            self.place += 1
            if depth >= _DEPTH:
                self.complete = False
                return None
            return self._object(depth) if _OPEN[character] == "}" else self._array(depth)
        if character in _QUOTES:
            return self._string(_QUOTES[character])
        return self._bare()

    def _array(self, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self._closed():
            before = self.place
            items.append(self.value(depth + 1))
            match = _COLON.match(self.text, self.place)
            if match:  # an object's entry where an element belongs
                self.place = match.end()
                items[-1] = {_key(items[-1]): self.value(depth + 1)}
            self.place = max(self.place, before + 1)
        return items

    def _object(self, depth: int) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while not self._closed():
            before = self.place
            name = _key(self.value(depth + 1))
            match = _COLON.match(self.text, self.place)
            if match:
                self.place = match.end()
                entries[name] = None if self._peek() in _CLOSE else self.value(depth + 1)
            else:
                entries.setdefault(name, None)
            self.place = max(self.place, before + 1)
        return entries

    def _closed(self) -> bool:
        """Pass over separators and tell whether the open list or object ends here."""
        match = _SKIPPED.match(self.text, self.place)
        if match:
            self.place = match.end()
        character = self._peek()
        if not character:
            self.complete = False
            return True
        if character in _CLOSE:  # of whichever kind: models mix them up
            self.place += 1
            return True
        return False

    def _string(self, quote: str) -> str:
        start = self.place + 1
        place = start
        while place < len(self.text):
            character = self.text[place]
            if character == "\\":
                place += 2
                continue
            # A quote or apostrophe within the text is followed by more of it.
            if character == quote and _AFTER_STRING.match(self.text, place + 1):
                self.place = place + 1
                return _unescape(self.text[start:place])
            place += 1
        self.place = len(self.text)
        self.complete = False
        return _unescape(self.text[start:])

    def _bare(self) -> Any:
        start = self.place
        while self.place < len(self.text) and self.text[self.place] not in _BARE_END:
            self.place += 1
        word = self.text[start : self.place].strip()
        if word.lower() in _LITERALS:
            return _LITERALS[word.lower()]
        try:
            return int(word) if len(word) < 16 else word
        except ValueError:
            return word

    def _peek(self) -> str:
        return self.text[self.place : self.place + 1]


def _key(value: Any) -> str:
    return value if isinstance(value, str) else str(value)[:64]


def _unescape(text: str) -> str:
    if "\\" not in text:
        return text
    return _ESCAPE.sub(_unescaped, text)


def _unescaped(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 5:
        character = chr(int(code[1:], 16))
        return character if character.isprintable() else " "
    return _ESCAPES.get(code, code)
