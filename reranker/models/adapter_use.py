"""What an adapter may be used for: the model, readout and templates that it was tuned with."""

from collections.abc import Mapping, Sequence

from prompts import TemplateError, load_template
from reranker.errors import ConfigError
from reranker.models.adapter import AdapterCard, BaseModelCard
from reranker.models.rendering import PromptRenderer
from reranker.ports import ModelSpec
from reranker.schema import Prompt, TemplateRef


def tuned_spec(spec: ModelSpec, card: AdapterCard) -> ModelSpec:
    """Return what a model with an adapter can be asked: only what it was tuned for."""
    only = {"adapter": card.identity, "readouts": spec.readouts & {card.readout}}
    return spec.model_copy(update=only)


def check_base(card: AdapterCard, base: BaseModelCard) -> None:
    """Refuse an adapter that was made for another model.

    Raises:
        ConfigError: naming both.
    """
    if card.base.fingerprint != base.fingerprint:
        message = (
            f"adapter {card.name}: it was tuned for {card.base.name} "
            f"({card.base.fingerprint[:12]}) and model.name = {base.name} has other weights "
            f"({base.fingerprint[:12]}): set model.name = {card.base.name}, or tune again"
        )
        raise ConfigError(message)


def check_use(card: AdapterCard, answers: Mapping[str, Sequence[str]]) -> None:
    """Refuse an adapter whose prompts or answers this release would write in another way.

    Args:
        card: of the adapter.
        answers: how the model answers each readout; see `readout_answers`.

    Raises:
        ConfigError: naming what differs, and what to do.
    """
    if card.readout not in answers:
        message = (
            f"adapter {card.name}: it was tuned for the {card.readout} readout, by which the model "
            "cannot be asked here: serve a model for verdict without --lora and --enable-lora, and "
            "by vLLM's own completions"
        )
        raise ConfigError(message)
    if tuple(answers[card.readout]) != card.answer:
        message = (
            f"adapter {card.name}: it was tuned for {card.readout} answers "
            f"{', '.join(map(repr, card.answer[:4]))} and the model gives others here: tune again"
        )
        raise ConfigError(message)
    for template in card.templates:
        _check_template(card, template)


def check_prompt(card: AdapterCard, prompt: Prompt) -> None:
    """Refuse a prompt of another kind than the adapter has learnt.

    A language that it was not tuned in is let through: its template has the same version.

    Raises:
        ConfigError: readout, template or its version differ.
    """
    asked = prompt.template
    if prompt.readout != card.readout:
        message = (
            f"adapter {card.name}: it was tuned for the {card.readout} readout: set "
            f"ranking.readout = {card.readout}, or model.adapter = none"
        )
        raise ConfigError(message)
    tuned = {one.language: one for one in card.templates}
    same = tuned.get(asked.language)
    versions = {(one.name, one.version) for one in card.templates}
    if (asked.name, asked.version) not in versions or (same and same.sha256 != asked.sha256):
        raise _other_template(card, f"{asked.name} version {asked.version}")


def readout_answers(renderer: PromptRenderer, spec: ModelSpec) -> dict[str, tuple[str, ...]]:
    """Return what is read of a model by readout: the verdict's token, or the labels."""
    answers = {"labels": spec.labels} if "labels" in spec.readouts else {}
    if "verdict" in spec.readouts:
        answers["verdict"] = (renderer.decode([renderer.verdict_token()]),)
    return answers


def _check_template(card: AdapterCard, template: TemplateRef) -> None:
    named = f"{template.name}.v{template.version}.{template.language}"
    try:
        present = load_template(template.name, template.language, template.version)
    except TemplateError as error:
        raise _other_template(card, f"no {named}") from error
    if present.sha256 != template.sha256:
        raise _other_template(card, f"another text of {named}")


def _other_template(card: AdapterCard, found: str) -> ConfigError:
    tuned = ", ".join(f"{t.name} version {t.version} in {t.language}" for t in card.templates)
    return ConfigError(
        f"adapter {card.name}: it was tuned with the template {tuned}, and here is {found}: "
        "tune again, or use the release that it was tuned with"
    )
