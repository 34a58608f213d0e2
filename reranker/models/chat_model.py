"""Any langchain-core chat model behind the `LanguageModel` port, for written rankings."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import anyio
from langchain_core.language_models import BaseChatModel

from reranker.at_once import at_once
from reranker.errors import ConfigError, ModelTimeout, ModelUnavailable, OutputError
from reranker.models.rendering import LABELS
from reranker.parsing.form import LONGEST_ANSWER
from reranker.ports import ModelSpec, Tokenizer
from reranker.schema import Prompt, SlotScores

_log = logging.getLogger(__name__)
_OTHER_CONTEXT = 8192


class EstimatedTokenizer:
    """The `Tokenizer` port for models whose tokenizer is not at hand: a cautious estimate.

    Three bytes of ASCII text count as one token (English has about four characters a token), any
    other character as one and a half (Chinese has between half a token and two).
    """

    def count(self, text: str) -> int:
        """Return an upper estimate of the number of tokens of a text."""
        return math.ceil(sum(map(_cost, text)))

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """Return upper estimates of the numbers of tokens of texts."""
        return [self.count(text) for text in texts]

    def truncate(self, text: str, max_tokens: int) -> str:
        """Return the longest prefix of a text that is estimated at ``max_tokens`` at most."""
        spent = 0.0
        for place, character in enumerate(text):
            spent += _cost(character)
            if math.ceil(spent) > max_tokens:
                return text[:place]
        return text


class ChatModel:
    """Ranks with a chat model of LangChain in generation mode.

    Such a model gives no log-probabilities that could be relied on, so only the ``generate``
    readout is offered: set ``ranking.readout = generate``. The JSON Schema is not enforced; the
    parser copes with what comes. Nor is ``max_tokens``, which providers call by different names:
    limit the length of answers at the chat model itself. Longer replies than are ever read are cut.
    """

    def __init__(
        self,
        chat: BaseChatModel,
        *,
        name: str | None = None,
        context_length: int = _OTHER_CONTEXT,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        """Take a chat model.

        Args:
            chat: set to temperature 0 by the caller, where it can be.
            name: what results call it; None takes the name that the chat model gives itself.
            context_length: prompt and answer together, in tokens.
            tokenizer: None estimates.
        """
        self._chat = chat
        self._tokenizer = tokenizer or EstimatedTokenizer()
        given = getattr(chat, "model_name", None) or getattr(chat, "model", None)
        self._spec = ModelSpec(
            name=name or (given if isinstance(given, str) else chat.get_name()),
            context_length=context_length,
            labels=tuple(LABELS),
            readouts=frozenset({"generate"}),
        )

    @property
    def spec(self) -> ModelSpec:
        """Describe the model."""
        return self._spec

    @property
    def tokenizer(self) -> Tokenizer:
        """Give access to the tokenizer, or the estimate in its place."""
        return self._tokenizer

    def with_adapter(self, name: str) -> Self:
        """Refuse: see `LanguageModel.with_adapter`.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"adapter {name}: a chat model of LangChain takes none by name")

    async def read(
        self, prompts: Sequence[Prompt], *, scope: str | None = None, seconds: float = math.inf
    ) -> tuple[SlotScores, ...]:
        """Refuse: there are no scores to read.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{self._spec.name} can only write: set ranking.readout = generate")

    async def write(
        self,
        prompts: Sequence[Prompt],
        *,
        schema: Mapping[str, Any],
        max_tokens: int,
        scope: str | None = None,
        seconds: float = math.inf,
    ) -> tuple[str, ...]:
        """Ask about all prompts at the same time; see `reranker.ports.LanguageModel.write`.

        Raises:
            ModelTimeout: no answer within the time left.
            ModelUnavailable: the chat model raised an error, whose class and HTTP status are named;
                its text, which may repeat the prompt, goes to the log at level DEBUG.
            OutputError: an answer is no text.
        """
        try:
            with anyio.fail_after(None if math.isinf(seconds) else max(seconds, 0)):
                return tuple(await at_once(self._ask, prompts))
        except TimeoutError:
            message = f"{self._spec.name}: no answer within {seconds:.2f} s"
            raise ModelTimeout(message) from None

    async def aclose(self) -> None:
        """Do nothing: the chat model is the caller's."""

    async def _ask(self, prompt: Prompt) -> str:
        try:
            reply = await self._chat.ainvoke(list(prompt.messages))
        except Exception as error:  # every provider raises classes of its own
            _log.debug("%s raised an error", self._spec.name, exc_info=error)
            message = f"{self._spec.name}: {_kind(error)}"
            # Not as its cause: a traceback would repeat its text.
            raise ModelUnavailable(message, retryable=True) from None
        if not isinstance(reply.text, str):
            raise OutputError(f"{self._spec.name}: the answer is no text", raw=str(reply))
        return str(reply.text)[: LONGEST_ANSWER + 1]  # the parser tells of what is too long


def _kind(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    return type(error).__name__ + (f" (HTTP {status})" if isinstance(status, int) else "")


def _cost(character: str) -> float:
    return 1 / 3 if character.isascii() else 1.5
