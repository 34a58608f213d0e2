"""Find rankings in plain text: chains, lists and lines of labels, and nothing in mere talk.

A letter counts only where it is set apart: between the signs of a chain (``[B] > [A]``), in a line
of nothing but labels, or at the head of a line as its label (``1. [B] because ...``).
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from reranker.parsing.labels import (
    NOUN,
    TOKEN,
    Labels,
    halfwidth,
    looks_like_label,
    only_labels,
    read_label,
)

_INLINE = re.compile(r"<\s?/?\s?(?:b|i|em|strong|span|code|td|th|u|a|font)\b[^<>\n]{0,80}>", re.I)
_BLOCK = re.compile(r"<\s?/?\s?[a-z][\w-]{0,20}\b[^<>\n]{0,80}>", re.I)
_TIE = re.compile(r"(?<=[\])])\s{0,4}[=~≈]\s{0,4}(?=[\[(])")
_ARROW = re.compile(r"[-=]{1,3}>|>[>=]+")
_WRAPPED = re.compile(r"\s{0,20}\n\s{0,20}(?=>)|(?<=[>,])[^\S\n]{0,20}\n\s{0,20}")
_HEAD = re.compile(
    rf"\s*[*\"'`_]{{0,3}}(?:[\[(][^\S\n]{{0,4}}{NOUN}(?P<marked>{TOKEN})"
    rf"[^\S\n]{{0,4}}(?:[\])]|$)|"
    rf"{NOUN}(?P<bare>{TOKEN})(?![\w'’]))[*\"'`_)\]]{{0,4}}",
    re.I,
)
_SENTENCE = re.compile(r"\s*[AaIi]\s+(?!(?:because|as|since|for|due|with)\b)[a-z]")
_TAIL = re.compile(
    rf"(?:[\[(]\s{{0,4}}{NOUN}(?P<marked>{TOKEN})\s{{0,4}}[\])]|"
    rf"(?:(?<![\w'’-])|(?<=[\u4e00-\u9fff])){NOUN}(?P<bare>{TOKEN}))[*\"'`_)]{{0,4}}\s*$",
    re.I,
)
_RESTART = re.compile(rf"(?:[\[(]\s?{NOUN}{TOKEN}\s?[\])]|:\s?{TOKEN})[*\"'`_)]{{0,4}}\s*$", re.I)
_BULLET = re.compile(r"[^\w\[(<\"'`*@#-]*(?:[-*•·+#>|]{1,3}(?:\s+|(?<=\|)))*")
_NUMBERING = re.compile(
    r"(?:\(?\d{1,3}\s{0,2}(?:[.):]|\]|\||,)[\s|]*|\d{1,3}[\ufe0f\u20e3]+\s*|#\d{1,3}[:.)]?\s*|"
    r"\d{1,3}\s+(?=[\[(*])|\d{1,3}(?:st|nd|rd|th)\b\s*(?:[:.)-]|place)?[:\s]*|"
    r"rank\s*\d{1,3}\s*[:.)-]?\s*|第\s?\w{1,3}\s?[名位]?\s?[:,.]?\s*|[a-z][.)]\s+(?=[\[(*]))",
    re.I,
)
_MARKED = re.compile(
    rf"(?:\*{{0,3}}[\[(]\s?{NOUN}(?P<marked>{TOKEN})\s?[\])]|"
    rf"(?P<quote>\*\*|__|\"|`|'){NOUN}(?P<quoted>{TOKEN})(?P=quote))",
    re.I,
)
_INTRODUCED = re.compile(r"[:：]|\b(?:is|are|be)\b|[为是]", re.I)
_NUMBERED = re.compile(
    rf"{NOUN}(?P<token>[A-Za-z])(?:\s{{1,4}}(?:because|as|since|due|is|it|its|with|for|matches|fits)\b|"
    r"\s{0,4}[\u4e00-\u9fff])",
    re.I,
)
_HEADING = re.compile(r"[:：]\W*$|^#+\s")


class Reading(NamedTuple):
    """Labels that stand as a ranking in a text.

    Attributes:
        tokens: as written, best first.
        start: place of the ranking in the text.
        alone: whether nothing else stands there.
    """

    tokens: tuple[str, ...]
    start: int
    form: Literal["chain", "lines"]
    alone: bool


def find_rankings(text: str, labels: Labels) -> Iterator[Reading]:
    """Yield every ranking of at least two known labels, or of one that is all there is."""
    text = _flatten(text)
    yield from _chains(text, labels)
    yield from _lines(text, labels)


def _flatten(text: str) -> str:
    """Bring the signs of markup and chains into one form, without moving anything."""
    text = _INLINE.sub(_blank, halfwidth(text))
    text = _BLOCK.sub(lambda m: "\n".ljust(len(m[0])), text)
    text = _TIE.sub(lambda m: ">".center(len(m[0])), text)
    text = _ARROW.sub(lambda m: ">".rjust(len(m[0])), text)
    return _WRAPPED.sub(_blank, text)


def _blank(match: re.Match[str]) -> str:
    return " " * len(match[0])


def _chains(text: str, labels: Labels) -> Iterator[Reading]:
    tokens: list[str] = []
    start = place = 0
    alone = True
    for piece in text.split(">"):
        match = _HEAD.match(piece) if tokens and not _SENTENCE.match(piece) else None
        label = _label(match)
        rest = piece[match.end() :].strip() if match else ""
        if label is not None:
            tokens.append(label)
            alone = alone and not rest.strip(".")
        if tokens and (label is None or "\n" in rest or _RESTART.search(rest[-60:])):
            yield from _accepted(tokens, start, labels, alone=False)
            tokens = []
        if not tokens:
            first, at = _first(piece)
            if first is not None:
                tokens, start = [first], place + at
                alone = not piece[:at].strip(" \n*")
        place += len(piece) + 1
    yield from _accepted(tokens, start, labels, alone=alone)


def _first(piece: str) -> tuple[str | None, int]:
    """Return the label that a chain begins with before its first sign, and its place."""
    match = _TAIL.search(piece, max(0, len(piece) - 60))
    label = _label(match)
    if match and label is not None:
        return label, match.start()
    line = piece.rfind("\n") + 1
    for at in (line, piece.find(":", line) + 1):
        match = _HEAD.match(piece, at)  # "[C] tea > [A] coffee", "Ranking: [C] tea > [A] coffee"
        if match and match["marked"]:
            return _label(match), at
    return None, 0


def _accepted(tokens: list[str], start: int, labels: Labels, *, alone: bool) -> Iterator[Reading]:
    if len(tokens) >= 2 and _known(tokens, labels):
        yield Reading(tuple(tokens), start, "chain", alone)


def _label(match: re.Match[str] | None) -> str | None:
    if match is None:
        return None
    token = match["marked"] or match["bare"]
    return token if looks_like_label(token) else None


def _lines(text: str, labels: Labels) -> Iterator[Reading]:
    tokens: list[str] = []
    start = place = 0
    alone = True
    lines = text.split("\n")
    filled = sum(bool(line.strip(" -*|`")) for line in lines)
    for line in lines:
        found, rest = _line(line, labels, first=not tokens)
        if found:
            if not tokens:
                start = place
            tokens += found
        elif tokens and _HEADING.search(line.strip()[-200:]):
            yield from _grouped(tokens, start, labels, alone=False)
            tokens = []
        alone = alone and not rest
        place += len(line) + 1
    if _known(tokens, labels) == 1 and filled == 1:
        yield Reading(tuple(tokens), start, "lines", alone)
    yield from _grouped(tokens, start, labels, alone=alone)


def _grouped(tokens: list[str], start: int, labels: Labels, *, alone: bool) -> Iterator[Reading]:
    if _known(tokens, labels) >= 2:
        yield Reading(tuple(tokens), start, "lines", alone)


def _line(line: str, labels: Labels, *, first: bool) -> tuple[tuple[str, ...], bool]:
    """Return the labels that a line puts in order, and whether it says more than that."""
    stripped = line.strip()
    if not stripped:
        return (), False
    found = _item(stripped, labels)
    if found is not None:
        return found
    pure = labels.spelled(stripped) or _pure(stripped, labels)
    if pure:
        return pure, False
    _, colon, opening = stripped.partition(":")
    if first and colon and _MARKED.search(opening[:20]):
        found = _item(opening.strip(), labels)  # "Ranking: 1. [B]", and more lines to come
        if found is not None:
            return found[0], True
    tail = stripped[-1000:]
    introduced = [match.end() for match in _INTRODUCED.finditer(tail)]
    pure = _pure(tail[introduced[-1] :], labels) if introduced else ()
    return (pure if len(pure) >= 2 or len(stripped) <= 40 else ()), True


def _item(line: str, labels: Labels) -> tuple[tuple[str, ...], bool] | None:
    """Read a line about one product: bullet or number, its label, and perhaps more."""
    head = line[:200]
    bullet = _BULLET.match(head)
    begin = bullet.end() if bullet else 0
    number = _NUMBERING.match(head, begin)
    numbered = number is not None and bool(head[number.end() :].strip(" |"))
    body = line[number.end() :] if number and numbered else line[begin:]
    marked = _MARKED.match(body[:60])
    if marked:
        rest = body[marked.end() :].strip(" .|*,;)")
        token = marked["marked"] or marked["quoted"]
        if not looks_like_label(token) or _more_labels(rest, labels):
            return None
        return (token,), bool(rest)
    counted = _NUMBERED.match(body) if numbered else None
    if counted and labels.is_exact(counted["token"]):
        return (counted["token"],), True
    written = read_label(body)
    if written is None or not _is_label(written.token, written.rest, labels):
        return None
    rest = written.rest.strip(" .|*,;):")
    return None if _more_labels(rest, labels) else ((written.token,), bool(rest))


def _is_label(token: str, rest: str, labels: Labels) -> bool:
    if labels.slot(token) is None:
        return looks_like_label(token) and not rest.strip(" .|*,;)")
    if rest.startswith(",") and rest.strip(" ,"):
        return False
    # "a", alone at the head of a line of text, is an article or a numbering.
    return labels.is_exact(token) or not rest.strip(" .|*,;)")


def _more_labels(rest: str, labels: Labels) -> bool:
    return any(labels.is_exact(token) for token in only_labels(rest[:1000]))


def _pure(text: str, labels: Labels) -> tuple[str, ...]:
    tokens = only_labels(text[:4000])
    return tokens if any(labels.slot(token) is not None for token in tokens) else ()


def _known(tokens: list[str], labels: Labels) -> int:
    return len({labels.slot(token) for token in tokens} - {None})
