"""Facts in the words of the template, put together from pieces of it that are rendered once.

A template engine takes longer over a dozen lines than all counting before it. The pieces are what
the template makes of placeholders, so that its wording stays in one place; that the result is what
the template renders as a whole is tested by property.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from prompts import load_template
from reranker.schema import Language
from retrieval.profiles.facts import Entry, Fact

TEMPLATE_VERSION = 2
_MARK = "\x00"
_REMEMBERED = 1 << 14
_WHOLE = frozenset({"price", "searches_in"})
"""Facts whose name the template translates: they cannot be put together."""


class _Frame(NamedTuple):
    start: str
    joint: str
    end: str


def in_words(facts: Sequence[Fact], language: Language) -> str:
    """Return facts as the template words them, one line each."""
    return "\n".join(_line(fact, language) for fact in facts)


def rendered(facts: Sequence[Fact], language: Language) -> str:
    """Return the same from the template at once, which takes longer."""
    return load_template("profile", language, TEMPLATE_VERSION).render(facts=facts).strip()


def _line(fact: Fact, language: Language) -> str:
    if fact.about in _WHOLE:
        return _whole(fact, language)
    frame = _frame(fact.about, language)
    names = [
        each.text + _notes(fact.about, language, each.count, each.every, each.ago, each.due)
        for each in fact.entries
    ]
    return f"{frame.start}{frame.joint.join(names)}{frame.end}"


@lru_cache(maxsize=_REMEMBERED)
def _whole(fact: Fact, language: Language) -> str:
    return rendered([fact], language)


@lru_cache(maxsize=_REMEMBERED)
def _frame(about: str, language: Language) -> _Frame:
    one = rendered([Fact(about, (Entry(_MARK),))], language)
    start, _, end = one.partition(_MARK)
    two = rendered([Fact(about, (Entry(_MARK), Entry(_MARK)))], language)
    return _Frame(start, "".join(two.split(_MARK)[1:-1]), end)


@lru_cache(maxsize=_REMEMBERED)
def _notes(
    about: str,
    language: Language,
    count: int | None,
    every: int | None,
    ago: int | None,
    due: bool,
) -> str:
    """Return what stands behind a name."""
    entry = Entry(_MARK, count, every, ago, due)
    behind = rendered([Fact(about, (entry,))], language).partition(_MARK)[2]
    return behind.removesuffix(_frame(about, language).end)
