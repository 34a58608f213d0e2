"""Whether a sentence that a model wrote says nothing but what the facts that it cites say.

Every word and number of a sentence must be one of the cited facts, a plain word of the language
(`PLAIN`), or a word for the kind of a cited fact (`WORDS`: "often" for what is bought again and
again). Chinese is covered by pieces of at least two characters of the facts, and plain phrases.
Words that deny or compare are in no list, so that a sentence with them is dropped.

What this cannot see: how words that are all supported by the cited facts are joined.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from retrieval.profiles.plain_words import PLAIN, WORDS

DropCause = Literal["nothing_cited", "not_in_facts", "says_nothing"]
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[\u3400-\u9fff]+|[^\W\d_\u3400-\u9fff]+")
_HAN = re.compile(r"[\u3400-\u9fff]")
_PIECE = 2
_LONGEST_PIECE = 40


class Statement(NamedTuple):
    """One fact as a model is told it, and as its sentences are held to it.

    Attributes:
        about: the kind of the fact.
        name: what it names; or a number.
        text: the whole of it in words.
    """

    about: str
    name: str
    text: str


def fault(text: str, cited: Sequence[Statement]) -> DropCause | None:
    """Return why a sentence has to be dropped; None if its facts bear it out.

    Args:
        text: the sentence.
        cited: the facts that it rests on.
    """
    if not cited:
        return "nothing_cited"
    said = _words(text)
    own = {word for each in cited for word in _words(each.text)}
    granted = PLAIN.union(*(WORDS.get(each.about, frozenset()) for each in cited))
    stems = {_stem(word) for word in (*own, *granted)}
    facts = ["".join(_HAN.findall(each.text)) for each in cited]
    for word in said:
        held = _covered(word, granted, facts) if _HAN.match(word) else _stem(word) in stems
        if not held:
            return "not_in_facts"
    names = {_stem(word) for each in cited for word in _words(each.name)} - PLAIN
    return None if _names_something(said, names, [each.name for each in cited]) else "says_nothing"


def _names_something(said: Sequence[str], names: set[str], full: Sequence[str]) -> bool:
    if any(_stem(word) in names for word in said if not _HAN.match(word)):
        return True
    spoken = "".join(said)
    runs = ("".join(_HAN.findall(_plain(name))) for name in full)
    return any(
        run[place : place + _PIECE] in spoken
        for run in runs
        for place in range(max(1, len(run) - _PIECE + 1) if run else 0)
    )


def _covered(run: str, phrases: Iterable[str], facts: Sequence[str]) -> bool:
    """Tell whether a run of Chinese falls into plain phrases and pieces of the facts."""
    known = frozenset(phrases)
    reached = {0}
    for end in range(1, len(run) + 1):
        for start in range(max(0, end - _LONGEST_PIECE), end):
            piece = run[start:end]
            # A character by itself would let characters of other words make new ones.
            told = len(piece) >= min(_PIECE, len(run)) and any(piece in fact for fact in facts)
            if start in reached and (piece in known or told):
                reached.add(end)
                break
    return len(run) in reached


def _words(text: str) -> list[str]:
    return _WORD.findall(_plain(text))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word
