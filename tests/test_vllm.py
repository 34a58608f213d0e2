"""The client against a real vLLM server, beside the embedded model with the same weights."""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import httpx
import pytest

from questions import ask, order, widest_gap
from reranker.errors import (
    ConfigError,
    ContextOverflow,
    ModelTimeout,
    ModelUnavailable,
    OutputError,
)
from reranker.models.embedded import EmbeddedModel
from reranker.models.vllm.client import VLLMModel
from reranker.models.vllm.process import RunningServer
from reranker.models.vllm.routes import ChatRoute
from reranker.ports import LanguageModel
from reranker.schema import Prompt, Readout, SlotScores
from reranker.settings import ModelSettings, ServerSettings, Settings
from reranker.wiring import open_model

pytestmark = pytest.mark.alone

ORDERS = {
    "type": "object",
    "properties": {
        "order": {
            "type": "array",
            "items": {"type": "string", "enum": list("ABCDEF")},
            "minItems": 6,
            "maxItems": 6,
        }
    },
    "required": ["order"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def served(vllm_server: RunningServer, smollm2_folder: Path) -> Iterator[VLLMModel]:
    model = load(vllm_server, smollm2_folder)
    yield model
    anyio.run(model.aclose)


def load(server: RunningServer, folder: Path, **settings: Any) -> VLLMModel:
    name = ModelSettings(name=str(folder), dtype="float32")
    return VLLMModel.load(name, server.settings(**settings))


def read(
    model: LanguageModel, prompts: Sequence[Prompt], scope: str | None = None
) -> tuple[SlotScores, ...]:
    async def scenario() -> tuple[SlotScores, ...]:
        return await model.read(prompts, scope=scope)

    return anyio.run(scenario)


def test_spec_is_that_of_the_embedded_model(served: VLLMModel, model: EmbeddedModel) -> None:
    assert served.spec.model_dump(exclude={"context_length"}) == model.spec.model_dump(
        exclude={"context_length"}
    )
    assert served.spec.context_length == 4096
    assert served.tokenizer.count("oat milk") == 2


@pytest.mark.parametrize("readout", ["labels", "verdict"])
def test_the_same_numbers_as_the_embedded_model(
    served: VLLMModel, model: EmbeddedModel, readout: Readout
) -> None:
    prompts = [
        ask(readout, seed, query=query, slots=20) for seed in (0, 1) for query in ("tea", "rice 3")
    ]
    theirs, ours = read(served, prompts), read(model, prompts)
    assert widest_gap(theirs, ours) < 0.02
    assert [order(one) for one in theirs] == [order(one) for one in ours]
    if readout == "labels":
        masses = [one.label_mass for one in ours]
        assert [one.label_mass for one in theirs] == pytest.approx(masses, abs=0.01)
    assert widest_gap(read(served, prompts), theirs) < 0.001


def test_windows_of_any_size_go_in_one_call(served: VLLMModel, model: EmbeddedModel) -> None:
    prompts = [ask("labels", 0, slots=3), ask("verdict", 1, slots=9), ask("labels", 2, slots=26)]
    theirs = read(served, prompts)
    assert [len(one.logprobs) for one in theirs] == [3, 9, 26]
    assert widest_gap(theirs, read(model, prompts)) < 0.02


def test_completions_say_what_chat_completions_say(
    served: VLLMModel, vllm_server: RunningServer
) -> None:
    prompt = ask("labels", 4, slots=26)
    rendered = served._renderer.render(prompt)
    body = {
        "model": vllm_server.name,
        "messages": served._renderer.conversation(prompt.messages),
        "add_generation_prompt": False,
        "continue_final_message": True,
        "max_tokens": 1,
        "temperature": 0,
        "logprobs": True,
        "logprob_token_ids": list(rendered.label_ids),
        "return_tokens_as_token_ids": True,
    }
    answer = httpx.post(f"{vllm_server.url}/v1/chat/completions", json=body, timeout=60).json()
    (place,) = answer["choices"][0]["logprobs"]["content"]
    chat = {entry["token"]: entry["logprob"] for entry in place["top_logprobs"]}
    expected = tuple(chat[f"token_id:{token}"] for token in rendered.label_ids)
    assert answer["usage"]["prompt_tokens"] == len(rendered.token_ids)
    assert read(served, [prompt])[0].logprobs == pytest.approx(expected, abs=1e-3)


def test_written_answers_keep_to_the_schema(served: VLLMModel) -> None:
    prompts = [ask("generate", seed) for seed in range(2)]

    async def scenario() -> Sequence[str]:
        return await served.write(prompts, schema=ORDERS, max_tokens=80)

    for text in anyio.run(scenario):
        assert re.sub(r"\s", "", text).startswith('{"order":["')
        assert len(re.findall(r'"[A-F]"', text)) == 6


def blocks(server: RunningServer) -> int:
    """Return the number of tokens by which vLLM caches."""
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    found = re.search(r'^vllm:cache_config_info\{.*\bblock_size="(\d+)"', text, re.M)
    assert found is not None
    return int(found[1])


def hits(server: RunningServer) -> float:
    text = httpx.get(f"{server.url}/metrics", timeout=60).text
    return sum(map(float, re.findall(r"^vllm:prefix_cache_hits_total\S* (\S+)$", text, re.M)))


def test_shoppers_share_no_cached_prompt(vllm_server: RunningServer, smollm2_folder: Path) -> None:
    model = load(vllm_server, smollm2_folder)
    prompt = ask("labels", 0, query="a prompt of its own", slots=20)
    block = blocks(vllm_server)
    gained = []
    for scope in ("anna", "anna", "ben", None, "ben"):
        before = hits(vllm_server)
        read(model, [prompt], scope)
        gained.append(hits(vllm_server) - before)
    # Other tests' prompts without a scope may start with the same words, fewer than these.
    length = len(model._renderer.render(prompt).token_ids)
    assert gained[0] == gained[2] == 0
    assert gained[3] < length // 2
    assert gained[1] == gained[4] >= max(block, length - 2 * block)
    other_start = load(vllm_server, smollm2_folder)
    assert model.salt("anna") != other_start.salt("anna")
    assert "anna" not in str(model.salt("anna"))
    named = [load(vllm_server, smollm2_folder, cache_key="k").salt("anna") for _ in range(2)]
    assert named[0] == named[1] != model.salt("anna")


def test_cancelling_a_call_frees_the_server(served: VLLMModel, vllm_server: RunningServer) -> None:
    def running() -> float:
        text = httpx.get(f"{vllm_server.url}/metrics", timeout=60).text
        found = re.search(r"^vllm:num_requests_running\S* (\S+)$", text, re.M)
        assert found is not None
        return float(found[1])

    async def scenario() -> None:
        with anyio.move_on_after(1) as scope:
            await served.write(
                [ask("generate", 0)], schema={"type": "string", "minLength": 3000}, max_tokens=3000
            )
        assert scope.cancelled_caught
        assert [server.load for server in served.pool.servers] == [0]
        with anyio.fail_after(60):
            while await anyio.to_thread.run_sync(running):
                await anyio.sleep(0.2)

    anyio.run(scenario)
    assert served.pool.servers[0].reason is None


def test_a_deadline_ends_the_call(vllm_server: RunningServer, smollm2_folder: Path) -> None:
    # A client that knows from earlier calls how long they take would not even ask.
    served = load(vllm_server, smollm2_folder)

    async def scenario() -> None:
        with pytest.raises(ModelTimeout, match=r"no answer in|no time"):
            await served.write(
                [ask("generate", 0)],
                schema={"type": "string", "minLength": 3000},
                max_tokens=3000,
                seconds=0.3,
            )
        with pytest.raises(ModelTimeout):
            await served.read([ask("labels", 0)], seconds=0)
        assert [server.load for server in served.pool.servers] == [0]
        await served.aclose()

    anyio.run(scenario)


def test_one_model_in_several_event_loops(served: VLLMModel) -> None:
    expected = read(served, [ask("labels", 0)])
    assert widest_gap(read(served, [ask("labels", 0)]), expected) < 0.001

    async def both() -> tuple[SlotScores, ...]:
        with anyio.from_thread.start_blocking_portal() as portal:
            other = portal.start_task_soon(served.read, [ask("labels", 0)])
            here = await served.read([ask("labels", 0)])
            there = await asyncio.wrap_future(other)
        return here + there

    assert widest_gap(asyncio.run(both()), expected * 2) < 0.001
    assert not served.pool._clients._held


def test_what_does_not_fit_the_context_is_refused(served: VLLMModel) -> None:
    long = ask("labels", 0, query="tea " * 5000)
    with pytest.raises(ContextOverflow, match=r"lower ranking\.window"):
        read(served, [long])
    # The server's own refusal, where it is set up for less than it told.
    generous = served.spec.model_copy(update={"context_length": 100_000})
    served._spec, tight = generous, served._spec
    try:
        with pytest.raises(ContextOverflow, match=r"4096.*lower ranking\.window"):
            read(served, [long])
    finally:
        served._spec = tight
    assert served.pool.servers[0].reason is None


def test_a_model_that_is_gone_is_named(served: VLLMModel) -> None:
    served._model, name = "gone", served._model
    try:
        with pytest.raises(ModelUnavailable, match=r"no server serves 'gone'.*served are smollm2"):
            read(served, [ask("labels", 0)])
    finally:
        served._model = name


def test_settings_that_do_not_fit_the_server_are_named(
    vllm_server: RunningServer, smollm2_folder: Path
) -> None:
    with pytest.raises(ConfigError, match=r"server\.served_name = other: \S+ serves smollm2"):
        load(vllm_server, smollm2_folder, served_name="other")
    with pytest.raises(ConfigError, match=r"server\.adapter = loud: \S+ has no adapter"):
        load(vllm_server, smollm2_folder, adapter="loud")


def test_another_tokenizer_is_noticed(
    vllm_server: RunningServer, smollm2_folder: Path, tmp_path: Path
) -> None:
    for file in smollm2_folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    rules = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    words = rules["model"]["vocab"]
    words["Ġmilk"], words["Ġbread"] = words["Ġbread"], words["Ġmilk"]
    (tmp_path / "tokenizer.json").write_text(json.dumps(rules), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"other tokens than model\.name"):
        load(vllm_server, tmp_path)


def test_wiring_opens_the_servers_model(vllm_server: RunningServer, smollm2_folder: Path) -> None:
    arguments = {"server.urls": [f"{vllm_server.url}/v1/"], "model.name": str(smollm2_folder)}
    opened = open_model(Settings.load(None, arguments))
    assert isinstance(opened, VLLMModel)
    anyio.run(opened.aclose)
    with pytest.raises(ModelUnavailable, match="closed"):
        read(opened, [ask("labels", 0)])


def test_a_server_that_is_down_at_the_start_is_left_out(
    vllm_server: RunningServer, smollm2_folder: Path, model: EmbeddedModel
) -> None:
    urls = ("http://127.0.0.1:9", vllm_server.url)
    name = ModelSettings(name=str(smollm2_folder))
    opened = VLLMModel.load(name, ServerSettings(urls=urls))
    assert [bool(server.reason) for server in opened.pool.servers] == [True, False]
    prompts = [ask("labels", seed) for seed in range(2)]
    assert widest_gap(read(opened, prompts), read(model, prompts)) < 0.02
    anyio.run(opened.aclose)
    with pytest.raises(ModelUnavailable, match="start a server with shelfwise llm serve"):
        VLLMModel.load(name, ServerSettings(urls=urls[:1]))


def test_a_server_that_tells_few_log_probabilities_is_named(served: VLLMModel) -> None:
    prompt = ask("labels", 0, slots=20)
    plain = prompt.model_copy(update={"messages": prompt.messages[:-1]})
    route = ChatRoute(served._model, served._renderer, top_logprobs=5)

    async def scenario() -> Any:
        return await route.labels([plain, plain], [], served.pool.call)

    with pytest.raises(OutputError, match=r"for \d+ of 20 labels \(.*\): it lacks logprob_token"):
        anyio.run(scenario)
    assert served.pool.servers[0].reason is None


def test_a_chat_server_gives_the_labels_that_it_can(served: VLLMModel) -> None:
    prompt = ask("labels", 0, slots=2)
    plain = prompt.model_copy(update={"messages": prompt.messages[:-1]})
    route = ChatRoute(served._model, served._renderer, top_logprobs=64)

    async def scenario() -> Any:
        return await route.labels([plain, plain], [], served.pool.call)

    first, second = anyio.run(scenario)
    assert len(first) == 2
    assert first == pytest.approx(second, abs=1e-3)
