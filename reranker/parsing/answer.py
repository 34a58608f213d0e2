"""Read a written ranking: whatever the model said, a complete order or a typed refusal."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from reranker.errors import OutputError
from reranker.parsing.form import (
    CITES_CHARACTERS,
    LONGEST_ANSWER,
    REASON_CHARACTERS,
    Reason,
    Repair,
    RepairCode,
    WrittenRanking,
)
from reranker.parsing.labels import Labels, plain_spaces
from reranker.parsing.loose_json import Found, find_values, read_value
from reranker.parsing.written_json import (
    Note,
    find_notes,
    find_ranking,
    find_record,
    is_no_answer,
)
from reranker.parsing.written_text import find_rankings
from reranker.schema import one_line

_SHOWN = 8
_THOUGHT_END = re.compile(
    r"<\s?/\s?(?:think|thinking|thought|reasoning|analysis)\s?>|◁/think▷", re.I
)
_THOUGHT = re.compile(r"<\s?(?:think|thinking|thought|reasoning|analysis)\s?>|◁think▷", re.I)
_SPECIAL = re.compile(r"<\|[^|<>\n]{0,40}\|>|</?s>|\[/?INST\]|```[a-z]*", re.I)
_FINAL = re.compile(
    r"(?:\bfinal|\bcorrect(?:ed)?\b|\bactually\b|最终|修正|更正)[^\n:：]{0,40}[:：]", re.I
)
_ASKED_FOR = re.compile(r"[\"'“]?ranking[\"'”]?\s{0,4}[:=：]\s{0,4}(?=[\[［【])", re.I)
_REFUSAL = re.compile(
    r"\bI(?:'m|’m| am) (?:really |very |so )?sorry\b|\bI apologi[sz]e\b|"
    r"\b(?:cannot|can't|can’t|unable to)\b|"
    r"^\s*traceback \(most recent call last\)|^\s*<(?:!doctype|html|\?xml)|"
    r"^\s*(?:http[ /]|error\b|\d{3} (?:bad|internal|service|too|gateway|unauthori[sz]ed))|"
    r"抱歉|对不起|无法",
    re.I,
)
_MARKUP = re.compile(r"<[^<>]{0,80}>|[<>*_`#|\[\]{}\\]")


def parse_ranking(text: str, labels: Sequence[str]) -> WrittenRanking:
    """Return the order that an answer puts the labelled slots in.

    The JSON asked for is read, and so is whatever a careful reader would take for the same: JSON
    in other forms or cut short, chains, lists and lines of labels, in full-width signs, after
    thoughts, amid chatter. Letters within sentences are no labels. Of several rankings the one
    announced as final counts, else the one of most labels, else the last; lines with text on them
    weigh half.

    Args:
        text: the answer, of any length.
        labels: one a slot, in slot order; at least one.

    Raises:
        OutputError: it says nothing about the order: it is empty, an error text, or mere talk.
    """
    known = Labels(labels)
    notes: dict[RepairCode, str] = {}
    body = _body(text, notes)
    values = list(find_values(body))
    answer = _from_json(values, body, known) or _from_text(values, body, known)
    if answer is None:
        shown = one_line(text[:80]) or "nothing"
        raise OutputError(f"the answer ranks no product; it begins with: {shown}", raw=text)
    notes.update(answer.notes)
    order = _place(answer.tokens, known, notes)
    left = [slot for slot in range(len(labels)) if slot not in set(order)]
    if left:
        notes["omitted"] = _list(labels[slot] for slot in left)
    return WrittenRanking(
        order=(*order, *left),
        ranked=len(order),
        repairs=tuple(Repair(code=code, detail=detail) for code, detail in notes.items()),
        reasons=tuple(_reasons(answer.reasons, known)),
    )


class _Answer(NamedTuple):
    tokens: tuple[str, ...]
    start: int
    notes: Mapping[RepairCode, str]
    reasons: tuple[Note, ...] = ()
    weight: float = 1.0


def _body(text: str, notes: dict[RepairCode, str]) -> str:
    """Return the part of an answer that is meant to be read."""
    ends = [match.end() for match in _THOUGHT_END.finditer(text)]
    thoughts = _THOUGHT.search(text, ends[-1] if ends else 0)
    if ends or thoughts:
        notes["thinking"] = "thoughts were passed over"
    text = text[ends[-1] if ends else 0 : thoughts.start() if thoughts else len(text)]
    if len(text) > LONGEST_ANSWER:
        notes["too_long"] = f"{len(text)} characters; the first {LONGEST_ANSWER} were read"
        text = text[:LONGEST_ANSWER]
    text = plain_spaces(text)
    text = _SPECIAL.sub(lambda match: " " * len(match[0]), text)
    return text.replace('\\"', '"') if re.search(r'\{\s*\\"', text) else text


def _from_json(values: Sequence[Found], body: str, labels: Labels) -> _Answer | None:
    answers = [answer for found in values if (answer := _in_value(found, body, labels))]
    if not answers and (asked := _ASKED_FOR.search(body)):
        # The values may have been cut up wrongly, by brackets in chatter.
        found = read_value(body, asked.end())
        ranking = find_ranking(found.value, labels)
        if ranking:
            answers = [_json_answer(found, body, ranking.tokens, named=True)]
    if not answers:
        records = [token for found in values if (token := find_record(found.value, labels))]
        if len(records) >= 2:
            return _Answer(tuple(records), 0, {"wrong_form": "an object for each product"})
    return _choose(answers, body, labels)


def _in_value(found: Found, body: str, labels: Labels) -> _Answer | None:
    ranking = find_ranking(found.value, labels)
    if ranking is None:
        return None
    return _json_answer(found, body, ranking.tokens, named=ranking.named)


def _json_answer(found: Found, body: str, tokens: tuple[str, ...], *, named: bool) -> _Answer:
    notes: dict[RepairCode, str] = {}
    if not found.complete:
        notes["truncated"] = "the text ends within the JSON"
    elif not found.strict:
        notes["syntax"] = "JSON with slips"
    if not named:
        notes["wrong_form"] = "no list under the name ranking"
    around = body[: found.start] + body[found.end :]
    if around.strip(" \n\t\r`\"'"):
        notes["chatter"] = f"{len(around.strip())} characters beside the JSON"
    if not found.strict and _is_wide(body[found.start : found.end]):
        notes["fullwidth"] = "full-width signs"
    return _Answer(tokens, found.start, notes, tuple(find_notes(found.value)))


def _from_text(values: Sequence[Found], body: str, labels: Labels) -> _Answer | None:
    # In a refusal or an error only a chain is so plain that it must be an answer.
    refused = bool(_REFUSAL.search(body)) or any(is_no_answer(found.value) for found in values)
    wide = _is_wide(body)  # once: there may be as many readings as lines
    answers = []
    for reading in find_rankings(body, labels):
        if refused and reading.form != "chain":
            continue
        notes: dict[RepairCode, str] = {"wrong_form": f"{reading.form} of labels, no JSON"}
        if not reading.alone:
            notes["chatter"] = "text beside the labels"
        if wide:
            notes["fullwidth"] = "full-width signs"
        # Lines with text may also be thoughts on one product after another.
        weight = 0.5 if reading.form == "lines" and not reading.alone else 1.0
        answers.append(_Answer(reading.tokens, reading.start, notes, weight=weight))
    return _choose(answers, body, labels)


def _choose(answers: Sequence[_Answer], body: str, labels: Labels) -> _Answer | None:
    if not answers:
        return None
    finals = [match.start() for match in _FINAL.finditer(body)]
    final = finals[-1] if finals else 0

    def trust(answer: _Answer) -> tuple[bool, float, int]:
        slots = {labels.slot(token) for token in answer.tokens} - {None}
        return answer.start >= final, len(slots) * answer.weight, answer.start

    # The products in the order shown, before something else, are an echo of the question.
    candidates = [answer for answer in answers[:-1] if answer.tokens != labels.names]
    best = max((*candidates, answers[-1]), key=trust)
    if len({answer.tokens for answer in answers}) == 1:
        return best
    count = f"{len(answers)} rankings; the one of most labels, or the final one, was taken"
    return best._replace(notes={**best.notes, "several": count})


def _place(tokens: Iterable[str], labels: Labels, notes: dict[RepairCode, str]) -> tuple[int, ...]:
    placed: dict[int, None] = {}
    slips: dict[RepairCode, list[str]] = {}
    for token in tokens:
        slot = labels.slot(token)
        if slot is None:
            slips.setdefault("out_of_range", []).append(token)
        elif slot in placed:
            slips.setdefault("duplicate", []).append(token)
        else:
            placed[slot] = None
            if not labels.is_exact(token):
                slips.setdefault("case", []).append(token)
    notes.update({code: _list(found) for code, found in slips.items()})
    return tuple(placed)


def _reasons(notes: Iterable[Note], labels: Labels) -> Iterator[Reason]:
    seen: set[int] = set()
    for note in notes:
        slot, text = labels.slot(note.token), _plain(note.text, REASON_CHARACTERS)
        if slot is not None and slot not in seen and text:
            seen.add(slot)
            yield Reason(slot=slot, cites=_plain(note.cites, 2 * CITES_CHARACTERS), text=text)


def _plain(text: str, longest: int) -> str:
    """Return what may stand in a page: one line, no markup, no control characters, no more."""
    line = one_line(_MARKUP.sub(" ", text[: 10 * longest]))
    if len(line) <= longest:
        return line
    cut = line[:longest]
    return f"{cut.rsplit(' ', 1)[0][: longest - 1]}…"


def _list(labels: Iterable[str]) -> str:
    names = list(labels)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _is_wide(text: str) -> bool:
    return not text.isascii() and any(
        c in "［］【】｛｝＞，、：；“”〔〕「」" or "Ａ" <= c <= "ｚ" for c in text
    )
