"""How many lists a second ways of ranking give at one vLLM server, and what they have it compute.

The server counts the tokens that it reads and writes: the same figure for every way, whatever it
says of itself.
"""

import json
import subprocess
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

import anyio
import httpx
import numpy as np
from pydantic import Field

from eval.benchmarks.ranking_lists import RankingList
from reranker.errors import ConfigError
from reranker.listwise import ListwiseRanker
from reranker.ports import LanguageModel, Progress
from reranker.schema import Candidate, Value
from reranker.settings import RankingSettings

PROFILE_TOKENS = 160
OpenModel = Callable[[], LanguageModel]
_COUNTERS = {
    "read": "vllm:prompt_tokens_total",
    "kept": "vllm:prefix_cache_hits_total",
    "looked_up": "vllm:prefix_cache_queries_total",
    "written": "vllm:generation_tokens_total",
}


class ServerTokens(Value):
    """What a server has counted since its start.

    Attributes:
        read: tokens of prompts.
        kept: of those that were looked up in the prefix cache, those that were found there.
        written: tokens of answers.
    """

    read: float
    kept: float
    looked_up: float
    written: float

    @classmethod
    async def at(cls, url: str) -> Self:
        """Ask a server."""
        async with httpx.AsyncClient(timeout=30, trust_env=False) as client:
            return cls.of((await client.get(f"{url}/metrics")).text)

    @classmethod
    def of(cls, metrics: str) -> Self:
        """Read what a server tells at ``/metrics``."""
        totals = dict.fromkeys(_COUNTERS, 0.0)
        for line in metrics.splitlines():
            for name, counter in _COUNTERS.items():
                if line.startswith((f"{counter}{{", f"{counter} ")):
                    totals[name] += float(line.rsplit(" ", 1)[1])
        return cls(**totals)

    def since(self, before: "ServerTokens") -> "ServerTokens":
        """Return what was counted between two moments."""
        return ServerTokens(
            read=self.read - before.read,
            kept=self.kept - before.kept,
            looked_up=self.looked_up - before.looked_up,
            written=self.written - before.written,
        )


class Rate(Value):
    """How many lists a second one way of ranking gives.

    Attributes:
        concurrency: lists under way at a time.
        complete: lists that came back as a whole order; with ``named``, cut to those that the model
            itself ordered.
        seconds: wall-clock time of all of them.
        errors: what a peer raised, by class.
        named: mean share of a list that the model's reply named, where a peer fills up whatever the
            model left out, and that can be seen.
        read_tokens: mean tokens of the prompts about a list, as the server counts.
        written_tokens: mean tokens of the answers about a list.
    """

    name: str
    concurrency: int
    lists: int
    complete: int
    seconds: float
    errors: Mapping[str, int] = Field(default_factory=dict)
    named: float | None = None
    read_tokens: float
    written_tokens: float

    @property
    def per_second(self) -> float:
        """Lists ranked a second, whatever became of them."""
        return self.lists / self.seconds


async def own_rate(
    name: str,
    lists: Sequence[RankingList],
    open_model: OpenModel,
    settings: RankingSettings,
    *,
    url: str,
    concurrency: int,
    progress: Progress,
) -> Rate:
    """Rank lists in one of our ways."""
    model = open_model()
    ranker = ListwiseRanker(model, settings, profile_tokens=PROFILE_TOKENS)
    complete = 0

    async def one(entry: RankingList) -> None:
        nonlocal complete
        judged = await ranker.judge(entry.request, entry.profile, entry.candidates)
        complete += judged.outcome != "fallback" and None not in judged.places

    before = await ServerTokens.at(url)
    seconds = await under_load(name, lists, one, concurrency, progress)
    tokens = (await ServerTokens.at(url)).since(before)
    await model.aclose()
    return Rate(
        name=name,
        concurrency=concurrency,
        lists=len(lists),
        complete=complete,
        seconds=seconds,
        read_tokens=tokens.read / len(lists),
        written_tokens=tokens.written / len(lists),
    )


async def under_load(
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


async def peer_rate(
    peer: str,
    name: str,
    lists: Sequence[RankingList],
    python: Path,
    *,
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
    return rate_of(json.loads(result.stdout.decode().strip().splitlines()[-1]), name, lists)


def rate_of(answer: Mapping[str, Any], name: str, lists: Sequence[RankingList]) -> Rate:
    """Return what a peer's answer tells; see ``peers/rankers.py``."""
    complete = sum(
        order is not None and sorted(order) == list(range(len(entry.candidates)))
        for order, entry in zip(answer["orders"], lists, strict=True)
    )
    size = len(lists[0].candidates)
    named = answer["named"]
    if named:
        complete = min(complete, sum(count == size for count in named))
    before, after = (ServerTokens.of(text) for text in answer["metrics"])
    tokens = after.since(before)
    return Rate(
        name=name,
        concurrency=answer["concurrency"],
        lists=len(lists),
        complete=complete,
        seconds=answer["seconds"],
        errors=answer["errors"],
        named=float(np.mean(named)) / size if named else None,
        read_tokens=tokens.read / len(lists),
        written_tokens=tokens.written / len(lists),
    )


def _passage(candidate: Candidate) -> str:
    product = candidate.product
    price = f"{product.price:.2f} {product.currency or ''}" if product.price is not None else ""
    parts = (product.title, product.brand, (product.category or "").rsplit(">", 1)[-1], price)
    return " | ".join(part.strip() for part in parts if part)
