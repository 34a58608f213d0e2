"""The embedded model: callers that meet, are cancelled or are refused, and what it writes."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import pytest

from questions import ask, assert_same, read
from reranker.errors import ContextOverflow, ModelTimeout, ModelUnavailable
from reranker.models.embedded import EmbeddedModel
from reranker.schema import Prompt, SlotScores
from tiny_models import load_tiny


def test_a_cancelled_caller_goes_on_at_once(model: EmbeddedModel) -> None:
    prompts = [ask("labels", seed, slots=20) for seed in range(16)]

    async def scenario() -> tuple[float, tuple[SlotScores, ...]]:
        started = time.perf_counter()
        with anyio.move_on_after(0.05) as scope:
            await model.read(prompts)
        waited = time.perf_counter() - started
        assert scope.cancelled_caught
        return waited, await model.read([ask("labels", 1)])

    waited, scores = anyio.run(scenario)
    assert waited < 0.5
    assert_same(scores, read(model, [ask("labels", 1)]))


def test_callers_at_once_get_their_own_answers(short_context_folder: Path) -> None:
    model = load_tiny(short_context_folder)
    prompts = [ask("labels", seed) for seed in range(8)]
    answers: dict[int, SlotScores] = {}

    async def one(index: int) -> None:
        (answers[index],) = await model.read([prompts[index]])

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            for index in range(len(prompts)):
                group.start_soon(one, index)

    anyio.run(scenario)
    assert_same([answers[index] for index in range(len(prompts))], read(model, prompts))


def test_a_closed_model_says_so(short_context_folder: Path) -> None:
    model = load_tiny(short_context_folder)
    anyio.run(model.aclose)
    with pytest.raises(ModelUnavailable, match="closed"):
        read(model, [ask("labels", 0)])


@contextmanager
def busy(model: EmbeddedModel) -> Iterator[None]:
    """Hold the thread that computes, so that whatever is asked meanwhile has to wait."""
    done = Event()
    model._worker.submit(done.wait)
    try:
        yield
    finally:
        done.set()


def test_closing_refuses_the_requests_that_wait(short_context_folder: Path) -> None:
    model = load_tiny(short_context_folder)
    refused: list[str] = []

    async def one(seed: int) -> None:
        with pytest.raises(ModelUnavailable) as caught:
            await model.read([ask("labels", seed)])
        refused.append(str(caught.value))

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            with busy(model):
                for seed in range(3):
                    group.start_soon(one, seed)
                await anyio.wait_all_tasks_blocked()
                await model.aclose()

    anyio.run(scenario)
    assert refused == ["tiny: the model is closed"] * 3


@pytest.mark.parametrize("closed", [False, True])
def test_a_caller_that_is_cancelled_while_it_waits_ends_as_cancelled(
    short_context_folder: Path, closed: bool
) -> None:
    model = load_tiny(short_context_folder)

    async def scenario() -> bool:
        with busy(model), anyio.move_on_after(0.05) as scope:
            async with anyio.create_task_group() as group:
                group.start_soon(model.read, [ask("labels", 0)])
                await anyio.wait_all_tasks_blocked()
                if closed:
                    await model.aclose()
        return scope.cancelled_caught

    assert anyio.run(scenario)


def write(model: EmbeddedModel, prompts: Sequence[Prompt], max_tokens: int = 12) -> Sequence[str]:
    async def scenario() -> Sequence[str]:
        return await model.write(prompts, schema={}, max_tokens=max_tokens)

    return anyio.run(scenario)


def test_kept_prefixes_serve_their_own_scope_only(short_context_folder: Path) -> None:
    model = load_tiny(short_context_folder)
    counted: list[int] = []
    forward = model._scorer._forward

    def count(tokens: Any, *rest: Any) -> Any:
        counted.append(tokens.numel())
        return forward(tokens, *rest)

    model._scorer._forward = count

    async def tokens_of(scope: str | None) -> int:
        counted.clear()
        await model.read([ask("labels", 0)], scope=scope)
        return sum(counted)

    first = anyio.run(tokens_of, "anna")
    assert anyio.run(tokens_of, "anna") < first / 10
    assert anyio.run(tokens_of, "ben") == first
    assert anyio.run(tokens_of, None) == first
    assert anyio.run(tokens_of, "anna") < first / 10


def test_writing_is_greedy_and_ends_by_itself(smollm2_folder: Path, model: EmbeddedModel) -> None:
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    plain = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()
    tokens = model._renderer.render(ask("generate", 0)).token_ids
    greedy = GenerationConfig(do_sample=False, max_new_tokens=40, eos_token_id=2, pad_token_id=2)
    with torch.inference_mode():
        whole = plain.generate(torch.tensor([tokens]), generation_config=greedy)[0]
    expected = model._renderer.decode(whole[len(tokens) :].tolist())
    assert write(model, [ask("generate", 0), ask("generate", 1)], max_tokens=40)[0] == expected
    assert expected


def test_writing_goes_on_with_an_answer_that_has_begun(model: EmbeddedModel) -> None:
    from langchain_core.messages import AIMessage

    asked = ask("generate", 0)
    begun = asked.model_copy(update={"messages": (*asked.messages, AIMessage('{"order": ["A", "'))})
    (answer,) = write(model, [begun])
    assert answer[0].isalpha()
    assert model._renderer.decode(model._renderer.render(begun).token_ids).endswith('["A", "')


def test_an_answer_beyond_the_context_is_refused(short_context_folder: Path) -> None:
    with pytest.raises(ContextOverflow):
        write(load_tiny(short_context_folder), [ask("generate", 0)], max_tokens=390)


def test_no_time_no_answer(short_context_folder: Path) -> None:
    model = load_tiny(short_context_folder)

    async def scenario() -> None:
        with pytest.raises(ModelTimeout, match="tiny"):
            await model.read([ask("labels", 0)], seconds=0)
        with pytest.raises(ModelTimeout, match="tiny"):
            await model.write([ask("generate", 0)], schema={}, max_tokens=5, seconds=0)

    anyio.run(scenario)


def test_writing_stops_for_a_caller_that_is_gone(model: EmbeddedModel) -> None:
    async def scenario() -> float:
        started = time.perf_counter()
        with anyio.move_on_after(0.3) as scope:
            await model.write([ask("generate", 0)], schema={}, max_tokens=4000)
        assert scope.cancelled_caught
        await model.read([ask("labels", 0)])
        return time.perf_counter() - started

    assert anyio.run(scenario) < 10
