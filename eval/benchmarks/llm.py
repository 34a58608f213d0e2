"""What a vLLM server gives through each readout, beside other libraries and the engine's limit.

All of it runs against one server, in one run, on the same lists of real products.
"""

import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import anyio
import httpx
import numpy as np
from pydantic import Field

from eval.benchmarks.ranking_lists import RankingList
from reranker.errors import ConfigError
from reranker.listwise import ListwiseRanker
from reranker.models.rendering import PromptRenderer, load_tokenizer
from reranker.ports import LanguageModel, Progress, no_progress
from reranker.prompting import PromptBudget, build_prompt, draft_prompt
from reranker.schema import Candidate, Readout, Value
from reranker.settings import RankingSettings

PEERS = {"langchain": "LangChain LLMListwiseRerank", "rank_llm": "rank_llm RankGPT"}
_PROFILE_TOKENS = 160
_WAYS: tuple[tuple[Readout, int], ...] = (
    ("labels", 0),
    ("verdict", 0),
    ("generate", 0),
    ("generate", 3),
)


class Rate(Value):
    """How many lists a second one way of ranking gives under load.

    Attributes:
        concurrency: lists under way at a time.
        complete: lists that came back as a whole order; with ``named``, cut to those that the model
            itself ordered.
        seconds: wall-clock time of all of them.
        errors: what a peer raised, by class.
        named: mean share of a list that the model's reply named, where a peer fills up whatever the
            model left out, and that can be seen.
        reply_tokens: mean length of these replies.
    """

    name: str
    concurrency: int
    lists: int
    complete: int
    seconds: float
    errors: Mapping[str, int] = Field(default_factory=dict)
    named: float | None = None
    reply_tokens: float | None = None

    @property
    def per_second(self) -> float:
        """Lists ranked a second, whatever became of them."""
        return self.lists / self.seconds

    @property
    def complete_per_second(self) -> float:
        """Lists a second that the model ordered as a whole."""
        return self.complete / self.seconds


class PrefixCache(Value):
    """What a shopper's second search gains from the first.

    Attributes:
        hit_rate: share of the second search's prompt tokens that the server had kept.
        first_ms: median latency of the first search, in milliseconds.
        second_ms: of the second, with another query.
        repeated_ms: of the same search again.
    """

    shoppers: int
    hit_rate: float
    first_ms: float
    second_ms: float
    repeated_ms: float
    repeated_hit_rate: float


class LLMBenchmark(Value):
    """One run against one server.

    Attributes:
        list_tokens: mean length of a `labels` prompt, in tokens.
        prefill_share: lists a second of `labels` through our path over those of bare requests
            with the same token ids, each the median of alternating runs.
    """

    model: str
    list_tokens: float
    rates: tuple[Rate, ...]
    prefill_share: float
    prefill_tokens_per_second: float
    prefix_cache: PrefixCache


async def measure(
    lists: Sequence[RankingList],
    open_model: Callable[[], LanguageModel],
    *,
    url: str,
    folder: Path,
    settings: RankingSettings,
    peers_python: Path | None,
    concurrency: int = 8,
    progress: Progress = no_progress,
) -> LLMBenchmark:
    """Measure everything; see `LLMBenchmark`.

    Args:
        lists: all are ranked by what reads scores under load, a part of them by all else.
        open_model: opens a client of the server; each has prefix-cache salts of its own, so that no
            measurement finds what another has left.
        url: of the server.
        folder: of the model that it serves, for its tokenizer.
        settings: of ranking; one shuffle and one window are taken.
        peers_python: interpreter of the peers' environment; None leaves them out.
        concurrency: lists under way at a time, for the rates under load.
        progress: told what is being done.
    """
    settings = settings.model_copy(update={"shuffles": 1, "window": 20, "min_label_mass": 0.0})
    size = max(concurrency, len(lists) // 4)
    rates: list[Rate] = []
    for number, together in enumerate(dict.fromkeys((1, concurrency))):
        # Other lists for each: peers send no salts, and would find their prompts cached.
        part = lists[number * size : (number + 1) * size] or lists[:size]
        for readout, reasons in _WAYS:
            how = settings.model_copy(update={"readout": readout, "reasons": reasons})
            name = f"{readout}, {reasons} reasons" if readout == "generate" else readout
            taken = lists if together > 1 and readout != "generate" else part
            rates.append(await _rate(name, taken, open_model, how, together, progress))
        for peer, name in PEERS.items() if peers_python else ():
            assert peers_python is not None
            progress(name, 0, len(part))
            rates.append(await _peer(peer, name, part, peers_python, url, together))
            progress(name, len(part), len(part))
    model = open_model()
    served = model.spec.name
    shares, speeds, tokens = await _prefill(
        lists, open_model, url, folder, settings, concurrency, progress
    )
    return LLMBenchmark(
        model=served,
        list_tokens=tokens,
        rates=tuple(rates),
        prefill_share=shares,
        prefill_tokens_per_second=speeds,
        prefix_cache=await _prefix_cache(lists, open_model(), url, settings, progress),
    )


async def _rate(
    name: str,
    lists: Sequence[RankingList],
    open_model: Callable[[], LanguageModel],
    settings: RankingSettings,
    concurrency: int,
    progress: Progress,
) -> Rate:
    model = open_model()
    ranker = ListwiseRanker(model, settings, profile_tokens=_PROFILE_TOKENS)
    complete = 0

    async def one(entry: RankingList) -> None:
        nonlocal complete
        judged = await ranker.judge(entry.request, entry.profile, entry.candidates)
        complete += judged.outcome != "fallback" and None not in judged.places

    seconds = await _under_load(name, lists, one, concurrency, progress)
    await model.aclose()
    return Rate(
        name=name, concurrency=concurrency, lists=len(lists), complete=complete, seconds=seconds
    )


async def _under_load(
    name: str,
    lists: Sequence[Any],
    one: Callable[[Any], Awaitable[None]],
    concurrency: int,
    progress: Progress,
) -> float:
    """Do something with every entry, so many at a time, and return the seconds taken."""
    limit = anyio.CapacityLimiter(concurrency)
    done = 0
    progress(name, 0, len(lists))

    async def limited(entry: Any) -> None:
        nonlocal done
        async with limit:
            await one(entry)
        done += 1
        progress(name, done, len(lists))

    started = time.monotonic()
    async with anyio.create_task_group() as group:
        for entry in lists:
            group.start_soon(limited, entry)
    return time.monotonic() - started


async def _peer(
    peer: str,
    name: str,
    lists: Sequence[RankingList],
    python: Path,
    url: str,
    concurrency: int,
) -> Rate:
    """Let another library rank the lists, in its own environment.

    Raises:
        ConfigError: it cannot run there.
    """
    entries = [
        {
            "query": entry.request.query,
            "passages": [_passage(candidate) for candidate in entry.candidates],
        }
        for entry in lists
    ]
    script = Path(str(files("eval.benchmarks"))) / "peers" / "rankers.py"
    served = httpx.get(f"{url}/v1/models", trust_env=False).json()["data"][0]["id"]
    command = [str(python), str(script), peer, url, served, str(concurrency)]
    result = await anyio.run_process(
        command, input=json.dumps(entries).encode(), check=False, stderr=subprocess.PIPE
    )
    if result.returncode:
        tail = result.stderr.decode(errors="replace")[-600:]
        raise ConfigError(f"{name} cannot run in {python}: {tail}")
    answer = json.loads(result.stdout.decode().strip().splitlines()[-1])
    complete = sum(
        order is not None and sorted(order) == list(range(len(entry.candidates)))
        for order, entry in zip(answer["orders"], lists, strict=True)
    )
    replies = answer["replies"]
    size = len(lists[0].candidates)
    if replies:
        complete = min(complete, sum(reply["named"] == size for reply in replies))
    return Rate(
        name=name,
        concurrency=concurrency,
        lists=len(lists),
        complete=complete,
        seconds=answer["seconds"],
        errors=answer["errors"],
        named=float(np.mean([reply["named"] / size for reply in replies])) if replies else None,
        reply_tokens=float(np.mean([reply["tokens"] for reply in replies])) if replies else None,
    )


def _passage(candidate: Candidate) -> str:
    product = candidate.product
    price = f"{product.price:.2f} {product.currency or ''}" if product.price is not None else ""
    parts = (product.title, product.brand, (product.category or "").rsplit(">", 1)[-1], price)
    return " | ".join(part.strip() for part in parts if part)


async def _prefill(
    lists: Sequence[RankingList],
    open_model: Callable[[], LanguageModel],
    url: str,
    folder: Path,
    settings: RankingSettings,
    concurrency: int,
    progress: Progress,
) -> tuple[float, float, float]:
    """Return `labels`' share of bare prefill, bare tokens a second, and tokens a list.

    Bare requests carry the same token ids and ask for one token and nothing else. Both run twice,
    in the order A B B A, so that a drift of the machine falls on both.
    """
    model = open_model()
    renderer = PromptRenderer(load_tokenizer(folder))
    prompts = [_token_ids(entry, model, renderer, settings) for entry in lists]
    await model.aclose()
    tokens = sum(map(len, prompts))
    served = httpx.get(f"{url}/v1/models", trust_env=False).json()["data"][0]["id"]
    ours: list[float] = []
    bare: list[float] = []
    for number, mine in enumerate((False, True, True, False)):
        if mine:
            rate = await _rate("labels again", lists, open_model, settings, concurrency, progress)
            ours.append(rate.seconds)
        else:
            salt = f"bare-{time.monotonic_ns()}-{number}"
            bare.append(await _bare(prompts, url, served, salt, concurrency, progress))
    share = float(np.median(bare) / np.median(ours))
    return share, tokens / float(np.median(bare)), tokens / len(lists)


async def _bare(
    prompts: Sequence[Sequence[int]],
    url: str,
    served: str,
    salt: str,
    concurrency: int,
    progress: Progress,
) -> float:
    async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:

        async def one(ids: Sequence[int]) -> None:
            body = {
                "model": served,
                "prompt": list(ids),
                "max_tokens": 1,
                "temperature": 0,
                "cache_salt": salt,
            }
            (await client.post("/v1/completions", json=body)).raise_for_status()

        return await _under_load("bare prefill", prompts, one, concurrency, progress)


def _token_ids(
    entry: RankingList, model: LanguageModel, renderer: PromptRenderer, settings: RankingSettings
) -> tuple[int, ...]:
    draft = draft_prompt(
        entry.request,
        entry.profile.summary if entry.profile else None,
        entry.candidates,
        language="en",
        readout="labels",
        spec=model.spec,
        tokenizer=model.tokenizer,
        budget=PromptBudget(card=settings.card_tokens, profile=_PROFILE_TOKENS),
    )
    prompt = build_prompt(draft, range(len(entry.candidates)))
    return renderer.render(prompt).token_ids


async def _prefix_cache(
    lists: Sequence[RankingList],
    model: LanguageModel,
    url: str,
    settings: RankingSettings,
    progress: Progress,
) -> PrefixCache:
    """Search twice as each shopper, one search at a time, with different queries."""
    ranker = ListwiseRanker(model, settings, profile_tokens=_PROFILE_TOKENS)
    known = [entry for entry in lists if entry.profile is not None]
    firsts: list[float] = []
    seconds: list[float] = []
    again: list[float] = []
    hits: list[float] = []
    repeats: list[float] = []

    async def timed(entry: RankingList, first: RankingList) -> tuple[float, float]:
        request = entry.request.model_copy(update={"user_id": first.request.user_id})
        before = await _cache_counters(url)
        started = time.monotonic()
        await ranker.judge(request, first.profile, entry.candidates)
        taken = (time.monotonic() - started) * 1000
        after = await _cache_counters(url)
        asked = after[1] - before[1]
        return taken, (after[0] - before[0]) / asked if asked else 0.0

    for place, first in enumerate(known):
        other = known[(place + 1) % len(known)]
        firsts.append((await timed(first, first))[0])
        for entry, times, shares in ((other, seconds, hits), (other, again, repeats)):
            taken, share = await timed(entry, first)
            times.append(taken)
            shares.append(share)
        progress("second searches", place + 1, len(known))
    await model.aclose()
    return PrefixCache(
        shoppers=len(known),
        hit_rate=float(np.mean(hits)),
        first_ms=float(np.median(firsts)),
        second_ms=float(np.median(seconds)),
        repeated_ms=float(np.median(again)),
        repeated_hit_rate=float(np.mean(repeats)),
    )


async def _cache_counters(url: str) -> tuple[float, float]:
    """Return the tokens that the server found in its prefix cache, and those that it looked up."""
    async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
        text = (await client.get(f"{url}/metrics")).text
    totals = {"hits": 0.0, "queries": 0.0}
    for line in text.splitlines():
        for name in totals:
            if line.startswith(f"vllm:prefix_cache_{name}_total"):
                totals[name] += float(line.rsplit(" ", 1)[1])
    return totals["hits"], totals["queries"]
