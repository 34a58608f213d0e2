"""Adapters of a vLLM server that runs: loaded, swapped and unloaded while it answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import httpx

from reranker.errors import ConfigError, ModelUnavailable
from reranker.models.adapter import AdapterCard, read_card
from reranker.models.adapter_use import check_use, readout_answers
from reranker.models.asking import describe
from reranker.models.rendering import PromptRenderer, load_tokenizer
from reranker.models.vllm.beside import rank_beside
from reranker.models.vllm.discovery import Discovery, TokenSample
from reranker.models.vllm.http import Refused, authorization, base_url, content
from reranker.models.weights import resolve_tokenizer
from reranker.quiet import quiet_transformers
from reranker.schema import Value
from reranker.settings import ServerSettings

_SECONDS = 120.0  # the weights are read before the server answers


class LoadedAdapter(Value):
    """What was done.

    Attributes:
        name: by which clients ask for the adapter (``server.adapter``).
        done: ``swapped`` where the server had another one of this name.
        identity: of the adapter; None where it was unloaded.
    """

    url: str
    name: str
    done: Literal["loaded", "swapped", "unloaded"]
    identity: str | None = None


def load_adapter(
    url: str, folder: Path, settings: ServerSettings, *, base: str, name: str | None = None
) -> LoadedAdapter:
    """Load an adapter into a server that runs, in place of one of the same name.

    Requests under way are answered with what was loaded when they came. vLLM keeps what it has
    cached of prompts by an adapter's name and path: weights that have changed need another folder,
    as each run of tuning has.

    Args:
        url: of the server.
        folder: of the adapter, on the server's machine under the same path.
        settings: API key.
        base: name of the model that the server runs, as ``model.name`` gives it.
        name: by which clients will ask for it; None takes the adapter's own.

    Raises:
        ConfigError: the adapter cannot be served in this way, or not beside this model; the message
            says what can be done.
        DataError: the adapter is damaged.
        ModelUnavailable: the server cannot be reached, or refuses.
    """
    card = read_card(folder)
    _check(card, folder, base)
    with quiet_transformers():
        renderer = PromptRenderer(load_tokenizer(resolve_tokenizer(base)), name=base)
    spec = describe(renderer, name=base, context_length=1)
    check_use(card, readout_answers(renderer, spec))
    asked = name or card.name
    discovery = Discovery(url, settings.model_copy(update={"adapter": None}))
    present = discovery.ask(TokenSample.of(renderer))
    if asked == present.name:
        raise ConfigError(f"--name {asked}: the model itself is called so there: choose another")
    swapped = asked in present.adapters
    body = {"lora_name": asked, "lora_path": str(folder.resolve()), "load_inplace": swapped}
    _post(url, "/v1/load_lora_adapter", body, settings)
    done: Literal["swapped", "loaded"] = "swapped" if swapped else "loaded"
    return LoadedAdapter(url=base_url(url), name=asked, done=done, identity=card.identity)


def unload_adapter(url: str, name: str, settings: ServerSettings) -> LoadedAdapter:
    """Take an adapter out of a server that runs.

    Raises:
        ConfigError: there is none of this name, or the server takes none out.
        ModelUnavailable: the server cannot be reached, or refuses.
    """
    present = Discovery(url, settings.model_copy(update={"adapter": None})).served()
    if name not in present.adapters:
        there = ", ".join(present.adapters) or "none"
        raise ConfigError(f"adapter {name!r}: {base_url(url)} has no such one; there are {there}")
    _post(url, "/v1/unload_lora_adapter", {"lora_name": name}, settings)
    return LoadedAdapter(url=base_url(url), name=name, done="unloaded")


def _check(card: AdapterCard, folder: Path, base: str) -> None:
    rank_beside(folder)
    if card.base.name != base:
        raise ConfigError(
            f"adapter {card.name}: it was tuned for {card.base.name} and model.name is {base}: "
            "name the model that the server runs"
        )


def _post(url: str, path: str, body: Mapping[str, Any], settings: ServerSettings) -> None:
    root = base_url(url)
    try:
        with httpx.Client(trust_env=False, timeout=_SECONDS) as client:
            response = client.post(f"{root}{path}", json=body, headers=authorization(settings))
        if response.status_code == 404 and body["lora_name"] not in response.text:
            raise ConfigError(
                f"{root}: it takes no adapters while it runs: start it with "
                "shelfwise llm serve --lora"
            )
        if response.status_code >= 400:
            content(response)
    except httpx.HTTPError as error:
        raise ModelUnavailable(f"{root}: {type(error).__name__}: {error}") from error
    except Refused as error:
        raise ModelUnavailable(f"{root}: it refuses the adapter: {error}") from error
