"""What a server serves, and how it can be asked: found out once, when the model is opened."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx

from reranker.errors import ConfigError, ModelUnavailable, OutputError
from reranker.models.rendering import LABELS, PromptRenderer
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


class Discovery:
    """Asks one server about itself. Blocks, as models are opened outside of any event loop."""

    def __init__(self, url: str, settings: ServerSettings) -> None:
        """Take the address of a server; nothing is asked yet."""
        self._url = base_url(url)
        self._settings = settings

    def ask(self, renderer: PromptRenderer) -> ServedModel:
        """Find out what is served and how it can be asked.

        Args:
            renderer: of the local copy of the model's tokenizer.

        Raises:
            ConfigError: it serves another model, or refuses the API key.
            ModelUnavailable: it cannot be reached, or fails.
        """
        served = self.served()
        name = self._settings.adapter or served.name
        self._compare_tokens(name, renderer)
        if self._takes_tokens(name, renderer):
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
            roots = {one.get("root") or name for name, one in bases.items()}
            if len(roots) != 1:
                raise ConfigError(f"{self._url} serves {listed}: name one by server.served_name")
            return next(iter(bases))
        if wanted not in bases:
            raise ConfigError(f"server.served_name = {wanted}: {self._url} serves {listed}")
        return wanted

    def _compare_tokens(self, name: str, renderer: PromptRenderer) -> None:
        text = renderer.sample(_SAMPLE)
        body = {"model": name, "prompt": text, "add_special_tokens": False}
        try:
            tokens = self._call("POST", "/tokenize", body).get("tokens")
        except (Refused, AttributeError):  # servers other than vLLM have no such address
            return
        if isinstance(tokens, list) and tokens != renderer.encode(text):
            raise ConfigError(
                f"{self._url} splits text into other tokens than model.name = {renderer.name} "
                f"does: set model.name to the model that it serves ({name})"
            )

    def _takes_tokens(self, name: str, renderer: PromptRenderer) -> bool:
        body = real_call(name, renderer)
        ids = body["logprob_token_ids"]
        prompt = renderer.probe(ids)
        try:
            answer = self._call("POST", "/v1/completions", body, patience=_FIRST_CALL_S)
            label_logprobs(answer, [prompt], [[str(token) for token in ids]])
        except (Refused, OutputError):
            return False
        return True

    def _top_logprobs(self, name: str) -> int:
        for count in _TOP_LOGPROBS:
            body = {
                "model": name,
                "messages": [{"role": "user", "content": "Answer with one letter."}],
                "max_tokens": 1,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": count,
            }
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

    def _client(self, patience: float = 0.0) -> httpx.Client:
        timeout = httpx.Timeout(max(self._settings.timeout_s, patience), connect=CONNECT_S)
        return httpx.Client(headers=authorization(self._settings), timeout=timeout, trust_env=False)


def real_call(name: str, renderer: PromptRenderer) -> dict[str, Any]:
    """Return a small completion of the kind that rankings need."""
    try:
        ids = list(renderer.labels(renderer.answer_prefix()).values())
    except ConfigError:  # no labels: any token shows whether the server can be asked this way
        ids = renderer.encode(LABELS[0])[:1]
    prompt = renderer.probe(ids)
    return label_request(name, [list(prompt.token_ids)], ids)


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
