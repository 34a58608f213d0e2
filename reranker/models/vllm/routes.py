"""Two ways to ask a server: by token ids as vLLM can, or by chat as others can."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from reranker.at_once import at_once
from reranker.errors import ConfigError
from reranker.models.rendering import PromptRenderer, RenderedPrompt
from reranker.models.vllm.answers import (
    chat_label_logprobs,
    label_logprobs,
    texts,
    verdict_logprobs,
)
from reranker.models.vllm.discovery import label_request
from reranker.schema import Prompt

_T = TypeVar("_T")
Logprobs = list[tuple[float, ...]]


class Send(Protocol):
    """Sends one request within the time left and reads its answer."""

    def __call__(
        self, path: str, body: Mapping[str, Any], read: Callable[[Any], _T], /
    ) -> Awaitable[_T]:
        """Return what ``read`` makes of the answer's JSON."""
        ...


class Route(Protocol):
    """Asks about prompts of one readout."""

    async def labels(
        self, prompts: Sequence[Prompt], rendered: Sequence[RenderedPrompt], send: Send
    ) -> Logprobs:
        """Return the log-probabilities of each prompt's labels."""
        ...

    async def verdicts(self, rendered: Sequence[RenderedPrompt], send: Send) -> Logprobs:
        """Return the log-probabilities of each prompt's verdicts."""
        ...

    async def write(
        self,
        prompts: Sequence[Prompt],
        rendered: Sequence[RenderedPrompt],
        schema: Mapping[str, Any],
        max_tokens: int,
        send: Send,
    ) -> list[str]:
        """Return an answer in the schema to each prompt."""
        ...


class TokenRoute:
    """vLLM's completions over token ids: all prompts of a call go as one request.

    The server does not render the prompts, so it is asked exactly what the embedded model is.
    """

    def __init__(self, model: str, *, salt: str | None) -> None:
        """Take the name to ask for, and what keeps cached prompts apart from those of others."""
        self._model = model
        self._salt = {"cache_salt": salt} if salt else {}

    async def labels(
        self, prompts: Sequence[Prompt], rendered: Sequence[RenderedPrompt], send: Send
    ) -> Logprobs:
        """Return the log-probabilities of each prompt's labels."""
        label_ids = list(dict.fromkeys(token for one in rendered for token in one.label_ids))
        body = label_request(self._model, [one.token_ids for one in rendered], label_ids)
        names = [prompt.labels for prompt in prompts]
        return await send(
            "/v1/completions", body | self._salt, lambda it: label_logprobs(it, rendered, names)
        )

    async def verdicts(self, rendered: Sequence[RenderedPrompt], send: Send) -> Logprobs:
        """Return the log-probabilities of each prompt's verdicts; these read no cache."""
        body = self._body(rendered, max_tokens=1) | {"prompt_logprobs": 0}
        return await send("/v1/completions", body, lambda it: verdict_logprobs(it, rendered))

    async def write(
        self,
        prompts: Sequence[Prompt],
        rendered: Sequence[RenderedPrompt],
        schema: Mapping[str, Any],
        max_tokens: int,
        send: Send,
    ) -> list[str]:
        """Return an answer in the schema to each prompt."""
        body = self._body(rendered, max_tokens=max_tokens) | _answer_format(schema)
        return await send("/v1/completions", body, lambda it: texts(it, len(prompts)))

    def _body(self, rendered: Sequence[RenderedPrompt], *, max_tokens: int) -> dict[str, Any]:
        return {
            "model": self._model,
            "prompt": [list(one.token_ids) for one in rendered],
            "max_tokens": max_tokens,
            "temperature": 0,
            **self._salt,
        }


class ChatRoute:
    """Chat completions as most servers have them: one request a prompt.

    Labels are read from the likeliest first tokens, of which servers tell a few only: those that
    are not among them make an `OutputError`. Nothing keeps cached prompts of shoppers apart.
    """

    def __init__(self, model: str, renderer: PromptRenderer, *, top_logprobs: int) -> None:
        """Take the name to ask for, and the most alternatives that the server tells."""
        self._model = model
        self._renderer = renderer
        self._top = top_logprobs

    async def labels(
        self, prompts: Sequence[Prompt], rendered: Sequence[RenderedPrompt], send: Send
    ) -> Logprobs:
        """Return the log-probabilities of each prompt's labels."""

        async def one(prompt: Prompt) -> tuple[float, ...]:
            body = self._body(prompt, 1) | {"logprobs": True, "top_logprobs": self._top}
            return await send(
                "/v1/chat/completions", body, lambda it: chat_label_logprobs(it, prompt.labels)
            )

        return await at_once(one, prompts)

    async def verdicts(self, rendered: Sequence[RenderedPrompt], send: Send) -> Logprobs:
        """Refuse: chat completions tell nothing of the prompt's own tokens."""
        raise ConfigError("ranking.readout = verdict: the server has no prompt_logprobs")

    async def write(
        self,
        prompts: Sequence[Prompt],
        rendered: Sequence[RenderedPrompt],
        schema: Mapping[str, Any],
        max_tokens: int,
        send: Send,
    ) -> list[str]:
        """Return an answer to each prompt, in the schema where the server enforces it."""

        async def one(prompt: Prompt) -> str:
            body = self._body(prompt, max_tokens) | _answer_format(schema)
            return await send("/v1/chat/completions", body, lambda it: texts(it, 1)[0])

        return await at_once(one, prompts)

    def _body(self, prompt: Prompt, max_tokens: int) -> dict[str, Any]:
        return {
            "model": self._model,
            "messages": self._renderer.conversation(prompt.messages),
            "max_tokens": max_tokens,
            "temperature": 0,
        }


def _answer_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    # OpenAI's name for it, which vLLM takes beside its own `structured_outputs`.
    given = {"name": "answer", "schema": dict(schema), "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": given}}
