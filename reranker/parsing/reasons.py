"""Keep only those of a model's reasons that the profile or the product's own card bears out.

The rule, in this order; the first that fails is the cause of dropping a reason. Evidence of a
product is the profile, the query, and its own card. All texts are compared as sequences of words,
numbers and Chinese characters, without regard to width, case, punctuation and spacing.

1. ``nothing_cited``: it cites nothing, or only words that say nothing (`the`, `good`, `product`)
   or a single Chinese character.
2. ``not_in_evidence``: what it cites does not stand in the profile or in the card, whole words in
   the same order. The query is no fact about shopper or product, and cannot be cited.
3. ``number_not_in_evidence``: one of its numbers (a price, a count, a size; digits, `two` to
   `twelve`, or Chinese numerals before a measure word) does not occur in the evidence.
4. ``names_other_product``: it uses a word of another product's brand or category (of a Chinese
   one, the whole name) that does not occur in the evidence; the plural's ``s`` makes no difference.

5. ``contact``: it holds an address of the web or of mail, or a number as long as a telephone's,
   which a supplier may have smuggled into a card.

What this cannot see: a comparison (`cheaper than the others`), a negation, and a judgement that
rests on a true citation.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from reranker.parsing.form import Reason, WrittenRanking

DropCause = Literal[
    "nothing_cited", "not_in_evidence", "number_not_in_evidence", "names_other_product", "contact"
]
_CONTACT = re.compile(r"https?:|www\.|\S@\S|\b[\w-]+\.(?:com|net|org|cn|io|shop)\b|(?:\d[ -]?){7}")
_WORD = re.compile(
    r"\d+(?:[.,]\d+)*|[\u3400-\u4dbf\u4e00-\u9fff\u3040-\u30ff]|[^\W\d_\u3040-\u30ff\u3400-\u9fff]+"
)
_THOUSANDS = re.compile(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_CHINESE = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_CHINESE_NUMBER = re.compile(r"([两二三四五六七八九十])(?=[次天个件元块折周月年倍瓶包盒种款])")
_NUMERALS = {
    "两": 2,
    "二": 2,
    "三": 3,
    "四": 4,
    "五": 5,
    "六": 6,
    "七": 7,
    "八": 8,
    "九": 9,
    "十": 10,
}
_COUNTS = tuple(
    "two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
)
_EMPTY = frozenset(
    """a an and are as at be best buy buyer by copied customer everyday favorite favourite for from
    good great has have he her his in is it item likely list more most new nice no not of often on
    one or popular price product products quality recommended relevant s search she shopper shown
    suits t that the their them they this to top user very was well which who will with words you
    your""".split()  # noqa: SIM905
)
_SMALLEST_NAME = 3


def supported_reasons(
    ranking: WrittenRanking,
    *,
    profile: str,
    cards: Sequence[str],
    names: Iterable[str],
    query: str | None = None,
) -> tuple[tuple[Reason, ...], tuple[DropCause, ...]]:
    """Return the reasons that stand by the rule above, and the cause of each one dropped.

    Args:
        ranking: with reasons as they were written.
        profile: the profile's text as the prompt had it; empty without one.
        cards: card texts in slot order, as the prompt had them.
        names: brands and categories of all the products.
        query: what was searched for.
    """
    kept: list[Reason] = []
    dropped: list[DropCause] = []
    words = frozenset(word for name in names for word in _words_of_name(name))
    for reason in ranking.reasons:
        card = cards[reason.slot]
        evidence = _Evidence(profile, card, query or "")
        cause = _cause(reason, evidence, words)
        if cause is None:
            kept.append(reason)
        else:
            dropped.append(cause)
    return tuple(kept), tuple(dropped)


class _Evidence:
    """What may be said of one product."""

    def __init__(self, profile: str, card: str, query: str) -> None:
        self.sources = [_joined(_words(profile)), _joined(_words(card))]
        texts = (profile, card, query)
        self.words = frozenset(_stem(word) for text in texts for word in _words(text))
        self.joined = [_joined(_words(text)) for text in texts]
        self.numbers = frozenset(number for text in texts for number in _numbers(text))


def _cause(reason: Reason, evidence: _Evidence, names: frozenset[str]) -> DropCause | None:
    cited = _words(reason.cites)
    if not _says_something(cited):
        return "nothing_cited"
    if not any(_joined(cited) in source for source in evidence.sources):
        return "not_in_evidence"
    if not evidence.numbers.issuperset(_numbers(reason.text)):
        return "number_not_in_evidence"
    said = _words(reason.text)
    if any(_names_other(name, said, evidence) for name in names):
        return "names_other_product"
    return "contact" if _CONTACT.search(reason.text) else None


def _names_other(name: str, said: Sequence[str], evidence: _Evidence) -> bool:
    if _CHINESE.search(name):
        phrase = _joined(_words(name))
        return phrase in _joined(said) and not any(phrase in text for text in evidence.joined)
    return name in {_stem(word) for word in said} and name not in evidence.words


def _words_of_name(name: str) -> list[str]:
    """Return by what a reason would name a brand or category; a Chinese one is named as a whole."""
    words = _words(name)
    if _CHINESE.search(name):
        return ["".join(words)] if len(words) > 1 else []
    long = (word for word in words if len(word) >= _SMALLEST_NAME and not word[0].isdigit())
    return [_stem(word) for word in long if word not in _EMPTY]


def _says_something(words: Sequence[str]) -> bool:
    if sum(_CHINESE.match(word) is not None for word in words) >= 2:
        return True
    return any(
        word not in _EMPTY and (len(word) >= 2 or word[0].isdigit())
        for word in words
        if not _CHINESE.match(word)
    )


def _words(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text).casefold()
    folded = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), folded)
    return [_number(word) if word[0].isdigit() else word for word in _WORD.findall(folded)]


def _number(digits: str) -> str:
    """Return a number in one form: 8.50, 8,5 and 8.5 are the same."""
    plain = digits.replace(",", ".")
    whole, _, fraction = plain.partition(".")
    fraction = fraction.rstrip("0")
    return f"{whole.lstrip('0') or '0'}.{fraction}" if fraction else whole.lstrip("0") or "0"


def _numbers(text: str) -> set[str]:
    words = _words(text)
    found = {word for word in words if word[0].isdigit()}
    found |= {str(_COUNTS.index(word) + 2) for word in words if word in _COUNTS}
    return found | {str(_NUMERALS[numeral]) for numeral in _CHINESE_NUMBER.findall(text)}


def _stem(word: str) -> str:
    return word[:-1] if len(word) > _SMALLEST_NAME and word.endswith("s") else word


def _joined(words: Sequence[str]) -> str:
    """Return words so that one sequence is a part of another exactly where its text is."""
    return f"\x1f{chr(0x1F).join(words)}\x1f"
