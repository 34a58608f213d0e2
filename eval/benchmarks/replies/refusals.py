"""Replies without any ranking, most of which hold letters and digits all the same."""

import json
from collections.abc import Callable

from eval.benchmarks.replies.answers import Kind
from eval.benchmarks.replies.forms import Asked

_TRACEBACK = """Traceback (most recent call last):
  File "/srv/server.py", line 42, in generate
    return engine.step(batch[3])
RuntimeError: CUDA error 2: out of memory, tried to allocate 14 GiB"""
_HTML = (
    "<html><head><title>502 Bad Gateway</title></head><body><h1>502</h1>nginx/1.18.0</body></html>"
)
_LOG = "INFO 10-12 08:00:01 engine.py:5] Avg prompt throughput: 7.1 tokens/s, Running: 4 reqs"
_SCHEMA = {
    "type": "object",
    "properties": {"ranking": {"type": "array", "items": {"enum": ["B", "A", "C"]}, "minItems": 3}},
}


def _of(name: str, *texts: str) -> Kind:
    return Kind(name, lambda asked: (asked.random.choice(texts), None))


def _written(name: str, write: Callable[[Asked], str]) -> Kind:
    return Kind(name, lambda asked: (write(asked), None))


def _empty(asked: Asked) -> str:
    return asked.opened([]) + "]}" if asked.json else "Ranking: []"


def _foreign(asked: Asked) -> str:
    size = len(asked.order)
    text = asked.opened([asked.label(size + n) for n in (3, 1, 2)])
    return text + "]}" if asked.json else text


def _undecided(asked: Asked) -> str:
    first, second = asked.labels()[:2]
    return f"I cannot choose between {first} and {second}: both fit, and a third may, too."


REFUSED: tuple[Kind, ...] = (
    _of("empty", ""),
    _of("blank", " ", "\n\n", "\t \r\n"),
    _of(
        "HTTP error as JSON",
        json.dumps({"error": {"message": "Rate limit of 3 requests reached", "code": 429}}),
        json.dumps({"object": "error", "message": "The model has 2 of 4 GPUs", "code": 500}),
        json.dumps({"detail": [{"loc": ["body", 2], "msg": "field required"}]}),
    ),
    _of("HTTP error as a page", _HTML, "HTTP 503 Service Unavailable, retry after 2 s"),
    _of("traceback", _TRACEBACK),
    _of(
        "refusal",
        "I'm sorry, but I can't help with that. A list of 10 products is too personal.",
        "As an AI, I am unable to rank items 1 to 5 for a person.",
    ),
    _of("refusal in Chinese", "抱歉，我无法为这2位顾客排序。", "对不起，第1次请求无法处理。"),
    _of(
        "chatter with letters and digits",
        "A few notes: I think 2 of these are a good buy.",
        "I would need a look at 3 more facts. A budget, for a start.",
        "Great question! There are 4 things that a shopper wants.",
    ),
    _of(
        "question back",
        "Could you tell me a budget? I have 2 ideas.",
        "Is plan 2 or a new one meant?",
    ),
    _of(
        "garbage",
        "!!!!!!!!!!!!!!!!",
        "the the the the the the",
        "1 1 1 1 1 1 1 1 of of of",
        "\ufffd" * 30,
    ),
    _written(
        "thought without an end",
        lambda asked: f"<think>First {' > '.join(asked.entries()[:3])}, but a fourth",
    ),
    _written("empty ranking", _empty),
    _of("schema in place of an answer", json.dumps(_SCHEMA)),
    _of("null", "null", "None", "{}", "[]", "undefined"),
    _written("labels of no product", _foreign),
    _of("log lines", f"{_LOG}\n{_LOG}"),
    _written("undecided", _undecided),
)
