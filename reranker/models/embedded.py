"""The language model in this process: transformers and torch, on the CPU or one GPU."""

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Self, TypeVar

from reranker.errors import ConfigError, ModelTimeout, ModelUnavailable, OutputError
from reranker.models.adapter import (
    AdapterCard,
    BaseModelCard,
    adapter_of,
    card_beside,
    read_card,
    read_config,
)
from reranker.models.adapter_use import (
    check_base,
    check_prompt,
    check_use,
    readout_answers,
    tuned_spec,
)
from reranker.models.asking import check_length, describe, slot_scores
from reranker.models.loading import context_length, load_causal_model
from reranker.models.merging import merge, weights_fingerprint
from reranker.models.rendering import PromptRenderer, load_tokenizer
from reranker.models.tokenizing import HFTokenizer
from reranker.models.weights import resolve
from reranker.ports import ModelSpec, Progress, Tokenizer
from reranker.quiet import quiet_transformers
from reranker.schema import Prompt, SlotScores
from reranker.settings import ModelSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_T = TypeVar("_T")


class EmbeddedModel:
    """The `LanguageModel` port over a model folder.

    One batch is computed at a time, in a thread of its own. A caller that is cancelled goes on at
    once; what is being computed for it is given up before the next pass. It runs under asyncio.
    """

    def __init__(self, folder: Path, settings: ModelSettings, *, name: str | None = None) -> None:
        """Load a model folder.

        Args:
            folder: with config.json, safetensors and tokenizer.
            settings: number type, threads, kept prefixes, and the adapter that is merged into it.
            name: what results call the model; None takes the settings' name.

        Raises:
            ConfigError: it is no instruction-tuned model, or the adapter was made for another one.
            DataError: the adapter's files are damaged.
            ModelUnavailable: its files are missing or damaged, or memory does not suffice.
        """
        self._name = name or settings.name
        with quiet_transformers():
            tokenizer = load_tokenizer(folder)
            self._renderer = PromptRenderer(tokenizer, name=self._name)
            model = load_causal_model(folder, settings.dtype)
        self._tokenizer = HFTokenizer(folder)
        length = context_length(model)
        self._spec = describe(self._renderer, name=self._name, context_length=length)
        self._prefix: Any = ()
        self._card = self._adapt(model, folder, settings)
        self._end_ids = _end_ids(model, self._renderer)
        self._scorer: Any = _scorer(model, settings.prefix_cache, self._prefix)
        self._worker = ThreadPoolExecutor(
            max_workers=1,
            thread_name_prefix="shelfwise-model",
            initializer=_set_threads,
            initargs=(settings.threads,),
        )

    @classmethod
    def load(cls, settings: ModelSettings, *, progress: Progress | None = None) -> Self:
        """Fetch the model that the settings name, where that is needed, and load it.

        Raises:
            ConfigError: the name is none, or the model cannot be used for ranking.
            ModelUnavailable: the model cannot be fetched or loaded.
        """
        folder = resolve(settings.name, progress=progress)
        if progress is not None:
            progress(f"loading {settings.name}", 0, 1)
        model = cls(folder, settings)
        if progress is not None:
            progress(f"loading {settings.name}", 1, 1)
        return model

    @property
    def spec(self) -> ModelSpec:
        """Describe the model."""
        return self._spec

    @property
    def tokenizer(self) -> Tokenizer:
        """Give access to the model's tokenizer."""
        return self._tokenizer

    def with_adapter(self, name: str) -> Self:
        """Refuse: see `LanguageModel.with_adapter`.

        Raises:
            ConfigError: always: an adapter is merged in when the model is loaded.
        """
        raise ConfigError(
            f"adapter {name}: the embedded model takes none by name: set model.adapter, or "
            "server.urls to servers that have it"
        )

    async def read(
        self, prompts: Sequence[Prompt], *, scope: str | None = None, seconds: float = math.inf
    ) -> tuple[SlotScores, ...]:
        """Score every slot of every prompt, in their order, as one batch.

        See `LanguageModel.read`.

        Raises:
            ConfigError: the model cannot be asked in this way.
            ContextOverflow: a prompt is longer than the model's context; nothing was computed.
            ModelTimeout: no answer within ``seconds``.
            ModelUnavailable: the model is closed, or memory did not suffice.
            OutputError: a score is not a finite number, or a prompt has none.
        """
        if not prompts:
            return ()
        return await self._work(seconds, self._read, tuple(prompts), scope)

    async def write(
        self,
        prompts: Sequence[Prompt],
        *,
        schema: Mapping[str, Any],
        max_tokens: int,
        scope: str | None = None,
        seconds: float = math.inf,
    ) -> tuple[str, ...]:
        """Write an answer to every prompt, one after the other, the likeliest token each time.

        The schema cannot be enforced here: what comes may have any form. Nothing of the prompts is
        kept. See `LanguageModel.write`.

        Raises:
            ConfigError: the chat template cannot render the prompt.
            ContextOverflow: a prompt and the longest answer are longer than the model's context.
            ModelTimeout: not all was written within ``seconds``.
            ModelUnavailable: the model is closed, or memory did not suffice.
        """
        if not prompts:
            return ()
        return await self._work(seconds, self._write, tuple(prompts), max_tokens)

    async def aclose(self) -> None:
        """Release the model. Batches that wait are refused; the running one ends by itself."""
        # Futures that wait are not cancelled: their callers would take it for their own end.
        self._scorer = None
        self._worker.shutdown(wait=False)

    async def _work(
        self, seconds: float, act: Callable[..., tuple[_T, ...]], *arguments: object
    ) -> tuple[_T, ...]:
        """Run a method in the thread that computes, until nobody waits for it any more."""
        gone = Event()
        deadline = time.monotonic() + seconds

        def stopped() -> bool:
            return gone.is_set() or time.monotonic() >= deadline

        try:
            job = self._worker.submit(self._compute, act, arguments, stopped)
        except RuntimeError as error:
            raise self._closed() from error
        try:
            return await asyncio.wrap_future(job)
        finally:
            gone.set()

    def _compute(
        self,
        act: Callable[..., tuple[_T, ...]],
        arguments: Sequence[object],
        stopped: Callable[[], bool],
    ) -> tuple[_T, ...]:
        from reranker.models.prefill import Interrupted

        scorer = self._scorer
        if scorer is None:
            raise self._closed()
        try:
            return act(scorer, stopped, *arguments)
        except Interrupted as error:
            raise ModelTimeout(f"{self._name}: the time for the answer is over") from error
        except RuntimeError as error:
            message = f"{self._name}: computing failed: {error}"
            raise ModelUnavailable(message, retryable=True) from error

    def _read(
        self,
        scorer: Any,
        stopped: Callable[[], bool],
        prompts: Sequence[Prompt],
        scope: str | None,
    ) -> tuple[SlotScores, ...]:
        if self._card is not None:
            for prompt in prompts:
                check_prompt(self._card, prompt)
        rendered = [self._renderer.render(prompt) for prompt in prompts]
        check_length(self._spec, rendered)
        rows = scorer.score(rendered, stopped, scope=scope)
        if len(rows) != len(prompts):
            message = f"{self._name}: it answered {len(rows)} of {len(prompts)} prompts"
            raise OutputError(message, raw=str(rows))
        return tuple(map(partial(slot_scores, self._name), prompts, rows))

    def _write(
        self,
        scorer: Any,
        stopped: Callable[[], bool],
        prompts: Sequence[Prompt],
        max_tokens: int,
    ) -> tuple[str, ...]:
        rendered = [self._renderer.render(prompt) for prompt in prompts]
        check_length(self._spec, rendered, answer=max_tokens)
        ends = self._end_ids
        written = [
            scorer.write(one, max_tokens=max_tokens, end_ids=ends, stopped=stopped)
            for one in rendered
        ]
        return tuple(map(self._renderer.decode, written))

    def _adapt(
        self, model: "PreTrainedModel", folder: Path, settings: ModelSettings
    ) -> AdapterCard | None:
        """Take in the adapter, if there is one; offer only what it was tuned for."""
        card, adapter = card_beside(folder), adapter_of(settings)
        if card is not None and adapter is not None:
            message = f"model.adapter = {settings.adapter}: {folder} has {card.identity} merged in"
            raise ConfigError(f"{message} already: set model.adapter = none")
        if adapter is not None:
            card = read_card(adapter)
            fingerprint = weights_fingerprint(model.named_parameters())
            check_base(card, BaseModelCard(name=self._name, fingerprint=fingerprint))
        if card is None:
            return None
        check_use(card, readout_answers(self._renderer, self._spec))
        if adapter is not None and read_config(adapter).method == "prefix":
            self._use_prefix(model, adapter)
        elif adapter is not None:
            merge(model, adapter)
        self._spec = tuned_spec(self._spec, card)
        return card

    def _use_prefix(self, model: "PreTrainedModel", adapter: Path) -> None:
        """Let a learned prefix stand before every prompt; it takes its room in the context."""
        from reranker.models.prefix import learned_prefix

        self._prefix = learned_prefix(model, adapter)
        left = self._spec.context_length - self._prefix[0][0].shape[2]
        self._spec = self._spec.model_copy(update={"context_length": left})

    def _closed(self) -> ModelUnavailable:
        return ModelUnavailable(f"{self._name}: the model is closed")


def _scorer(model: "PreTrainedModel", prefixes: int, learned: Any) -> Any:
    from reranker.models.prefill import CausalScorer

    return CausalScorer(model, prefixes=prefixes, learned=learned)


def _end_ids(model: "PreTrainedModel", renderer: PromptRenderer) -> frozenset[int]:
    """Return the tokens that end an answer, as the model's files name them."""
    generation: Any = getattr(model, "generation_config", None)
    named = getattr(generation, "eos_token_id", None)
    ids = named if isinstance(named, list) else [named]
    return frozenset(one for one in [*ids, renderer.end_id] if one is not None)


def _set_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
