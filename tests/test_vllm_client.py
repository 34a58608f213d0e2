"""The client against small real HTTP servers that speak as vLLM or as other servers do."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from flaky_server import FlakyServer
from questions import ask
from reranker.errors import ConfigError, OutputError
from reranker.listwise import ListwiseRanker
from reranker.models.asking import describe, slot_scores
from reranker.models.rendering import LABELS, PromptRenderer, load_tokenizer
from reranker.models.tokenizing import HFTokenizer
from reranker.models.vllm.client import VLLMModel
from reranker.models.vllm.discovery import ServedModel, TokenSample
from reranker.models.vllm.offer import offered, small_call
from reranker.ports import ModelSpec
from reranker.schema import Readout, SearchRequest
from reranker.settings import ModelSettings, RankingSettings, ServerSettings
from scripted_model import ScriptedModel, prefer_last_product
from shop import candidates

pytestmark = pytest.mark.alone

MODELS = "/v1/models"
CHAT = "/v1/chat/completions"
NOT_FOUND = (404, b'{"error": {"message": "not found"}}')


@pytest.fixture(scope="module")
def renderer(smollm2_folder: Path) -> PromptRenderer:
    return PromptRenderer(load_tokenizer(smollm2_folder), name="toy")


@pytest.fixture(scope="module")
def letterless(smollm2_folder: Path) -> PromptRenderer:
    """Of a model that has no letter as a token of its own at the start of an answer."""
    tokenizer = copy.deepcopy(load_tokenizer(smollm2_folder))
    tokenizer.chat_template = (
        "{% for m in messages if m.role != 'assistant' %}{{ m.content }}\nAnswer: {% endfor %}"
    )
    return PromptRenderer(tokenizer, name="toy")


def speak_chat(server: FlakyServer, *, name: str = "toy", tops: int = 20) -> None:
    """Have a server answer as one without token-id prompts does."""
    tokens = [{"token": letter, "logprob": -5.0} for letter in LABELS[:tops]]
    choice = {
        "index": 0,
        "message": {"content": '{"ranking": ["A"]}'},
        "logprobs": {"content": [{"top_logprobs": tokens}]},
    }
    server.answers = {
        MODELS: (200, json.dumps({"data": [{"id": name, "max_model_len": 4096}]}).encode()),
        "/tokenize": NOT_FOUND,
        "/health": NOT_FOUND,
        "/metrics": NOT_FOUND,
        "/v1/completions": NOT_FOUND,
        CHAT: (200, json.dumps({"choices": [choice]}).encode()),
    }


def load(folder: Path, *servers: FlakyServer, **settings: Any) -> VLLMModel:
    given = {"recovery_s": 0.1, **settings}
    urls = tuple(one.url for one in servers)
    return VLLMModel.load(ModelSettings(name=str(folder)), ServerSettings(urls=urls, **given))


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.02)


def test_a_chat_server_is_back_when_it_chats(start: Any, smollm2_folder: Path) -> None:
    server = start()
    speak_chat(server)
    model = load(smollm2_folder, server, failures=1)
    (state,) = model.pool.servers
    spoken, server.answers[CHAT] = server.answers[CHAT], (500, b"")

    async def scenario() -> None:
        model.pool.leave_alone(server.url, "tried")
        looked = server.asked[CHAT]
        await until(lambda: server.asked[CHAT] >= looked + 3)
        assert state.reason is not None  # its /health answers all the while
        server.answers[CHAT] = spoken
        await until(lambda: state.reason is None)
        await model.aclose()

    anyio.run(scenario)


def test_a_server_shows_that_it_answers_in_its_own_way(renderer: PromptRenderer) -> None:
    sample = TokenSample.of(renderer)
    tokens = ServedModel(name="toy", context_length=4096)
    assert small_call(tokens, sample, "toy").path == "/v1/completions"
    chat = small_call(tokens.model_copy(update={"route": "chat"}), sample, "toy")
    assert chat.path == CHAT
    assert chat.body["max_tokens"] == 1


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ({"name": "other"}, "serves other and not toy"),
        ({"tops": 5}, "tells 5 top_logprobs, below 20"),
    ],
)
def test_a_server_that_comes_back_changed_stays_left_alone(
    start: Any, smollm2_folder: Path, changed: Any, differs: str
) -> None:
    there, away = start(), start()
    speak_chat(there)
    speak_chat(away, **changed)
    away.down()
    model = load(smollm2_folder, there, away)
    back = model.pool.servers[1]
    assert back.reason is not None
    away.listen()

    async def scenario() -> None:
        await until(lambda: differs in str(back.reason))
        speak_chat(away)
        await until(lambda: back.reason is None)
        await model.aclose()

    anyio.run(scenario)


@pytest.mark.parametrize(
    ("served", "differs"),
    [
        ({"context_length": 100}, "context of 100 tokens, below 4096"),
        ({"route": "chat"}, "takes no token-id prompts"),
        ({"lora": True}, "set up for LoRA"),
    ],
)
def test_what_differs_from_the_start_is_named(served: Any, differs: str) -> None:
    first = ServedModel(name="toy", context_length=4096)
    first.check_like(first, "http://host")
    with pytest.raises(ConfigError, match=f"http://host .*{differs}"):
        first.model_copy(update=served).check_like(first, "http://host")


def test_a_server_of_nonsense_is_left_out_at_the_start(start: Any, smollm2_folder: Path) -> None:
    good, bad = start(), start("deep")
    speak_chat(good)
    model = load(smollm2_folder, good, bad)
    assert [bool(one.reason) for one in model.pool.servers] == [False, True]
    anyio.run(model.aclose)


def ranker_of(spec: ModelSpec, tokenizer: HFTokenizer, readout: Readout) -> ListwiseRanker:
    """Return a ranker that asks a model of this description."""
    model = ScriptedModel(tokenizer, prefer_last_product)
    model.spec = spec
    return ListwiseRanker(model, RankingSettings(readout=readout), profile_tokens=64)


@pytest.mark.parametrize(("tops", "labels"), [(0, 0), (5, 0), (19, 0), (20, 20), (64, 52)])
def test_labels_are_as_many_as_a_chat_server_tells(
    renderer: PromptRenderer, tokenizer: HFTokenizer, tops: int, labels: int
) -> None:
    served = ServedModel(name="toy", context_length=4096, route="chat", top_logprobs=tops)
    spec = offered(served, renderer, None)
    assert spec.readouts == ({"labels", "generate"} if labels else {"generate"})
    assert "".join(spec.labels) == LABELS[: labels or 52]
    assert spec.answer_prefix == ""
    ranker_of(spec, tokenizer, "generate")


def test_without_single_letters_rankings_are_still_written(
    letterless: PromptRenderer, tokenizer: HFTokenizer
) -> None:
    with pytest.raises(ConfigError, match="no letter is one token"):
        letterless.answer_prefix()
    spec = describe(letterless, name="toy", context_length=4096)
    assert "labels" not in spec.readouts
    assert "generate" in spec.readouts
    assert "".join(spec.labels) == LABELS
    assert spec.answer_prefix == ""
    assert letterless.render(ask("generate", 0)).token_ids
    ranker_of(spec, tokenizer, "generate")
    with pytest.raises(ConfigError, match="can only be read by"):
        ranker_of(spec, tokenizer, "labels")


def test_a_server_without_log_probabilities_writes_rankings(
    start: Any, smollm2_folder: Path
) -> None:
    server = start()
    speak_chat(server, tops=0)
    model = load(smollm2_folder, server)
    assert model.spec.readouts == {"generate"}

    async def scenario() -> tuple[str, ...]:
        prompt = ask("generate", 0, slots=20)
        try:
            return await model.write([prompt], schema={"type": "object"}, max_tokens=8)
        finally:
            await model.aclose()

    assert anyio.run(scenario) == ('{"ranking": ["A"]}',)


@pytest.mark.parametrize("logprob", [1000.0, 0.1])
def test_what_is_no_log_probability_is_refused(logprob: float) -> None:
    with pytest.raises(OutputError, match=r"toy: it gave .* as a log-probability"):
        slot_scores("toy", ask("labels", 0, slots=2), [-1.0, logprob])


def test_a_request_names_the_adapter_that_it_is_ranked_by(start: Any, smollm2_folder: Path) -> None:
    server = start()
    speak_chat(server)
    listed = [{"id": "toy", "max_model_len": 4096}, {"id": "spring", "parent": "toy"}]
    server.answers[MODELS] = (200, json.dumps({"data": listed}).encode())
    model = load(smollm2_folder, server)
    settings = RankingSettings(window=6, min_label_mass=0.0)
    ranker = ListwiseRanker(model, settings, profile_tokens=64)

    async def scenario() -> list[str]:
        for adapter in (None, "spring", "autumn"):
            request = SearchRequest(query="tea", adapter=adapter)
            assert (await ranker.judge(request, None, candidates())).outcome == "model"
        await model.aclose()
        return [str(json.loads(body)["model"]) for body in server.bodies[CHAT]]

    server.bodies.clear()
    asked = list(dict.fromkeys(anyio.run(scenario)))
    assert asked == ["toy", "spring", "autumn"], "what comes while the server runs can be asked for"
    assert model.spec.adapter is None
    assert model.with_adapter("spring").spec.adapter == "spring"


def test_a_server_without_adapters_says_how_to_have_them(start: Any, smollm2_folder: Path) -> None:
    server = start()
    speak_chat(server)
    with pytest.raises(ConfigError, match=r"adapter spring: .* llm serve --lora"):
        load(smollm2_folder, server).with_adapter("spring")
