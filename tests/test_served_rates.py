"""What the benchmark of the language model counts: lists, answers, and the server's own tokens."""

import json
from functools import partial
from pathlib import Path

import anyio
import pytest

from eval.benchmarks.llm import BARE, WAYS
from eval.benchmarks.ranking_lists import RankingList
from eval.benchmarks.served_rates import ServerTokens, own_rate, peer_rate, rate_of
from flaky_server import FlakyServer
from reranker.models.vllm.client import VLLMModel
from reranker.models.vllm.process import RunningServer
from reranker.ports import no_progress
from reranker.schema import Product, SearchRequest
from reranker.settings import ModelSettings, RankingSettings
from shop import candidates

pytestmark = pytest.mark.alone

PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
METRICS = """\
# HELP vllm:prompt_tokens_total Number of prefill tokens processed.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{engine="0",model_name="toy"} 1200.0
vllm:prompt_tokens_total{engine="1",model_name="toy"} 300.0
vllm:prompt_tokens_created{engine="0",model_name="toy"} 1.79e+09
vllm:prompt_tokens_cached_total{engine="0",model_name="toy"} 99.0
vllm:prefix_cache_hits_total{engine="0",model_name="toy"} 128.0
vllm:prefix_cache_queries_total{engine="0",model_name="toy"} 1500.0
vllm:generation_tokens_total{engine="0",model_name="toy"} 40.0
"""


def lists(count: int, size: int = 3) -> list[RankingList]:
    products = tuple(Product(product_id=str(n), title=f"thing {n}") for n in range(size))
    return [
        RankingList(
            request=SearchRequest(query=f"thing {number}"),
            profile=None,
            candidates=candidates(products),
        )
        for number in range(count)
    ]


def test_counters_are_read_over_all_engines() -> None:
    tokens = ServerTokens.of(METRICS)
    assert tokens == ServerTokens(read=1500, kept=128, looked_up=1500, written=40)
    assert tokens.since(ServerTokens.of("")) == tokens
    assert tokens.since(tokens).written == 0


@pytest.mark.parametrize(("named", "complete"), [([3, 2], 1), ([], 2)])
def test_a_peer_s_list_is_whole_if_the_model_named_all_of_it(
    named: list[int], complete: int
) -> None:
    answer = {
        "orders": [[0, 1, 2], [2, 1, 0]],
        "named": named,
        "metrics": ["", METRICS],
        "seconds": 2.0,
        "concurrency": 1,
        "errors": {},
    }
    rate = rate_of(answer, "peer", lists(2))
    assert (rate.complete, rate.per_second) == (complete, 1.0)
    assert (rate.read_tokens, rate.written_tokens) == (750, 20)
    assert rate.named == (pytest.approx(5 / 6) if named else None)


def test_an_order_with_gaps_is_not_whole() -> None:
    answer = {
        "orders": [[0, 0, 2], None],
        "named": [],
        "metrics": ["", ""],
        "seconds": 1.0,
        "concurrency": 1,
        "errors": {"ValueError": 1},
    }
    assert rate_of(answer, "peer", lists(2)).complete == 0


@pytest.mark.skipif(not PEERS.exists(), reason="make peers has not been run")
@pytest.mark.parametrize(
    ("peer", "reply", "complete", "named"),
    [
        ("rank_llm", "[4] thing", 0, 0.0),
        ("rank_llm", "[2] > [3] > [1]", 2, 1.0),
        ("rank_llm_whole", "[2] > [2] > [1]", 0, 2 / 3),
        ("langchain", '{"ranked_document_ids": [2, 0, 1]}', 2, None),
        ("langchain", '{"ranked_document_ids": [2, 0, 9]}', 0, None),
    ],
)
def test_peers_are_asked_as_they_ask_and_counted_by_what_the_model_said(
    peer: str, reply: str, complete: int, named: float | None
) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13}
    choice = {"index": 0, "message": {"role": "assistant", "content": reply}}
    said = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "toy",
        "choices": [choice | {"finish_reason": "stop"}],
        "usage": usage,
    }
    with FlakyServer() as server:
        server.answers = {
            "/v1/models": (200, b'{"data": [{"id": "toy"}]}'),
            "/v1/chat/completions": (200, json.dumps(said).encode()),
            "/metrics": (200, METRICS.encode()),
        }
        how = {"url": server.url, "concurrency": 1}
        rate = anyio.run(partial(peer_rate, peer, "peer", lists(2), PEERS, **how))
        bodies = [json.loads(body) for body in server.bodies["/v1/chat/completions"]]
    assert (rate.complete, rate.named) == (complete, pytest.approx(named) if named else named)
    assert rate.errors == ({"IndexError": 2} if "9" in reply else {})
    assert len(bodies) == 3, "one to warm up, one a list"
    assert len({body["cache_salt"] for body in bodies}) == 1
    assert all(body["temperature"] == 0 for body in bodies)
    forms = [body.get("structured_outputs") for body in bodies]
    assert all(forms) is (peer == "rank_llm_whole")


def test_one_of_our_ways_gets_what_the_peers_get() -> None:
    (bare,) = [way for way in WAYS if way.name == BARE]
    assert not bare.profile
    assert (bare.readout, bare.shuffles) == ("labels", 1)


def test_labels_write_one_token_a_list(vllm_server: RunningServer, smollm2_folder: Path) -> None:
    model = ModelSettings(name=str(smollm2_folder))
    settings = RankingSettings(readout="labels", shuffles=1, min_label_mass=0.0)

    async def run() -> object:
        return await own_rate(
            "labels",
            lists(3),
            lambda: VLLMModel.load(model, vllm_server.settings()),
            settings,
            url=vllm_server.url,
            concurrency=2,
            progress=no_progress,
        )

    rate = anyio.run(run)
    assert rate.complete == rate.lists == 3
    assert rate.written_tokens == 1
    assert 50 < rate.read_tokens < 400
