"""What the embedded model and served ones have in common: their description and their checks."""

import math
from collections.abc import Callable, Sequence

from reranker.errors import ConfigError, ContextOverflow, OutputError
from reranker.models.rendering import LABELS, PromptRenderer, RenderedPrompt
from reranker.ports import ModelSpec
from reranker.schema import Prompt, Readout, SlotScores

HIGHEST_LOGPROB = 1e-3
"""No log-probability is above 0, but for rounding in short number formats."""


def describe(
    renderer: PromptRenderer, *, name: str, context_length: int, adapter: str | None = None
) -> ModelSpec:
    """Return what a model can be asked, as far as its tokenizer and chat template decide it.

    Where no letter is a single token, written rankings still use the letters.

    Args:
        renderer: of the model.
        name: what results call it.
        context_length: prompt and answer together, in tokens.
        adapter: name of the LoRA adapter in use.
    """
    checks: dict[Readout, Callable[[], object]] = {
        "labels": renderer.answer_prefix,
        "verdict": renderer.verdict_token,
    }
    readouts: set[Readout] = {"generate"}
    for readout, check in checks.items():
        try:
            check()
            readouts.add(readout)
        except ConfigError:  # whoever asks for this readout is told what can be used
            continue
    prefix = renderer.answer_prefix() if "labels" in readouts else ""
    return ModelSpec(
        name=name,
        adapter=adapter,
        context_length=context_length,
        labels=tuple(renderer.labels(prefix) if "labels" in readouts else LABELS),
        answer_prefix=prefix,
        readouts=frozenset(readouts),
    )


def check_length(spec: ModelSpec, rendered: Sequence[RenderedPrompt], *, answer: int = 1) -> None:
    """Refuse prompts that leave no room for the answer.

    Args:
        spec: of the model.
        rendered: at least one prompt.
        answer: longest answer in tokens.

    Raises:
        ContextOverflow: naming the settings to lower.
    """
    longest = max(len(prompt.token_ids) for prompt in rendered)
    if longest + answer > spec.context_length:
        message = (
            f"{spec.name}: a prompt of {longest} tokens and the answer do not fit its context "
            f"of {spec.context_length}: lower ranking.window, ranking.card_tokens or "
            "profile.max_tokens"
        )
        raise ContextOverflow(message)


def slot_scores(name: str, prompt: Prompt, logprobs: Sequence[float]) -> SlotScores:
    """Return the scores of one prompt.

    Raises:
        OutputError: one is no finite number, or above every log-probability.
    """
    if not all(map(math.isfinite, logprobs)):
        message = f"{name}: it gave scores that are no finite numbers; try another dtype"
        raise OutputError(message, raw=str(logprobs))
    if max(logprobs, default=0.0) > HIGHEST_LOGPROB:
        message = f"{name}: it gave {max(logprobs):.3g} as a log-probability"
        raise OutputError(message, raw=str(logprobs))
    if prompt.readout == "verdict":
        return SlotScores(logprobs=tuple(logprobs))
    mass = min(math.fsum(map(math.exp, logprobs)), 1.0)
    return SlotScores(logprobs=tuple(logprobs), label_mass=mass)
