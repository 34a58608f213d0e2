"""Proof that a server is fit for ranking: what works, what does not, and what to do about it."""

import json
import math
import time
from collections.abc import Awaitable, Callable
from typing import Literal

import httpx
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from reranker.errors import ModelError, OutputError, ShelfwiseError
from reranker.models.vllm.client import VLLMModel
from reranker.models.vllm.discovery import Discovery
from reranker.models.vllm.http import authorization, base_url
from reranker.ports import ModelSpec
from reranker.schema import VERDICT_SLOT, Prompt, Readout, TemplateRef, Value
from reranker.settings import ModelSettings, ServerSettings

Status = Literal["ok", "failed", "not offered"]
_SLOTS = 20
_AGREE = 0.05
_TEMPLATE = TemplateRef(name="check", version=1, language="en", sha256="")
_THINGS = ("oat milk", "green tea", "rye bread", "coffee beans", "honey", "goat cheese", "apples")
_SCHEMA = {
    "type": "object",
    "properties": {"best": {"type": "string", "enum": ["A", "B", "C"]}},
    "required": ["best"],
    "additionalProperties": False,
}


class Finding(Value):
    """One thing that was looked at.

    Attributes:
        detail: what was found, and where it failed the remedy.
    """

    name: str
    status: Status
    detail: str


class CheckReport(Value):
    """What a server was found fit for.

    Attributes:
        readouts: those that work.
    """

    url: str
    findings: tuple[Finding, ...]
    readouts: tuple[Readout, ...]

    @property
    def usable(self) -> bool:
        """Whether rankings can be asked of it in at least one way."""
        return bool(self.readouts)


class ServerCheck:
    """Looks at one server, thing by thing; what fails does not keep the rest from being tried."""

    def __init__(self, url: str, model: ModelSettings, settings: ServerSettings) -> None:
        """Name the server.

        Args:
            url: its base URL.
            model: whose tokenizer it is compared with.
            settings: served name, adapter and API key; the addresses are not used.
        """
        self._url = base_url(url)
        self._model_settings = model
        self._settings = settings.model_copy(update={"urls": (self._url,)})
        self._findings: list[Finding] = []
        self._works: list[Readout] = []

    async def run(self) -> CheckReport:
        """Look at everything; it takes some seconds, and needs an otherwise idle server."""
        model = self._open()
        if model is not None:
            try:
                await self._look(model)
            finally:
                await model.aclose()
        return CheckReport(
            url=self._url, findings=tuple(self._findings), readouts=tuple(self._works)
        )

    def _open(self) -> VLLMModel | None:
        try:
            health = httpx.get(f"{self._url}/health", timeout=10, trust_env=False)
            good = health.status_code == 200
            self._note("healthy", good, f"/health answers HTTP {health.status_code}")
            served = Discovery(self._url, self._settings).served()
            self._note("model", True, f"{served.name}, {served.context_length} tokens")
            adapters = ", ".join(served.adapters) or "none; add one with --adapter NAME=FOLDER"
            self._note("adapters", bool(served.adapters) or None, adapters)
            model = VLLMModel.load(self._model_settings, self._settings)
        except (ShelfwiseError, httpx.HTTPError) as error:
            name = ("healthy", "model", "adapters", "tokens")[len(self._findings)]
            remedy = "" if isinstance(error, ShelfwiseError) else ": is a server running there?"
            self._note(name, False, f"{type(error).__name__}: {error}{remedy}")
            return None
        self._note("tokens", True, f"the same as those of {self._model_settings.name}")
        return model

    async def _look(self, model: VLLMModel) -> None:
        spec = model.spec
        single = len(spec.labels) if "labels" in spec.readouts else 0
        enough = single >= _SLOTS
        shown = f"{single} single tokens behind {spec.answer_prefix!r}"
        self._note("label tokens", enough, shown if enough else f"{shown}: use another readout")
        await self._readout(model, "labels", self._labels)
        await self._readout(model, "verdict", self._verdict)
        await self._readout(model, "generate", self._generate)
        if "labels" in self._works:
            await self._try("prefix cache", self._cache, model)
            await self._try("latency", self._latency, model)

    async def _readout(
        self,
        model: VLLMModel,
        readout: Readout,
        check: Callable[[VLLMModel], Awaitable[tuple[bool | None, str]]],
    ) -> None:
        if readout not in model.spec.readouts:
            remedy = {
                "labels": "it takes no token-id prompts with logprob_token_ids: update vLLM",
                "verdict": "LoRA is on, or it lacks prompt_logprobs: serve a merged model by vLLM",
            }.get(readout, "")
            self._note(readout, None, remedy)
        elif await self._try(readout, check, model):
            self._works.append(readout)

    async def _try(
        self,
        name: str,
        check: Callable[[VLLMModel], Awaitable[tuple[bool | None, str]]],
        model: VLLMModel,
    ) -> bool:
        try:
            good, detail = await check(model)
        except (ModelError, OutputError) as error:
            good, detail = False, f"{type(error).__name__}: {error}"
        self._note(name, good, detail)
        return bool(good)

    async def _labels(self, model: VLLMModel) -> tuple[bool, str]:
        (scores,) = await model.read([_question(model.spec, "labels", "first")])
        mass = math.fsum(map(math.exp, scores.logprobs))
        detail = f"{len(scores.logprobs)} of {_SLOTS} log-probabilities, {mass:.3f} in all"
        return mass <= 1.001, detail

    async def _verdict(self, model: VLLMModel) -> tuple[bool, str]:
        prompts = [_question(model.spec, "verdict", name) for name in ("first", "second")]
        rounds = [await model.read(prompts) for _ in range(3)]
        values = [[value for one in scores for value in one.logprobs] for scores in rounds]
        gap = max(max(column) - min(column) for column in zip(*values, strict=True))
        detail = f"three times the same within {gap:.4f}"
        if gap <= _AGREE:
            return True, detail
        return False, f"{detail}: stale prompt_logprobs; start it with --no-enable-prefix-caching"

    async def _generate(self, model: VLLMModel) -> tuple[bool, str]:
        prompt = _question(model.spec, "generate", "first")
        (text,) = await model.write([prompt], schema=_SCHEMA, max_tokens=60)
        try:
            keeps = json.loads(text)["best"] in {"A", "B", "C"}
        except (ValueError, KeyError, TypeError):
            keeps = False
        remedy = "" if keeps else ": it ignores response_format; answers will need repairs"
        return keeps, f"wrote {text[:40]!r}{remedy}"

    async def _cache(self, model: VLLMModel) -> tuple[bool | None, str]:
        prompt = _question(model.spec, "labels", f"cache {time.monotonic_ns()}")
        gains = []
        for scope in ("first shopper", "first shopper", "second shopper"):
            before = self._counted("hits"), self._counted("queries")
            await model.read([prompt], scope=scope)
            found = self._counted("hits") - before[0]
            gains.append((found, self._counted("queries") - before[1]))
        if math.isnan(sum(map(sum, gains))):
            return None, "/metrics does not tell; shoppers' cached prompts may not be kept apart"
        _, (again, asked), (other, _) = gains
        detail = (
            f"{again:.0f} of {asked:.0f} tokens found again for a shopper, {other:.0f} for another"
        )
        if not again:
            return False, f"{detail}: start it with --enable-prefix-caching"
        return other == 0, detail if not other else f"{detail}: it ignores cache_salt; update vLLM"

    async def _latency(self, model: VLLMModel) -> tuple[bool, str]:
        name = f"latency {time.monotonic_ns()}"
        waits = []
        for seed in (name, name):
            started = time.perf_counter()
            await model.read([_question(model.spec, "labels", seed)], scope=name)
            waits.append(1000 * (time.perf_counter() - started))
        return True, f"{_SLOTS} products {waits[0]:.0f} ms, again {waits[1]:.0f} ms"

    def _counted(self, what: str) -> float:
        """Return how many tokens were looked up in the prefix cache, or found there; else NaN."""
        headers = authorization(self._settings)
        text = httpx.get(f"{self._url}/metrics", headers=headers, timeout=10, trust_env=False).text
        found = [
            float(line.rpartition(" ")[2])
            for line in text.splitlines()
            if line.startswith(f"vllm:prefix_cache_{what}_total")
        ]
        return sum(found) if found else math.nan

    def _note(self, name: str, good: bool | None, detail: str) -> None:
        status: Status = "not offered" if good is None else "ok" if good else "failed"
        self._findings.append(Finding(name=name, status=status, detail=detail))


def _question(spec: ModelSpec, readout: Readout, query: str) -> Prompt:
    """Return a prompt about twenty products, as long as real ones are."""
    slots = _SLOTS if readout == "verdict" else min(_SLOTS, len(spec.labels) or _SLOTS)
    labels = () if readout == "verdict" else spec.labels[:slots] or tuple("ABC")
    cards = [f"{_THINGS[i % len(_THINGS)]}, {_THINGS[i // 7]}, size {i + 1}" for i in range(slots)]
    if readout == "verdict":
        lines = [f"{card}. Bought next:{VERDICT_SLOT}" for card in cards]
    else:
        lines = [f"[{label}] {card}" for label, card in zip(labels, cards, strict=False)]
    task = "You rank the products of a shop. Answer with the label of the best one in brackets."
    question = HumanMessage("\n".join([f"The shopper searches for {query}.", *lines]))
    begun = readout == "labels" and spec.answer_prefix
    answer = (AIMessage(spec.answer_prefix),) if begun else ()
    return Prompt(
        messages=(SystemMessage(task), question, *answer),
        order=tuple(range(slots)),
        labels=labels,
        readout=readout,
        template=_TEMPLATE,
        token_count=0,
    )
