"""Malformed replies out of which a careful reader still makes an order."""

import json
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from eval.benchmarks.replies.forms import TITLES, Asked, quoted

Reply = tuple[str, Sequence[int] | None]
"""A text, and the slots that a careful reader finds in it, best first; None for nothing."""
_LEAD = (
    "Here are the top 5:",
    "Sure! I looked at all 12 products, and a few notes first. The ranking:",
    "Based on the 3 things I know, I would say:",
    "Step 1 is done. Answer:",
)
_TAIL = (
    "I hope this helps! Let me know if you need a list of 10 more.",
    "Note: I had only 2 facts to go by, so a second look is advised.",
    "The first 3 are close; a change of price would alter that.",
)
_WIDE = str.maketrans('[]{}",:>', "［］｛｝＂，：＞")


class Kind(NamedTuple):
    """One way in which replies go wrong.

    Attributes:
        make: writes a reply.
        wrap: does the same to a reply that may be wrong in another way already; None where the two
            would get in each other's way.
    """

    name: str
    make: Callable[[Asked], Reply]
    wrap: Callable[[Asked, str], str] | None = None


def _native(name: str, change: Callable[[Asked, str], str]) -> Kind:
    return Kind(name, lambda asked: (change(asked, asked.native()), asked.order))


def _around(name: str, change: Callable[[Asked, str], str]) -> Kind:
    return _native(name, change)._replace(wrap=change)


def _styled(name: str, write: Callable[[Asked], str]) -> Kind:
    return Kind(name, lambda asked: (write(asked), asked.order))


def _numbered(asked: Asked, number: Callable[[int], str], tail: Callable[[], str]) -> str:
    lines = (f"{number(place)}{entry}{tail()}" for place, entry in enumerate(asked.entries(), 1))
    return "\n".join(lines)


def _nothing() -> str:
    return ""


def _spaced(asked: Asked, text: str) -> str:
    odd = asked.random.choice(("\u00a0", "\u2009", "\u3000", " \u200b"))
    return "\ufeff" + text.replace(" ", odd).replace("\n", "\r\n")


def _thought(asked: Asked) -> str:
    shown = " > ".join(asked.entries(asked.labels(sorted(asked.order)[:3])))
    return f"Let me compare 1 by 1. At first {shown}, but a cheaper one fits."


def _draft(asked: Asked, text: str) -> str:
    draft = asked.random.sample(asked.order, len(asked.order))
    return f"{asked.native(asked.labels(draft))}\n\nOn reflection, my final answer:\n{text}"


def _echo(asked: Asked, text: str) -> str:
    shown = "\n".join(
        f"[{asked.label(slot)}] {asked.random.choice(TITLES)} | {slot + 3}.50 EUR"
        for slot in range(len(asked.order))
    )
    return f"{shown}\n\nRanking:\n{text}"


def _doubly_encoded(asked: Asked, text: str) -> str:
    return json.dumps(text) if asked.json else f'"{text}"'


def _table(asked: Asked) -> str:
    rows = (f"| {n} | {entry} | fits |" for n, entry in enumerate(asked.entries(), 1))
    return "| Rank | Label | Why |\n|---|---|---|\n" + "\n".join(rows)


def _objects(asked: Asked) -> str:
    return json.dumps([{"label": label, "reason": asked.because()} for label in asked.labels()])


def _ranked_objects(asked: Asked) -> str:
    entries = [{"label": label, "rank": n} for n, label in enumerate(asked.labels(), 1)]
    return json.dumps({"ranking": asked.random.sample(entries, len(entries))})


def _rank_of_label(asked: Asked) -> str:
    ranks = {f"[{label}]": n for n, label in enumerate(asked.labels(), 1)}
    return json.dumps(dict(sorted(ranks.items())))


def _commented(asked: Asked, text: str) -> str:
    comment = " // best one first\n" if asked.json else " # best one first\n"
    at = text.find("[") + 1 if asked.json else 0
    return text[:at] + (comment if asked.json else "") + text[at:] + ("" if asked.json else comment)


def _mixed_closers(asked: Asked, text: str) -> str:
    return text.replace("]", "}") if asked.json else text.replace("]", ")")


def _bare(asked: Asked) -> str:
    if asked.json:
        name = "ranking" if asked.form == "labels" else "ranked_document_ids"
        return f"{{{name}: [{', '.join(asked.labels())}]}}"
    return " > ".join(asked.labels())


def _without_separators(asked: Asked, text: str) -> str:
    return (
        re.sub(r"(?<=\w\"), |(?<=\d), (?=\d)", " ", text) if asked.json else text.replace(">", "")
    )


def _trailing(asked: Asked, text: str) -> str:
    return text.replace("]", ",]").replace("}", ",}") if asked.json else text + asked.separator


def _duplicates(asked: Asked) -> Reply:
    labels = asked.labels()
    for _ in range(asked.random.randint(1, 3)):
        earlier = asked.random.randrange(len(labels))
        labels.insert(asked.random.randint(earlier + 1, len(labels)), labels[earlier])
    return asked.native(labels), asked.order


def _loop(asked: Asked) -> Reply:
    said = asked.order[: asked.random.randint(2, len(asked.order))]
    return asked.opened(asked.labels(said) * 30), said


def _omitted(asked: Asked) -> Reply:
    size = asked.random.randint(2, len(asked.order) - 1)
    places = sorted(asked.random.sample(range(len(asked.order)), size))
    said = [asked.order[place] for place in places]
    return asked.native(asked.labels(said)), said


def _top_three(asked: Asked) -> Reply:
    return asked.native(asked.labels(asked.order[:3])), asked.order[:3]


def _out_of_range(asked: Asked) -> Reply:
    labels = asked.labels()
    foreign = asked.label(len(labels) + asked.random.randint(0, 3))
    labels.insert(asked.random.randint(0, len(labels)), foreign)
    return asked.native(labels), asked.order


def _many_invented(asked: Asked) -> Reply:
    foreign = [asked.label(len(asked.order) + n) for n in range(4)]
    return asked.native(asked.labels() + foreign), asked.order


def _below_range(asked: Asked) -> Reply:
    labels = asked.labels()
    wrong = asked.random.choice(("-1",) if asked.form == "ids" else ("0", "-1"))
    labels.insert(asked.random.randint(0, len(labels)), wrong)
    return asked.native(labels), asked.order


def _other_case(asked: Asked) -> Reply:
    change = str.lower if asked.lettered else lambda label: label.zfill(2)
    return asked.native([change(label) for label in asked.labels()]), asked.order


def _truncated(asked: Asked) -> Reply:
    said = asked.order[: asked.random.randint(2, len(asked.order) - 1)]
    tails = {
        "labels": ("", ",", ", ", ', "'),
        "ids": (",", ", "),  # the last number might have had another digit
        "relevance": ("\n", "\nDo", "\nDoc:"),
    }.get(asked.form, ("", " ", " >", " > ["))
    return asked.opened(asked.labels(said)) + asked.random.choice(tails), said


def _truncated_reason(asked: Asked) -> Reply:
    if not asked.json:
        return f"{asked.native()}\n\nThe first is best {asked.because()[:-3]}", asked.order
    why = f'], "reasons": [{{"label": "{asked.labels()[0]}", "cites": "tea", "reason": "It fi'
    return asked.opened(asked.labels()) + why, asked.order


ECHO = _around("echo of the products before", _echo)
ANSWERED: tuple[Kind, ...] = (
    _around("code fence", lambda _, text: f"```json\n{text}\n```"),
    _around("code fence left open", lambda _, text: f"```\n{text}"),
    _around("chatter before", lambda a, text: f"{a.random.choice(_LEAD)}\n\n{text}"),
    _around("chatter in the same line", lambda a, text: f"{a.random.choice(_LEAD)} {text}"),
    _around("chatter after", lambda a, text: f"{text}\n\n{a.random.choice(_TAIL)}"),
    _around(
        "chatter around",
        lambda a, text: f"{a.random.choice(_LEAD)}\n{text}\n{a.random.choice(_TAIL)}",
    ),
    _around(
        "Chinese chatter", lambda _, text: f"以下是前3名的排序结果：\n{text}\n希望对你有帮助！"
    ),
    _around("thinking block", lambda a, text: f"<think>\n{_thought(a)}\n</think>\n\n{text}"),
    _around("thinking block without its start", lambda a, text: f"{_thought(a)}\n</think>\n{text}"),
    _around("role before", lambda a, text: a.random.choice(("assistant\n", "Assistant: ")) + text),
    _around("special tokens", lambda _, text: f"<|im_start|>assistant\n{text}<|im_end|>"),
    _native("answer twice", lambda _, text: f"{text}\n{text}"),
    _native("draft, then final answer", _draft),
    ECHO,
    _around("odd spaces and line ends", _spaced),
    _around("within tags", lambda _, text: f"<answer>{text}</answer>"),
    _native("within HTML", lambda _, text: f"<p>{text}</p><br>"),
    _native("within quotes", _doubly_encoded),
    _native("full-width signs", lambda _, text: text.translate(_WIDE)),
    _native(
        "Chinese brackets and quotes",
        lambda _, text: quoted(text, "“", "”").translate(str.maketrans("[]>", "【】＞")),
    ),
    _native(
        "Chinese separators",
        lambda _, text: text.replace(", ", "、").replace(" > ", "、").replace(": ", "："),
    ),
    _native("other quotes", lambda _, text: quoted(text, "'", "'")),
    _native("trailing separator", _trailing),
    _native("separators missing", _without_separators),
    _native("closing brackets mixed up", _mixed_closers),
    _native("comment", _commented),
    _styled("quotes and brackets missing", _bare),
    _styled("one a line", lambda a: "\n".join(a.entries())),
    _styled("numbered lines", lambda a: _numbered(a, "{}. ".format, _nothing)),
    _styled(
        "numbered lines with reasons",
        lambda a: _numbered(a, "{}. ".format, lambda: f" {a.because()}"),
    ),
    _styled("numbered in brackets", lambda a: _numbered(a, "({}) ".format, _nothing)),
    _styled("numbered by emoji", lambda a: _numbered(a, "{}\ufe0f\u20e3 ".format, _nothing)),
    _styled("numbered in Chinese", lambda a: _numbered(a, "第{}名：".format, _nothing)),
    _styled("bullets", lambda a: _numbered(a, lambda _: "- ", _nothing)),
    _styled("lines with reasons", lambda a: _numbered(a, lambda _: "", lambda: f": {a.because()}")),
    _styled("bold", lambda a: " > ".join(f"**{label}**" for label in a.labels())),
    _styled("table", _table),
    _styled("HTML list", lambda a: "".join(f"<li>{entry}</li>" for entry in a.entries())),
    _styled("comma list", lambda a: ", ".join(a.labels())),
    _styled("comma list after a colon", lambda a: f"Ranking: {', '.join(a.labels())}"),
    _styled("comma list in a sentence", lambda a: f"The best order is {', '.join(a.labels())}."),
    _styled("arrows", lambda a: " → ".join(a.labels())),
    _styled("chain without spaces", lambda a: ">".join(a.entries())),
    _styled("chain in round brackets", lambda a: " > ".join(f"({label})" for label in a.labels())),
    _styled("chain of words", lambda a: " > ".join(f"Product {label}" for label in a.labels())),
    _styled(
        "chain with titles",
        lambda a: " > ".join(f"[{label}] {a.random.choice(TITLES)}" for label in a.labels()),
    ),
    _styled("chain with a sign before", lambda a: "> " + " > ".join(a.entries())),
    _styled("JSON array alone", lambda a: json.dumps(a.labels())),
    _styled("JSON under another name", lambda a: json.dumps({"order": a.labels()})),
    _styled("JSON nested", lambda a: json.dumps({"result": {"ranking": a.labels()}})),
    _styled("JSON with a chain", lambda a: json.dumps({"ranking": " > ".join(a.labels())})),
    _styled("JSON objects", _objects),
    _styled("JSON objects with ranks, shuffled", _ranked_objects),
    _styled("JSON ranks by label", _rank_of_label),
    Kind("duplicates", _duplicates),
    Kind("loop until cut off", _loop),
    Kind("omissions", _omitted),
    Kind("first three only", _top_three),
    Kind("label out of range", _out_of_range),
    Kind("many labels invented", _many_invented),
    Kind("label below the range", _below_range),
    Kind("other case, or zeros before", _other_case),
    Kind("truncated", _truncated),
    Kind("truncated in a reason", _truncated_reason),
)
