"""What a server serves, and how it can be asked: found out when the model is opened.

A server that was away is compared once more before it is asked again, as it may have come back with
another model or other options.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import httpx

from reranker.errors import ConfigError, ModelUnavailable, OutputError
from reranker.models.rendering import LABELS, PromptRenderer, RenderedPrompt
from reranker.models.vllm.answers import label_logprobs
from reranker.models.vllm.http import CONNECT_S, Refused, authorization, base_url, content
from reranker.schema import Value
from reranker.settings import ServerSettings

OTHER_CONTEXT = 4096
"""Context length of servers that do not tell theirs."""

_FIRST_CALL_S = 90.0
_TOP_LOGPROBS = (128, 64, 20, 5)
_SAMPLE = "Oat milk 1,5 l – naïve café 燕麦奶 #12\n\n[A] ‘vegan’  (€2.49)"


class ServedModel(Value):
    """One model at one server.

    Attributes:
        name: by which requests ask for it.
        adapters: names of the LoRA adapters that the server has loaded.
        lora: whether it is set up for adapters at all, loaded or not.
        context_length: prompt and answer together, in tokens.
        route: ``tokens``: it takes prompts as token ids and tells the log-probability of any
            token, as vLLM does. ``chat``: neither.
        top_logprobs: most alternatives that it tells by the ``chat`` route; 0 for ``tokens``.
    """

    name: str
    adapters: tuple[str, ...] = ()
    lora: bool = False
    context_length: int
    route: Literal["tokens", "chat"] = "tokens"
    top_logprobs: int = 0

    def check_like(self, first: "ServedModel", url: str) -> None:
        """Check that a server can be asked in all the ways that were settled on at the start.

        Args:
            first: what was settled on.
            url: of the server that serves this model.

        Raises:
            ConfigError: saying in what it differs.
        """
        differs = ""
        if self.name != first.name:
            differs = f"serves {self.name} and not {first.name}"
        elif self.context_length < first.context_length:
            differs = f"has a context of {self.context_length} tokens, below {first.context_length}"
        elif first.route == "tokens" and self.route != "tokens":
            differs = "takes no token-id prompts with logprob_token_ids"
        elif first.route == "tokens" and self.lora and not first.lora:
            differs = "is set up for LoRA, which the verdict readout can kill"
        elif self.route == "chat" and self.top_logprobs < first.top_logprobs:
            differs = f"tells {self.top_logprobs} top_logprobs, below {first.top_logprobs}"
        if differs:
            raise ConfigError(
                f"server.urls: {url} {differs}, unlike at the start: start it as it was, or start "
                "Shelfwise anew"
            )


class TokenSample(Value):
    """What servers are compared by, made beforehand: no tokenizer can be used in several threads.

    Attributes:
        model: ``model.name``, for messages.
        text: a rendered chat.
        tokens: its ids by the local tokenizer.
        probe: a short question with all labels, or with any token where there are none.
    """

    model: str
    text: str
    tokens: tuple[int, ...]
    probe: RenderedPrompt

    @classmethod
    def of(cls, renderer: PromptRenderer) -> Self:
        """Make it with the local copy of the model's tokenizer."""
        try:
            ids = list(renderer.labels(renderer.answer_prefix()).values())
        except ConfigError:  # any token shows whether the server can be asked this way
            ids = renderer.encode(LABELS[0])[:1]
        text = renderer.sample(_SAMPLE)
        return cls(
            model=renderer.name,
            text=text,
            tokens=tuple(renderer.encode(text)),
            probe=renderer.probe(ids),
        )

    def request(self, name: str) -> dict[str, Any]:
        """Return a small completion of the kind that rankings need."""
        return label_request(name, [self.probe.token_ids], self.probe.label_ids)


class Discovery:
    """Asks one server about itself. Blocks, as models are opened outside of any event loop."""

    def __init__(self, url: str, settings: ServerSettings) -> None:
        """Take the address of a server; nothing is asked yet."""
        self._url = base_url(url)
        self._settings = settings

    def ask(self, sample: TokenSample) -> ServedModel:
        """Find out what is served and how it can be asked.

        Args:
            sample: of the local copy of the model's tokenizer.

        Raises:
            ConfigError: it serves another model, or refuses the API key.
            ModelUnavailable: it cannot be reached, or fails.
        """
        served = self.served()
        name = self._settings.adapter or served.name
        self._compare_tokens(name, sample)
        if self._takes_tokens(name, sample):
            return served
        tops = self._top_logprobs(name)
        return served.model_copy(update={"route": "chat", "top_logprobs": tops})

    def served(self) -> ServedModel:
        """Return the model and the adapters that the server lists.

        Raises:
            ConfigError: the names that the settings give are not among them.
            ModelUnavailable: it cannot be reached, or lists none.
        """
        try:
            entries = self._call("GET", "/v1/models")["data"]
            bases = {str(one["id"]): one for one in entries if not one.get("parent")}
            adapters = tuple(str(one["id"]) for one in entries if one.get("parent"))
        except (Refused, KeyError, TypeError, AttributeError) as error:
            message = f"{self._url}: it lists no models at /v1/models: is this a vLLM server?"
            raise ModelUnavailable(message) from error
        name = self._base_name(bases)
        wanted = self._settings.adapter
        if wanted is not None and wanted not in adapters:
            raise ConfigError(
                f"server.adapter = {wanted}: {self._url} has "
                f"{', '.join(adapters) or 'no adapter'}: start it with "
                f"shelfwise llm serve --adapter {wanted}=FOLDER"
            )
        length = bases[name].get("max_model_len")
        return ServedModel(
            name=name,
            adapters=adapters,
            lora=bool(adapters) or self._is_set_up_for_lora(),
            context_length=length if isinstance(length, int) else OTHER_CONTEXT,
        )

    def _is_set_up_for_lora(self) -> bool:
        try:
            with self._client() as client:
                return "vllm:lora_requests_info" in client.get(f"{self._url}/metrics").text
        except httpx.HTTPError:
            return False

    def _base_name(self, bases: Mapping[str, Mapping[str, Any]]) -> str:
        listed = ", ".join(bases) or "no model"
        wanted = self._settings.served_name
        if wanted is None:
            roots = {str(one.get("root") or name) for name, one in bases.items()}
            if len(roots) != 1:
                raise ConfigError(f"{self._url} serves {listed}: name one by server.served_name")
            return next(iter(bases))
        if wanted not in bases:
            raise ConfigError(f"server.served_name = {wanted}: {self._url} serves {listed}")
        return wanted

    def _compare_tokens(self, name: str, sample: TokenSample) -> None:
        body = {"model": name, "prompt": sample.text, "add_special_tokens": False}
        try:
            tokens = self._call("POST", "/tokenize", body).get("tokens")
        except (Refused, AttributeError):  # servers other than vLLM have no such address
            return
        if isinstance(tokens, list) and tokens != list(sample.tokens):
            raise ConfigError(
                f"{self._url} splits text into other tokens than model.name = {sample.model} "
                f"does: set model.name to the model that it serves ({name})"
            )

    def _takes_tokens(self, name: str, sample: TokenSample) -> bool:
        body = sample.request(name)
        ids = [str(token) for token in sample.probe.label_ids]
        try:
            answer = self._call("POST", "/v1/completions", body, patience=_FIRST_CALL_S)
            label_logprobs(answer, [sample.probe], [ids])
        except (Refused, OutputError):
            return False
        return True

    def _top_logprobs(self, name: str) -> int:
        for count in _TOP_LOGPROBS:
            body = chat_request(name) | {"logprobs": True, "top_logprobs": count}
            try:
                answer = self._call("POST", "/v1/chat/completions", body, patience=_FIRST_CALL_S)
                first = answer["choices"][0]["logprobs"]["content"][0]
                return len(first["top_logprobs"])
            except (Refused, KeyError, IndexError, TypeError):
                continue
        return 0

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        patience: float = 0.0,
    ) -> Any:
        started = time.monotonic()
        try:
            with self._client(patience) as client:
                return content(client.request(method, self._url + path, json=body))
        except httpx.HTTPError as error:
            waited = time.monotonic() - started
            message = (
                f"{self._url}: no answer from {path} after {waited:.1f} s ({type(error).__name__} "
                f"{error}): start a server with shelfwise llm serve, or correct server.urls"
            )
            raise ModelUnavailable(message, retryable=True) from error
        except OutputError as error:
            raise ModelUnavailable(str(error), retryable=True) from error

    def _client(self, patience: float = 0.0) -> httpx.Client:
        timeout = httpx.Timeout(max(self._settings.timeout_s, patience), connect=CONNECT_S)
        return httpx.Client(headers=authorization(self._settings), timeout=timeout, trust_env=False)


def chat_request(name: str) -> dict[str, Any]:
    """Return a chat completion of one token."""
    return {
        "model": name,
        "messages": [{"role": "user", "content": "Answer with one letter."}],
        "max_tokens": 1,
        "temperature": 0,
    }


def label_request(
    name: str, prompts: Sequence[Sequence[int]], label_ids: Sequence[int]
) -> dict[str, Any]:
    """Return the completion request that reads log-probabilities behind token-id prompts."""
    return {
        "model": name,
        "prompt": [list(prompt) for prompt in prompts],
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": 1,
        "logprob_token_ids": list(label_ids),
        "return_tokens_as_token_ids": True,
    }
