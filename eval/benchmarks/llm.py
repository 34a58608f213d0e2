"""What a vLLM server gives through each readout, beside other libraries and the engine's limit.

All of it runs against one server, in one run, on the same lists of real products.
"""

from collections.abc import Sequence
from pathlib import Path

from eval.benchmarks.ranking_lists import RankingList
from eval.benchmarks.served_limits import PrefillShare, PrefixCache, prefill_share, prefix_cache
from eval.benchmarks.served_rates import OpenModel, Rate, own_rate, peer_rate
from reranker.ports import Progress, no_progress
from reranker.schema import Readout, Value
from reranker.settings import RankingSettings

PEERS = {
    "langchain": "LangChain LLMListwiseRerank",
    "rank_llm": "rank_llm RankGPT",
    "rank_llm_whole": "rank_llm RankGPT, held to a whole ranking",
}
BARE = "labels, no profile"
"""The way of ours that gets exactly what the peers get: the query and the products."""


class Way(Value):
    """One of our ways of ranking.

    Attributes:
        profile: whether the shopper's profile is in the prompt, which the peers have no place for.
    """

    name: str
    readout: Readout
    shuffles: int = 1
    reasons: int = 0
    profile: bool = True


WAYS = (
    Way(name=BARE, readout="labels", profile=False),
    Way(name="labels", readout="labels"),
    Way(name="labels, 2 shuffles", readout="labels", shuffles=2),
    Way(name="verdict", readout="verdict"),
    Way(name="generate, 0 reasons", readout="generate"),
    Way(name="generate, 3 reasons", readout="generate", reasons=3),
)


class LLMBenchmark(Value):
    """One run against one server."""

    model: str
    rates: tuple[Rate, ...]
    prefill: PrefillShare
    prefix_cache: PrefixCache


async def measure(
    lists: Sequence[RankingList],
    open_model: OpenModel,
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
        open_model: opens a client of the server; each has prefix-cache salts of its own, as each
            run of a peer has, so that no measurement finds what another has left.
        url: of the server.
        folder: of the model that it serves, for its tokenizer.
        settings: of ranking; one window is taken, and one shuffle where a way does not say more.
        peers_python: interpreter of the peers' environment; None leaves them out.
        concurrency: lists under way at a time, for the rates under load.
        progress: told what is being done.
    """
    settings = settings.model_copy(
        update={"readout": "labels", "shuffles": 1, "window": 20, "min_label_mass": 0.0}
    )
    part = lists[: max(concurrency, len(lists) // 4)]
    rates: list[Rate] = []
    for together in dict.fromkeys((1, concurrency)):
        for way in WAYS:
            taken = lists if together > 1 and way.readout != "generate" else part
            rates.append(
                await own_rate(
                    way.name,
                    taken if way.profile else [_impersonal(entry) for entry in taken],
                    open_model,
                    _set(settings, way),
                    url=url,
                    concurrency=together,
                    progress=progress,
                )
            )
        for peer, name in PEERS.items() if peers_python else ():
            assert peers_python is not None
            progress(name, 0, len(part))
            rates.append(
                await peer_rate(peer, name, part, peers_python, url=url, concurrency=together)
            )
            progress(name, len(part), len(part))
    model = open_model()
    served = model.spec.name
    return LLMBenchmark(
        model=served,
        rates=tuple(rates),
        prefill=await prefill_share(
            lists,
            open_model,
            url=url,
            folder=folder,
            settings=settings,
            concurrency=concurrency,
            progress=progress,
        ),
        prefix_cache=await prefix_cache(
            lists, model, url=url, settings=settings, progress=progress
        ),
    )


def _impersonal(entry: RankingList) -> RankingList:
    return entry.model_copy(update={"profile": None})


def _set(settings: RankingSettings, way: Way) -> RankingSettings:
    return settings.model_copy(
        update={"readout": way.readout, "shuffles": way.shuffles, "reasons": way.reasons}
    )
