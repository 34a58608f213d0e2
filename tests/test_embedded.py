"""The embedded model: its scores, beside the same weights asked in the plainest way."""

from pathlib import Path
from typing import Any

import pytest

from questions import ask, assert_same, read
from reranker.errors import ContextOverflow, ModelUnavailable, OutputError
from reranker.models.embedded import EmbeddedModel
from reranker.models.rendering import PromptRenderer, RenderedPrompt, load_tokenizer
from reranker.schema import Prompt, Readout, SlotScores
from reranker.settings import ModelSettings
from tiny_models import load_tiny, make_tiny

READOUTS: tuple[Readout, ...] = ("labels", "verdict")


@pytest.fixture(scope="session")
def reference(smollm2_folder: Path) -> Any:
    """The same weights, asked in the plainest way."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32).eval()
    renderer = PromptRenderer(load_tokenizer(smollm2_folder))

    def score(prompt: Prompt) -> SlotScores:
        rendered = renderer.render(prompt)
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([rendered.token_ids])).logits[0]
        return SlotScores(logprobs=tuple(plain_scores(rendered, logits.log_softmax(-1))))

    return score


def plain_scores(rendered: RenderedPrompt, logprobs: Any) -> list[float]:
    if rendered.label_ids:
        return [float(logprobs[-1, token]) for token in rendered.label_ids]
    places = rendered.verdict_positions
    return [float(logprobs[place - 1, rendered.token_ids[place]]) for place in places]


def test_spec_tells_what_the_model_can_do(model: EmbeddedModel) -> None:
    assert model.spec.context_length == 8192
    assert len(model.spec.labels) == 52
    assert model.spec.readouts == {"labels", "verdict", "generate"}
    assert model.tokenizer.count("oat milk") == 2


def test_the_weights_survived_their_conversion(model: EmbeddedModel) -> None:
    encode = model._renderer.encode
    capitals = [token for name in (" Paris", " London", " Rome") for token in encode(name)]
    start = encode("The capital of France is")
    asked = RenderedPrompt(token_ids=tuple(start), label_ids=tuple(capitals))
    ((paris, london, rome),) = model._scorer.score([asked])
    assert paris > -1
    assert paris > max(london, rome) + 2


@pytest.mark.parametrize("readout", READOUTS)
def test_batches_and_kept_prefixes_change_nothing(
    model: EmbeddedModel, reference: Any, readout: Readout
) -> None:
    prompts = [ask(readout, seed, slots=4 + seed) for seed in range(3)]
    expected = [reference(prompt) for prompt in prompts]
    assert_same(read(model, prompts), expected)
    assert_same(read(model, prompts), expected)
    for prompt, scores in zip(prompts, expected, strict=True):
        assert_same(read(model, [prompt]), [scores])
        assert_same(read(model, [prompt]), [scores])


@pytest.mark.parametrize("readout", READOUTS)
def test_the_next_query_reuses_the_task(
    model: EmbeddedModel, reference: Any, readout: Readout
) -> None:
    first, second = ask(readout, 1, query="green tea"), ask(readout, 2, query="rye bread")
    read(model, [first])
    assert_same(read(model, [second]), [reference(second)])
    assert_same(read(model, [second, first]), [reference(second), reference(first)])


@pytest.mark.parametrize("entries", [0, 1, 3])
def test_only_so_many_prefixes_are_kept(short_context_folder: Path, entries: int) -> None:
    model = load_tiny(short_context_folder, prefix_cache=entries)
    for query in ("tea", "rye bread", "coffee beans", "goat cheese", "tea"):
        read(model, [ask("labels", seed, query=query) for seed in range(2)])
    assert len(model._scorer.prefixes) == entries


def test_kept_prefixes_are_never_written_to(short_context_folder: Path) -> None:
    model = load_tiny(short_context_folder)
    first = [ask("labels", seed) for seed in range(3)]
    before = read(model, first)
    ((key, values),) = model._scorer.prefixes._kept.items()
    copies = [(keys.clone(), kept.clone()) for keys, kept in values]
    for seed in range(4):
        read(model, [ask("labels", seed, query="rye"), ask("verdict", seed)])
    for (keys, kept), (old_keys, old_kept) in zip(values, copies, strict=True):
        assert keys.equal(old_keys)
        assert kept.equal(old_kept)
        assert keys.shape[2] == len(key[1])
    assert_same(read(model, first), before)


def test_a_batch_beyond_the_token_budget_is_split(short_context_folder: Path) -> None:
    model = load_tiny(short_context_folder)
    prompts = [ask("verdict", seed, slots=2 + seed) for seed in range(5)]
    whole = read(model, prompts)
    model._scorer._pass_tokens = 200
    assert len(list(model._scorer._groups([90, 150, 80, 100, 10]))) == 3
    assert_same(read(model, prompts), whole)


@pytest.mark.parametrize("readout", READOUTS)
def test_windowed_attention_is_computed_without_reuse(
    tmp_path: Path, smollm2_folder: Path, readout: Readout
) -> None:
    model = load_tiny(make_tiny(tmp_path / "windowed", smollm2_folder, window=8))
    prompts = [ask(readout, seed, slots=3 + seed) for seed in range(3)]
    together = read(model, prompts)
    assert_same([read(model, [prompt])[0] for prompt in prompts], together)
    assert len(model._scorer.prefixes) == 0


def test_label_mass_is_the_probability_of_this_prompts_labels(
    model: EmbeddedModel, reference: Any
) -> None:
    import math

    prompt = ask("labels", 0)
    (scores,) = read(model, [prompt])
    expected = sum(math.exp(value) for value in reference(prompt).logprobs)
    assert scores.label_mass == pytest.approx(expected, abs=1e-4)
    assert read(model, [ask("verdict", 0)])[0].label_mass is None


def test_half_precision_ranks_without_ties(smollm2_folder: Path, reference: Any) -> None:
    model = EmbeddedModel(smollm2_folder, ModelSettings(dtype="bfloat16", adapter="none"))
    prompt = ask("labels", 3, slots=20)
    (scores,) = read(model, [prompt])
    assert len(set(scores.logprobs)) == 20
    assert scores.logprobs == pytest.approx(reference(prompt).logprobs, abs=0.5)


def test_no_prompts_no_scores(model: EmbeddedModel) -> None:
    assert read(model, []) == ()


def test_a_prompt_beyond_the_context_is_refused(short_context_folder: Path) -> None:
    model = load_tiny(short_context_folder)
    with pytest.raises(ContextOverflow, match=r"prompt of \d+ tokens .* 400: lower ranking"):
        read(model, [ask("labels", 0), ask("labels", 0, query="tea " * 500)])


def test_scores_that_are_no_numbers_are_refused(short_context_folder: Path) -> None:
    model = load_tiny(short_context_folder)
    model._scorer._head.weight.fill_(float("nan"))
    with pytest.raises(OutputError, match="no finite numbers"):
        read(model, [ask("labels", 0)])


def test_damaged_weights_name_their_folder(short_context_folder: Path) -> None:
    weights = short_context_folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelUnavailable, match=str(short_context_folder)):
        load_tiny(short_context_folder)
    weights.unlink()
    with pytest.raises(ModelUnavailable, match=str(short_context_folder)):
        load_tiny(short_context_folder)


def test_missing_weights_are_not_made_up(short_context_folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(short_context_folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, short_context_folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnavailable, match=r"1 weights are missing, such as .*up_proj"):
        load_tiny(short_context_folder)


def test_an_answer_for_fewer_prompts_is_refused(short_context_folder: Path) -> None:
    model = load_tiny(short_context_folder)
    score = model._scorer.score
    model._scorer.score = lambda prompts, stopped, scope: score(prompts, stopped)[1:]
    with pytest.raises(OutputError, match="it answered 1 of 2 prompts"):
        read(model, [ask("labels", seed) for seed in range(2)])


def test_loading_is_told(short_context_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[str, int, int]] = []
    settings = ModelSettings(name=str(short_context_folder), threads=1)
    EmbeddedModel.load(settings, progress=lambda *step: told.append(step))
    assert told == [
        (f"loading {short_context_folder}", 0, 1),
        (f"loading {short_context_folder}", 1, 1),
    ]
    assert capfd.readouterr() == ("", "")
