"""Answers of servers that cannot be used."""

from typing import Any

import pytest

from reranker.errors import OutputError
from reranker.models.rendering import RenderedPrompt
from reranker.models.vllm.answers import (
    chat_label_logprobs,
    label_logprobs,
    texts,
    verdict_logprobs,
)

ENDLESS = {"choices": [{"index": float("inf")}]}


PROMPT = RenderedPrompt(token_ids=(1, 2), label_ids=(7,), verdict_positions=(1,))


def choice(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, **fields}]}


@pytest.mark.parametrize("logprob", [1000.0, 0.1, float("nan"), float("inf"), "anna", None])
def test_what_is_no_log_probability_is_refused(logprob: Any) -> None:
    labels = choice(logprobs={"top_logprobs": [{"token_id:7": logprob}]})
    verdicts = choice(prompt_logprobs=[None, {"2": {"logprob": logprob}}])
    chat = choice(logprobs={"content": [{"top_logprobs": [{"token": "A", "logprob": logprob}]}]})
    for read in (
        lambda: label_logprobs(labels, [PROMPT], ["A"]),
        lambda: verdict_logprobs(verdicts, [PROMPT]),
        lambda: chat_label_logprobs(chat, ["A"]),
    ):
        with pytest.raises(OutputError) as caught:
            read()
        assert "anna" not in str(caught.value)


def test_an_endless_index_is_refused() -> None:
    for read in (
        lambda: label_logprobs(ENDLESS, [PROMPT], ["A"]),
        lambda: verdict_logprobs(ENDLESS, [PROMPT]),
        lambda: texts(ENDLESS, 1),
    ):
        with pytest.raises(OutputError, match=r"unknown form \(OverflowError"):
            read()
