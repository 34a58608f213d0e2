"""What can be asked of the servers together, and how one shows that it still fits in."""

from collections.abc import Mapping

from reranker.errors import ConfigError
from reranker.models.asking import describe
from reranker.models.rendering import LABELS, PromptRenderer
from reranker.models.vllm.discovery import Discovery, ServedModel, TokenSample, chat_request
from reranker.models.vllm.pool import RealCall
from reranker.models.vllm.server import Probe
from reranker.ports import ModelSpec
from reranker.settings import ServerSettings

_FEWEST_LABELS = 20


def offered(served: ServedModel, renderer: PromptRenderer, adapter: str | None) -> ModelSpec:
    """Return what a model can be asked by the servers' route, and with which labels."""
    spec = describe(
        renderer, name=renderer.name, context_length=served.context_length, adapter=adapter
    )
    if served.route == "tokens":
        refused = {"verdict"} if served.lora else set()
        return spec.model_copy(update={"readouts": spec.readouts - refused})
    # Most servers cannot go on with an answer that has begun, so labels stand at its very start.
    labels = _chat_labels(served, renderer)
    update = {
        "labels": labels or tuple(LABELS),
        "answer_prefix": "",
        "readouts": frozenset({"labels", "generate"} if labels else {"generate"}),
    }
    return spec.model_copy(update=update)


def _chat_labels(served: ServedModel, renderer: PromptRenderer) -> tuple[str, ...]:
    """Return the labels that are all told, at best; none where those would be too few.

    A server tells its likeliest tokens only: with fewer than the usual window's number of them
    labels would be missing from nearly every answer.
    """
    try:
        labels = tuple(renderer.labels(""))[: served.top_logprobs]
    except ConfigError:
        labels = ()
    return labels if len(labels) >= _FEWEST_LABELS else ()


def small_call(served: ServedModel, sample: TokenSample, model: str) -> RealCall:
    """Return the call by which a server shows that it answers."""
    if served.route == "chat":
        return RealCall(path="/v1/chat/completions", body=chat_request(model))
    return RealCall(path="/v1/completions", body=sample.request(model))


def comparison(served: ServedModel, sample: TokenSample, settings: ServerSettings) -> Probe:
    """Return the look whether a server that is back serves what was settled on at the start."""

    def compare(url: str) -> None:
        Discovery(url, settings).ask(sample).check_like(served, url)

    return compare


def common(found: Mapping[str, ServedModel]) -> ServedModel:
    """Return what can be relied on at every server."""
    names = {one.name for one in found.values()}
    if len(names) > 1:
        listed = "; ".join(f"{url}: {one.name}" for url, one in found.items())
        raise ConfigError(f"server.urls: the servers serve different models: {listed}")
    routes = {one.route for one in found.values()}
    first = next(iter(found.values()))
    return first.model_copy(
        update={
            "context_length": min(one.context_length for one in found.values()),
            "route": "tokens" if routes == {"tokens"} else "chat",
            "lora": any(one.lora for one in found.values()),
            "top_logprobs": min(one.top_logprobs for one in found.values()),
        }
    )
