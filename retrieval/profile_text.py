"""The profile in words: short facts, the most telling first, within the model's tokens.

Titles and queries are hostile text: they come on one line, without control characters, and short.
Nothing that identifies the shopper or dates a visit is said.
"""

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from prompts import load_template
from reranker.ports import Tokenizer
from reranker.schema import (
    CATEGORY_SEPARATOR,
    Affinity,
    AffinityKind,
    EventKind,
    Language,
    RecentItem,
    RepeatPurchase,
    one_line,
)

_MOST_WORDS = 12
_MOST_CHARACTERS = 80
_MOST_ENTRIES = 4
_SHORTEST_SECRET = 5
_TELLING_SHARE = 0.45
_NEUTRAL = str.maketrans({";": ",", "；": "，"})


@dataclass(frozen=True)
class Entry:
    """One name in a fact; ``days`` is the rhythm of a repeated purchase."""

    text: str
    days: int | None = None


@dataclass(frozen=True)
class Fact:
    """One line of the summary; the template words it."""

    about: str
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Findings:
    """What a summary is made of: the typed parts of a profile."""

    affinities: Sequence[Affinity]
    recent_items: Sequence[RecentItem]
    repeat_purchases: Sequence[RepeatPurchase]
    recent_queries: Sequence[str]


def summarise(
    findings: Findings, language: Language, tokenizer: Tokenizer, max_tokens: int, secret: str
) -> str:
    """Return the summary: whole facts and whole names only, however small the budget.

    Args:
        findings: the typed parts of the profile.
        language: of the template.
        tokenizer: of the model that will read the summary.
        max_tokens: longest summary; a fact that does not fit loses its last names first.
        secret: the user id; text that holds it as a word of its own is left out, unless it is so
            short that it identifies nobody.
    """
    facts = [fact for fact in _facts(findings, secret.casefold()) if fact.entries]
    template = load_template("profile", language, 1)

    def words(tried: Sequence[Fact]) -> str:
        return template.render(facts=tried).strip()

    def too_long(tried: Sequence[Fact]) -> bool:
        return tokenizer.count(words(tried)) > max_tokens

    if not too_long(facts):
        return words(facts)
    # Most facts fit whole: look for the first that does not without writing each in turn.
    whole = bisect_left(range(1, len(facts)), True, key=lambda number: too_long(facts[:number]))
    kept = facts[:whole]
    for fact in facts[whole:]:
        shorter = (replace(fact, entries=fact.entries[:n]) for n in range(len(fact.entries), 0, -1))
        kept += next(([each] for each in shorter if not too_long([*kept, each])), [])
    return words(kept)


def clean_text(text: str) -> str:
    """Return hostile text on one line, without control characters, at most a dozen words."""
    words = one_line(text).translate(_NEUTRAL).split()[:_MOST_WORDS]
    while len(words) > 1 and len(" ".join(words)) > _MOST_CHARACTERS:
        words.pop()
    return " ".join(words)[:_MOST_CHARACTERS].rstrip(" .。")


def _facts(findings: Findings, secret: str) -> Iterator[Fact]:
    repeated = {repeat.product_id for repeat in findings.repeat_purchases}
    once = [item for item in findings.recent_items if item.product_id not in repeated]
    bought = [item.title for item in once if item.kind is EventKind.PURCHASE]
    viewed = [item.title for item in once if item.kind is not EventKind.PURCHASE]
    repeats = [Entry(clean_text(r.title), _days(r)) for r in findings.repeat_purchases]
    yield Fact("repeats", _allowed(repeats, secret))
    yield Fact("categories", _named(_names(findings, "category"), secret))
    yield Fact("brands", _named(_names(findings, "brand"), secret))
    yield Fact("price", _named(_price_level(findings), secret))
    yield Fact("bought", _named(bought, secret))
    yield Fact("viewed", _named(viewed, secret))
    yield Fact("searches", _named(findings.recent_queries, secret))


def _named(texts: Sequence[str], secret: str) -> tuple[Entry, ...]:
    return _allowed([Entry(clean_text(text)) for text in texts], secret)


def _allowed(entries: Sequence[Entry], secret: str) -> tuple[Entry, ...]:
    """Return the first entries that say something, no two alike, none naming the shopper."""
    distinct = {entry.text.casefold(): entry for entry in reversed(entries)}
    kept = [
        entry
        for entry in entries
        if entry.text
        and not _gives_away(entry.text, secret)
        and distinct[entry.text.casefold()] is entry
    ]
    return tuple(kept[:_MOST_ENTRIES])


def _gives_away(text: str, secret: str) -> bool:
    word = rf"(?<!\w){re.escape(secret)}(?!\w)"
    return len(secret) >= _SHORTEST_SECRET and re.search(word, text.casefold()) is not None


def _names(findings: Findings, kind: AffinityKind) -> list[str]:
    """Return the last part of each name: of a category, the shopper's word for it."""
    found = [affinity.name for affinity in findings.affinities if affinity.kind == kind]
    return [name.rpartition(CATEGORY_SEPARATOR)[2] for name in found]


def _price_level(findings: Findings) -> list[str]:
    bands = [a for a in findings.affinities if a.kind == "price_band"]
    return [bands[0].name] if bands and bands[0].weight >= _TELLING_SHARE else []


def _days(repeat: RepeatPurchase) -> int | None:
    return None if repeat.interval_days is None else max(1, round(repeat.interval_days))
