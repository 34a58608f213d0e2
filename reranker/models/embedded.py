"""The language model in this process: transformers and torch, on the CPU or one GPU."""

import asyncio
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Any, Self

from reranker.errors import ConfigError, ContextOverflow, ModelUnavailable, OutputError
from reranker.models.conversion import quiet_transformers
from reranker.models.rendering import PromptRenderer, RenderedPrompt, load_tokenizer
from reranker.models.tokenizing import HFTokenizer
from reranker.models.weights import resolve
from reranker.ports import ModelSpec, Progress, Tokenizer
from reranker.schema import Prompt, Readout, SlotScores
from reranker.settings import ModelSettings

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_OTHER_CONTEXT = 4096


class EmbeddedModel:
    """The `LanguageModel` port over a model folder.

    One batch is computed at a time, in a thread of its own. A caller that is cancelled goes on at
    once; what is being computed for it is given up before the next pass. It runs under asyncio.
    """

    def __init__(self, folder: Path, settings: ModelSettings, *, name: str | None = None) -> None:
        """Load a model folder.

        Args:
            folder: with config.json, safetensors and tokenizer.
            settings: number type, threads and kept prefixes.
            name: what results call the model; None takes the settings' name.

        Raises:
            ConfigError: it is no instruction-tuned model, or no readout can be used with it.
            ModelUnavailable: its files are missing or damaged, or memory does not suffice.
        """
        self._name = name or settings.name
        with quiet_transformers():
            tokenizer = load_tokenizer(folder)
            self._renderer = PromptRenderer(tokenizer, name=self._name)
            model = _load_model(folder, settings.dtype)
        self._tokenizer = HFTokenizer(folder)
        self._spec = _describe(self._name, model, self._renderer)
        self._scorer: Any = _scorer(model, settings.prefix_cache)
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

    async def read(self, prompts: Sequence[Prompt]) -> tuple[SlotScores, ...]:
        """Score every slot of every prompt, in their order, as one batch.

        Raises:
            ConfigError: the model cannot be asked in this way.
            ContextOverflow: a prompt is longer than the model's context; nothing was computed.
            ModelUnavailable: the model is closed, or memory did not suffice.
            OutputError: a score is not a finite number, or a prompt has none.
        """
        if not prompts:
            return ()
        gone = Event()
        try:
            job = self._worker.submit(self._read, tuple(prompts), gone.is_set)
        except RuntimeError as error:
            raise self._closed() from error
        try:
            return await asyncio.wrap_future(job)
        finally:
            gone.set()

    async def aclose(self) -> None:
        """Release the model. Batches that wait are refused; the running one ends by itself."""
        # Futures that wait are not cancelled: their callers would take it for their own end.
        self._scorer = None
        self._worker.shutdown(wait=False)

    def _read(
        self, prompts: Sequence[Prompt], stopped: Callable[[], bool]
    ) -> tuple[SlotScores, ...]:
        scorer = self._scorer
        if scorer is None:
            raise self._closed()
        rendered = [self._renderer.render(prompt) for prompt in prompts]
        self._check_length(rendered)
        try:
            rows = scorer.score(rendered, stopped)
        except RuntimeError as error:
            message = f"{self._name}: computing failed: {error}"
            raise ModelUnavailable(message, retryable=True) from error
        if len(rows) != len(prompts):
            message = f"{self._name}: it answered {len(rows)} of {len(prompts)} prompts"
            raise OutputError(message, raw=str(rows))
        return tuple(map(self._scores, prompts, rows))

    def _closed(self) -> ModelUnavailable:
        return ModelUnavailable(f"{self._name}: the model is closed")

    def _check_length(self, rendered: Sequence[RenderedPrompt]) -> None:
        longest = max(len(prompt.token_ids) for prompt in rendered)
        if longest >= self._spec.context_length:
            message = (
                f"{self._name}: a prompt of {longest} tokens and the answer do not fit its context "
                f"of {self._spec.context_length}: lower ranking.window, ranking.card_tokens or "
                "profile.max_tokens"
            )
            raise ContextOverflow(message)

    def _scores(self, prompt: Prompt, logprobs: Sequence[float]) -> SlotScores:
        if not all(map(math.isfinite, logprobs)):
            message = f"{self._name}: it gave scores that are no finite numbers; try another dtype"
            raise OutputError(message, raw=str(logprobs))
        if prompt.readout == "verdict":
            return SlotScores(logprobs=tuple(logprobs))
        mass = min(math.fsum(map(math.exp, logprobs)), 1.0)
        return SlotScores(logprobs=tuple(logprobs), label_mass=mass)


def _load_model(folder: Path, dtype: str) -> "PreTrainedModel":
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loader: Any = AutoModelForCausalLM
    try:
        model, report = loader.from_pretrained(
            str(folder),
            dtype=_number_type(dtype, device),
            attn_implementation="sdpa",
            local_files_only=True,
            output_loading_info=True,
        )
        model = model.to(device).eval()
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        message = f"{folder}: the model cannot be loaded: {error}"
        raise ModelUnavailable(message) from error
    # transformers fills weights that a file lacks with random numbers, and only warns.
    if missing := sorted(report["missing_keys"]):
        message = f"{folder}: {len(missing)} weights are missing, such as {missing[0]}"
        raise ModelUnavailable(message)
    loaded: PreTrainedModel = model
    return loaded


def _number_type(dtype: str, device: "torch.device") -> "torch.dtype":
    import torch

    if dtype != "auto":
        return torch.float32 if dtype == "float32" else torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    # Private names, as torch has no public ones: without them float32 is always right.
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    quick = any(getattr(torch.cpu, name, lambda: False)() for name in checks)
    return torch.bfloat16 if quick else torch.float32


def _scorer(model: "PreTrainedModel", prefixes: int) -> Any:
    from reranker.models.prefill import CausalScorer

    return CausalScorer(model, prefixes=prefixes)


def _describe(name: str, model: "PreTrainedModel", renderer: PromptRenderer) -> ModelSpec:
    checks: dict[Readout, Callable[[], object]] = {
        "labels": renderer.answer_prefix,
        "verdict": renderer.verdict_token,
    }
    readouts: set[Readout] = set()
    reasons = []
    for readout, check in checks.items():
        try:
            check()
            readouts.add(readout)
        except ConfigError as error:
            reasons.append(str(error))
    if not readouts:
        raise ConfigError("; ".join(reasons))
    config: Any = model.config.get_text_config()
    prefix = renderer.answer_prefix() if "labels" in readouts else ""
    return ModelSpec(
        name=name,
        context_length=getattr(config, "max_position_embeddings", None) or _OTHER_CONTEXT,
        labels=tuple(renderer.labels(prefix)) if "labels" in readouts else (),
        answer_prefix=prefix,
        readouts=frozenset(readouts),
    )


def _set_threads(threads: int) -> None:
    if threads:
        import torch

        torch.set_num_threads(threads)
