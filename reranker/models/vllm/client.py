"""The `LanguageModel` port over vLLM servers."""

import asyncio
import copy
import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self, TypeVar

from reranker.errors import (
    ConfigError,
    ContextOverflow,
    ModelTimeout,
    ModelUnavailable,
    ShelfwiseError,
)
from reranker.models.adapter import AdapterCard, card_beside
from reranker.models.adapter_use import check_prompt, check_use, readout_answers, tuned_spec
from reranker.models.asking import check_length, slot_scores
from reranker.models.rendering import PromptRenderer, RenderedPrompt, load_tokenizer
from reranker.models.tokenizing import HFTokenizer
from reranker.models.vllm.discovery import Discovery, ServedModel, TokenSample
from reranker.models.vllm.http import Refused
from reranker.models.vllm.offer import common, comparison, offered, small_call
from reranker.models.vllm.pool import ServerPool
from reranker.models.vllm.routes import ChatRoute, Route, TokenRoute
from reranker.models.weights import resolve_tokenizer
from reranker.ports import ModelSpec, Progress, Tokenizer
from reranker.schema import Prompt, SlotScores
from reranker.settings import ModelSettings, ServerSettings

_T = TypeVar("_T")


class VLLMModel:
    """Asks vLLM servers for log-probabilities and written answers. It runs under asyncio.

    Prompts are rendered here and sent as token ids, so that a served model is asked exactly what
    the embedded one would be. Nothing of a shopper but the prompt itself is sent: the scope that
    keeps cached prompts apart goes as a keyed hash.

    At a server that is set up for LoRA adapters the ``verdict`` readout is not offered, with or
    without an adapter: two such requests in one batch kill the engine of vLLM 0.32.0 on a CPU, and
    no client can keep others from sending the second one. Merge the adapter into its base model
    and serve the result without ``--enable-lora``.
    """

    def __init__(
        self,
        served: ServedModel,
        renderer: PromptRenderer,
        tokenizer: Tokenizer,
        settings: ServerSettings,
        card: AdapterCard | None = None,
    ) -> None:
        """Take what is known of the servers; nothing is asked yet.

        Args:
            served: what all servers serve.
            renderer: of the same model.
            tokenizer: of the same model.
            settings: addresses, adapter, keys and limits.
            card: of the adapter that is merged into the model; None for an untuned one.

        Raises:
            ConfigError: this release would ask in another way than the adapter was tuned for.
        """
        self._renderer = renderer
        self._tokenizer = tokenizer
        self._served = served
        self._model = settings.adapter or served.name
        self._spec = offered(served, renderer, settings.adapter)
        self._card = card
        if card is not None:
            check_use(card, readout_answers(renderer, self._spec))
            self._spec = tuned_spec(self._spec, card)
        key = settings.cache_key
        self._key = key.get_secret_value().encode() if key else secrets.token_bytes(32)
        sample = TokenSample.of(renderer)
        self.pool = ServerPool(
            settings,
            real_call=small_call(served, sample, self._model),
            compare=comparison(served, sample, settings),
        )
        # One thread: tokenizers cannot encode in several at once.
        self._rendering = ThreadPoolExecutor(1, thread_name_prefix="shelfwise-rendering")

    @classmethod
    def load(
        cls, model: ModelSettings, server: ServerSettings, *, progress: Progress | None = None
    ) -> Self:
        """Ask the servers what they serve, and load the model's tokenizer.

        Servers that cannot be reached are left out until they are back, as long as one answers;
        they are then compared with the others before they are asked.

        Raises:
            ConfigError: they serve another model, or refuse the API key.
            ModelUnavailable: none can be reached, or the tokenizer cannot be had.
        """
        folder = resolve_tokenizer(model.name, progress=progress)
        renderer = PromptRenderer(load_tokenizer(folder), name=model.name)
        sample = TokenSample.of(renderer)
        found: dict[str, ServedModel] = {}
        failed: dict[str, ModelUnavailable] = {}
        for done, url in enumerate(server.urls):
            if progress is not None:
                progress("asking the model servers", done, len(server.urls))
            try:
                found[url] = Discovery(url, server).ask(sample)
            except ModelUnavailable as error:
                failed[url] = error
        if not found:
            raise next(iter(failed.values()))
        card = card_beside(folder)
        loaded = cls(common(found), renderer, HFTokenizer(folder), server, card)
        for url, failure in failed.items():
            loaded.pool.leave_alone(url, str(failure))
        return loaded

    @property
    def spec(self) -> ModelSpec:
        """Describe the model."""
        return self._spec

    @property
    def tokenizer(self) -> Tokenizer:
        """Give access to the model's tokenizer."""
        return self._tokenizer

    def with_adapter(self, name: str) -> Self:
        """Return the same model, asked for another adapter; it shares all that this one holds.

        Whether the servers have it shows when they are asked: adapters come and go while they run.

        Raises:
            ConfigError: the servers are not set up for adapters.
        """
        if not self._served.lora:
            raise ConfigError(
                f"adapter {name}: the servers of {self._spec.name} take none: start them with "
                "shelfwise llm serve --lora, or --adapter NAME=FOLDER"
            )
        other = copy.copy(self)
        other._model = name
        other._spec = self._spec.model_copy(update={"adapter": name})
        return other

    async def read(
        self, prompts: Sequence[Prompt], *, scope: str | None = None, seconds: float = math.inf
    ) -> tuple[SlotScores, ...]:
        """Score every slot of every prompt, in their order.

        Prompts of the same readout go as one request. See `LanguageModel.read`.

        Raises:
            ConfigError: the model cannot be asked in this way.
            ContextOverflow: a prompt is longer than the model's context.
            ModelTimeout: no answer within ``seconds``.
            ModelUnavailable: no server answers or takes the API key, or the model is closed.
            OutputError: the answers made no sense, or lack labels.
        """
        if not prompts:
            return ()
        call = _Call(self, scope, seconds)
        if self._card is not None:
            for prompt in prompts:
                check_prompt(self._card, prompt)
        rendered = await self._render(prompts)
        check_length(self._spec, rendered)
        scores: dict[int, SlotScores] = {}
        for readout in dict.fromkeys(prompt.readout for prompt in prompts):
            self._check_readout(readout)
            places = [place for place, one in enumerate(prompts) if one.readout == readout]
            asked, tokens = [prompts[p] for p in places], [rendered[p] for p in places]
            if readout == "verdict":
                rows = await call.route.verdicts(tokens, call.send)
            else:
                rows = await call.route.labels(asked, tokens, call.send)
            for place, prompt, row in zip(places, asked, rows, strict=True):
                scores[place] = slot_scores(self._spec.name, prompt, row)
        return tuple(scores[place] for place in range(len(prompts)))

    async def write(
        self,
        prompts: Sequence[Prompt],
        *,
        schema: Mapping[str, Any],
        max_tokens: int,
        scope: str | None = None,
        seconds: float = math.inf,
    ) -> tuple[str, ...]:
        """Write an answer to every prompt, in their order, held to the schema by vLLM.

        The schema covers what the model writes: not a start of the answer that the prompt holds.
        See `LanguageModel.write`.

        Raises:
            ContextOverflow: a prompt and the longest answer are longer than the model's context.
            ModelTimeout: no answer within ``seconds``.
            ModelUnavailable: no server answers or takes the API key, one refuses the schema, or the
                model is closed.
            OutputError: the answers made no sense.
        """
        if not prompts:
            return ()
        call = _Call(self, scope, seconds)
        rendered = await self._render(prompts)
        check_length(self._spec, rendered, answer=max_tokens)
        return tuple(await call.route.write(prompts, rendered, schema, max_tokens, call.send))

    async def aclose(self) -> None:
        """Close all connections; calls under way fail."""
        self._rendering.shutdown(wait=False)
        await self.pool.aclose()

    def _check_readout(self, readout: str) -> None:
        if readout in self._spec.readouts:
            return
        reason = ""
        if readout == "verdict" and self._served.lora:
            reason = (
                ": with LoRA on it can kill vLLM's engine: merge the adapter into its base model "
                "and serve that without --enable-lora"
            )
        can = ", ".join(sorted(self._spec.readouts))
        raise ConfigError(
            f"{self._spec.name}: the {readout} readout cannot be used{reason}; usable are {can}"
        )

    async def _render(self, prompts: Sequence[Prompt]) -> list[RenderedPrompt]:
        def render() -> list[RenderedPrompt]:
            return [self._renderer.render(prompt) for prompt in prompts]

        try:
            job = self._rendering.submit(render)
        except RuntimeError as error:
            raise ModelUnavailable(f"{self._spec.name}: the model is closed") from error
        return await asyncio.wrap_future(job)

    def route(self, scope: str | None) -> Route:
        """Return the way to ask for a scope."""
        if self._served.route == "chat":
            return ChatRoute(self._model, self._renderer, top_logprobs=self._served.top_logprobs)
        return TokenRoute(self._model, salt=self.salt(scope))

    def salt(self, scope: str | None) -> str | None:
        """Return what stands for a scope at the servers; it does not tell the scope."""
        if scope is None:
            return None
        return hmac.new(self._key, scope.encode(), hashlib.sha256).hexdigest()

    async def explained(self, refused: Refused) -> Exception:
        """Return a refusal as an error that says what to do about it."""
        name = self._spec.name
        said = f"the server refuses the request ({refused})"
        if refused.status == 404:
            names = await self._names()
            return ModelUnavailable(
                f"{name}: no server serves {self._model!r} any more; served are {names}: "
                "set server.served_name and server.adapter"
            )
        if refused.status == 400 and re.search("context (length|size|window)", refused.message):
            remedy = "lower ranking.window, ranking.card_tokens or profile.max_tokens"
            return ContextOverflow(f"{name}: {said}: {remedy}")
        return ModelUnavailable(f"{name}: {said}")

    async def _names(self) -> str:
        def ids(answer: Any) -> str:
            return ", ".join(str(entry["id"]) for entry in answer["data"])

        try:
            return await self.pool.call("/v1/models", None, ids, seconds=2.0)
        except (ShelfwiseError, Refused):  # it is only for the message
            return "unknown names"


class _Call:
    """One call of the port: its way to ask, and what is left of its time."""

    def __init__(self, model: VLLMModel, scope: str | None, seconds: float) -> None:
        self.route = model.route(scope)
        self._model = model
        self._affinity = model.salt(scope)
        self._deadline = time.monotonic() + seconds

    async def send(self, path: str, body: Mapping[str, Any], read: Callable[[Any], _T], /) -> _T:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise ModelTimeout(f"{self._model.spec.name}: no time was left to ask it")
        try:
            return await self._model.pool.call(
                path, body, read, seconds=left, affinity=self._affinity
            )
        except Refused as refused:
            raise await self._model.explained(refused) from refused
