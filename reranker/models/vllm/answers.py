"""From a server's JSON to log-probabilities and texts, believing nothing that is not there."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from reranker.errors import OutputError
from reranker.models.asking import HIGHEST_LOGPROB
from reranker.models.rendering import RenderedPrompt

_T = TypeVar("_T")
_LOWEST = -1000.0  # vLLM writes -9999 for minus infinity, which JSON cannot hold
_BAD_FORM = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError)


class LabelsMissing(OutputError):  # noqa: N818
    """The server gave no log-probability for some labels: a property of it, not a failure."""


def label_logprobs(
    answer: Any, prompts: Sequence[RenderedPrompt], labels: Sequence[Sequence[str]]
) -> list[tuple[float, ...]]:
    """Read the log-probabilities of every label from a completion of several prompts.

    Args:
        answer: JSON of the completion.
        prompts: as they were sent.
        labels: of each prompt, for messages.

    Raises:
        LabelsMissing: the server left labels out.
        OutputError: the answer has another form.
    """

    def one(
        choice: Mapping[str, Any], asked: tuple[RenderedPrompt, Sequence[str]]
    ) -> tuple[float, ...]:
        prompt, names = asked
        top = choice["logprobs"]["top_logprobs"][0]
        found = {
            name: top[f"token_id:{token}"]
            for name, token in zip(names, prompt.label_ids, strict=True)
            if f"token_id:{token}" in top
        }
        return _complete(found, names, "logprob_token_ids with return_tokens_as_token_ids")

    return _each(answer, list(zip(prompts, labels, strict=True)), one)


def verdict_logprobs(answer: Any, prompts: Sequence[RenderedPrompt]) -> list[tuple[float, ...]]:
    """Read the log-probability of every verdict from a completion of several prompts.

    Raises:
        OutputError: the answer has another form, or scores other tokens than were asked about.
    """

    def one(choice: Mapping[str, Any], prompt: RenderedPrompt) -> tuple[float, ...]:
        places = choice["prompt_logprobs"]
        if len(places) != len(prompt.token_ids):
            raise OutputError(f"it scored {len(places)} of {len(prompt.token_ids)} prompt tokens")
        return tuple(
            _logprob(places[place][str(prompt.token_ids[place])]["logprob"])
            for place in prompt.verdict_positions
        )

    return _each(answer, prompts, one)


def chat_label_logprobs(answer: Any, labels: Sequence[str]) -> tuple[float, ...]:
    """Read the log-probabilities of labels from the likeliest first tokens of a chat answer.

    Raises:
        LabelsMissing: some are not among them.
        OutputError: the answer has another form.
    """
    try:
        tokens = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        top = {entry["token"]: float(entry["logprob"]) for entry in tokens}
    except _BAD_FORM as error:
        raise _strange(answer, error) from error
    return _complete(top, labels, "logprob_token_ids on /v1/completions, or more top_logprobs")


def texts(answer: Any, count: int) -> list[str]:
    """Read the written answers to several prompts.

    Raises:
        OutputError: the answer has another form.
    """

    def one(choice: Mapping[str, Any], _prompt: None) -> str:
        written = choice["message"]["content"] if "message" in choice else choice["text"]
        return str(written or "")

    return _each(answer, [None] * count, one)


def _each(
    answer: Any, prompts: Sequence[Any], read: Callable[[Mapping[str, Any], Any], _T]
) -> list[_T]:
    """Read one choice for each prompt, whatever order they came in."""
    try:
        choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
        if len(choices) != len(prompts):
            raise OutputError(f"it answered {len(choices)} of {len(prompts)} prompts")
        return [read(choice, prompt) for choice, prompt in zip(choices, prompts, strict=True)]
    except _BAD_FORM as error:
        raise _strange(answer, error) from error


def _complete(top: Mapping[str, Any], names: Sequence[str], needed: str) -> tuple[float, ...]:
    found = {name: _logprob(top[name]) for name in names if name in top}
    missing = [name for name in names if found.get(name, _LOWEST) <= _LOWEST]
    if missing:
        raise LabelsMissing(
            f"the server gave no log-probability for {len(missing)} of {len(names)} labels "
            f"({', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''}): it lacks {needed}",
            raw=str(top)[:500],
        )
    return tuple(found[name] for name in names)


def _logprob(value: Any) -> float:
    number = float(value)
    if not number <= HIGHEST_LOGPROB:
        raise OutputError(f"the server gave {number:.3g} as a log-probability", raw=str(value))
    return number


def _strange(answer: Any, error: Exception) -> OutputError:
    what = type(error).__name__
    if isinstance(error, KeyError):  # others hold words of the answer
        what += f": {error}"
    return OutputError(f"the server's answer has an unknown form ({what})", raw=str(answer)[:500])
