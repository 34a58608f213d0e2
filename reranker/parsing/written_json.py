"""Find the ranking, and the reasons, in values read from JSON, whatever form they were given."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from reranker.parsing.labels import Labels, only_labels, read_label

_DEPTH = 6
_RANKING = ("ranking", "ranked", "order", "ranking_order", "rankings", "排序", "排名", "结果")
_LABEL = ("label", "id", "product", "item", "letter", "option", "candidate", "标签", "商品")
_RANK = ("rank", "position", "place", "排名", "名次")
_CITES = ("cites", "cite", "citation", "evidence", "quote", "引用")
_REASON = ("reason", "why", "explanation", "text", "理由", "原因")
_REASONS = ("reasons", "reason", "explanations", "理由", "原因")
_NO_ANSWER = frozenset(
    {"error", "errors", "exception", "traceback", "properties", "$schema", "$defs", "enum"}
)


class Note(NamedTuple):
    """A reason as it was written, for a label that need not exist."""

    token: str
    cites: str
    text: str


class Ranking(NamedTuple):
    """Labels as they were written, best first.

    Attributes:
        named: whether they stood where they were asked for, under ``ranking``.
    """

    tokens: tuple[str, ...]
    named: bool


def find_ranking(value: Any, labels: Labels, depth: int = 0) -> Ranking | None:
    """Return the ranking that a value holds; None where it holds none."""
    if depth > _DEPTH:
        return None
    if isinstance(value, list):
        tokens = _tokens(value, labels)
        return Ranking(tokens, named=False) if _known(tokens, labels) >= 2 else None
    if not isinstance(value, dict):
        return None
    fields = {key.strip().casefold(): entry for key, entry in value.items()}
    for name in _RANKING:
        tokens = _tokens(fields.get(name), labels)
        if _known(tokens, labels):
            return Ranking(tokens, named=True)
    if is_no_answer(fields):
        return None
    return _mapped(value, labels) or _nested(fields, labels, depth)


def is_no_answer(value: Any) -> bool:
    """Tell whether a value is the text of an error, or a schema."""
    return isinstance(value, dict) and not _NO_ANSWER.isdisjoint(value)


def find_record(value: Any, labels: Labels) -> str | None:
    """Return the label of an object about one product, such as ``{"label": "C"}``."""
    token = _field(value, _LABEL) if isinstance(value, dict) else None
    if not isinstance(token, str) or is_no_answer(value):
        return None
    written = read_label(token)
    return written.token if written and labels.slot(written.token) is not None else None


def find_notes(value: Any) -> Iterator[Note]:
    """Yield the reasons that a value holds, beside the ranking or within it."""
    if isinstance(value, dict):
        for name in (*_REASONS, *_RANKING):
            yield from _notes(value.get(name))
    elif isinstance(value, list):
        yield from _notes(value)


def _notes(value: Any) -> Iterator[Note]:
    if isinstance(value, dict):
        value = [
            {**entry, "label": label}
            if isinstance(entry, dict)
            else {"label": label, "reason": entry}
            for label, entry in value.items()
        ]
    for entry in value if isinstance(value, list) else ():
        if not isinstance(entry, dict):
            continue
        token, text = _field(entry, _LABEL), _field(entry, _REASON)
        written = read_label(token) if isinstance(token, str) else None
        if written and isinstance(text, str):
            cites = _field(entry, _CITES)
            yield Note(written.token, cites if isinstance(cites, str) else "", text)


def _mapped(value: Mapping[str, Any], labels: Labels) -> Ranking | None:
    """Read ``{"C": 1, "A": 2}``, ``{"1": "C", "2": "A"}`` and ``{"C": "reason", ...}``."""
    if len(value) < 2:
        return None
    if all(key.strip().isdecimal() for key in value):
        by_rank = sorted(value.items(), key=lambda entry: int(entry[0][:9]))
        tokens = _tokens([entry for _, entry in by_rank], labels)
        return Ranking(tokens, named=False) if _known(tokens, labels) else None
    if any(labels.slot(key.strip(" []")) is None for key in value):
        return None
    entries = list(value.items())
    if all(isinstance(entry, int) for entry in value.values()):
        entries.sort(key=lambda entry: int(entry[1]))
    return Ranking(tuple(key.strip(" []") for key, _ in entries), named=False)


def _nested(fields: Mapping[str, Any], labels: Labels, depth: int) -> Ranking | None:
    # What was said of single products comes last: it may name only the first ones.
    for name in sorted(fields, key=lambda name: name in _REASONS):
        found = find_ranking(fields[name], labels, depth + 1)
        if found is not None:
            return found
    return None


def _tokens(value: Any, labels: Labels) -> tuple[str, ...]:
    if isinstance(value, str):
        return labels.spelled(value.strip()) or only_labels(value) or _single(value)
    if isinstance(value, dict):
        found = _mapped(value, labels)
        return found.tokens if found else ()
    if not isinstance(value, list):
        return ()
    ranks: list[Any] = [
        _field(entry, _RANK) if isinstance(entry, dict) else None for entry in value
    ]
    if value and all(type(rank) is int for rank in ranks) and len(set(ranks)) == len(ranks):
        value = [value[place] for place in sorted(range(len(value)), key=ranks.__getitem__)]
    return tuple(token for entry in value for token in _element(entry))


def _element(entry: Any) -> tuple[str, ...]:
    if isinstance(entry, dict):
        label = _field(entry, _LABEL)
        if label is None and len(entry) == 1:
            label = next(iter(entry))  # {"C": "why"}
        entry = label
    if isinstance(entry, list):
        entry = entry[0] if len(entry) == 1 else None
    if isinstance(entry, str):
        return only_labels(entry[:1000]) or _single(entry)
    return () if entry is None else (str(entry)[:12],)


def _single(text: str) -> tuple[str, ...]:
    written = read_label(text)
    return (written.token,) if written else ()


def _field(entry: Any, names: tuple[str, ...]) -> Any:
    found = (entry[name] for name in names if name in entry)
    return next(found, None)


def _known(tokens: tuple[str, ...], labels: Labels) -> int:
    return len({labels.slot(token) for token in tokens} - {None})
