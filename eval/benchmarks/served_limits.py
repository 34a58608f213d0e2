"""How near ranking comes to what a vLLM server can do: bare prefill, and its prefix cache."""

import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import numpy as np

from eval.benchmarks.ranking_lists import RankingList
from eval.benchmarks.served_rates import (
    PROFILE_TOKENS,
    OpenModel,
    ServerTokens,
    own_rate,
    under_load,
)
from reranker.cards import Told
from reranker.listwise import ListwiseRanker
from reranker.models.rendering import PromptRenderer, load_tokenizer
from reranker.ports import LanguageModel, Progress
from reranker.prompting import PromptBudget, build_prompt, draft_prompt
from reranker.schema import Value
from reranker.settings import RankingSettings


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


class PrefillShare(Value):
    """How much of the engine's prefill a way of ranking reaches.

    Attributes:
        share: lists a second of `labels` through our path over those of bare requests with the
            same token ids, each the median of alternating runs.
        tokens_per_second: of bare requests.
        list_tokens: mean length of a `labels` prompt, in tokens.
    """

    share: float
    tokens_per_second: float
    list_tokens: float


async def prefill_share(
    lists: Sequence[RankingList],
    open_model: OpenModel,
    *,
    url: str,
    folder: Path,
    settings: RankingSettings,
    concurrency: int,
    progress: Progress,
) -> PrefillShare:
    """Measure `labels` beside bare prefill.

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
            rate = await own_rate(
                "labels again",
                lists,
                open_model,
                settings,
                url=url,
                concurrency=concurrency,
                progress=progress,
            )
            ours.append(rate.seconds)
        else:
            salt = f"bare-{time.monotonic_ns()}-{number}"
            bare.append(await _bare(prompts, url, served, salt, concurrency, progress))
    return PrefillShare(
        share=float(np.median(bare) / np.median(ours)),
        tokens_per_second=tokens / float(np.median(bare)),
        list_tokens=tokens / len(lists),
    )


async def prefix_cache(
    lists: Sequence[RankingList],
    model: LanguageModel,
    *,
    url: str,
    settings: RankingSettings,
    progress: Progress,
) -> PrefixCache:
    """Search twice as each shopper, one search at a time, with different queries."""
    ranker = ListwiseRanker(model, settings, profile_tokens=PROFILE_TOKENS)
    known = [entry for entry in lists if entry.profile is not None]
    firsts: list[float] = []
    seconds: list[float] = []
    again: list[float] = []
    hits: list[float] = []
    repeats: list[float] = []

    async def timed(entry: RankingList, first: RankingList) -> tuple[float, float]:
        request = entry.request.model_copy(update={"user_id": first.request.user_id})
        before = await ServerTokens.at(url)
        started = time.monotonic()
        await ranker.judge(request, first.profile, entry.candidates)
        taken = (time.monotonic() - started) * 1000
        tokens = (await ServerTokens.at(url)).since(before)
        return taken, tokens.kept / tokens.looked_up if tokens.looked_up else 0.0

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

        return await under_load("bare prefill", prompts, one, concurrency, progress)


def _token_ids(
    entry: RankingList, model: LanguageModel, renderer: PromptRenderer, settings: RankingSettings
) -> tuple[int, ...]:
    draft = draft_prompt(
        entry.request,
        Told.of(entry.profile) if entry.profile else None,
        entry.candidates,
        language="en",
        readout="labels",
        spec=model.spec,
        tokenizer=model.tokenizer,
        budget=PromptBudget(card=settings.card_tokens, profile=PROFILE_TOKENS),
    )
    prompt = build_prompt(draft, range(len(entry.candidates)))
    return renderer.render(prompt).token_ids
