"""What methods beside LoRA, dropout and recomputing learn, save, and are refused for."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from reranker.cli.tune import files_in
from reranker.errors import ConfigError, DataError
from reranker.models.embedded import EmbeddedModel
from reranker.models.loading import load_causal_model
from reranker.models.merging import merge, write_merged
from reranker.models.prefill import CausalScorer
from reranker.models.prefix import learned_prefix
from reranker.models.vllm.beside import rank_beside
from reranker.settings import ModelSettings
from reranker.training.network import TunedNetwork
from reranker.training.record import read_record
from reranker.training.tuning import tune
from tiny_models import make_tunable
from tuning_shop import random_list, tuning_settings

LISTS = [random_list(1, 5, 40), random_list(2, 3, 33)]
GIVEN: dict[str, dict[str, object]] = {
    "dora": {"learning_rate": 0.01},
    "adalora": {"learning_rate": 0.03, "lists": 96},
    "full": {"learning_rate": 0.003},
    "prefix": {"learning_rate": 0.1, "lists": 96},
    "qlora": {"learning_rate": 0.01},
}
GOES_ON: dict[str, dict[str, object]] = {
    "adalora": {"method": "lora", "rank": 12},
    "qlora": {"method": "lora"},
}
"""What an adapter is that another method saved."""


class Run(NamedTuple):
    method: str
    folder: Path
    base: Path


@pytest.fixture(scope="module")
def even_folder(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose layers can be kept in 4 bits on a processor."""
    return make_tunable(tmp_path_factory.mktemp("even") / "model", smollm2_folder, inner=128)


@pytest.fixture(scope="module", params=sorted(GIVEN))
def run(
    request: pytest.FixtureRequest,
    tiny_folder: Path,
    even_folder: Path,
    toy_files: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Run:
    method: str = request.param
    base = even_folder if method == "qlora" else tiny_folder
    folder = tmp_path_factory.mktemp(method)
    settings = tuning_settings(base, method=method, **GIVEN[method])
    tune(settings, [files_in(toy_files)], folder, name=method)
    return Run(method, folder, base)


def test_each_method_learns(run: Run) -> None:
    found = [line["nDCG@10"] for line in read_record(run.folder) if line["kind"] == "validation"]
    assert max(found) > found[0] + 0.15


def test_the_merged_model_scores_as_the_tuned_one(run: Run) -> None:
    """What was saved, merged into the base model, against what was saved, gone on training with."""
    method, folder, base = run
    if method == "prefix":
        pytest.skip("a learned prefix is not merged")
    training = tuning_settings(base, **GOES_ON.get(method, {"method": method})).training
    tuned = TunedNetwork(base, training, dtype="float32")
    tuned.start_from(folder / "adapter")
    plain = load_causal_model(base, "float32")
    assert merge(plain, folder / "adapter") > 0
    with torch.no_grad(), tuned.evaluating():
        found, untuned = tuned.scores(LISTS), tuned.untuned_scores(LISTS)
    for one, ours, before in zip(LISTS, found, untuned, strict=True):
        with torch.no_grad():
            logits = plain(input_ids=torch.tensor([one.prompt.token_ids])).logits[0]
        logprobs = torch.log_softmax(logits.float(), dim=-1)
        expected = [
            float(logprobs[place - 1, one.prompt.token_ids[place]])
            for place in one.prompt.verdict_positions
        ]
        assert ours.tolist() == pytest.approx(expected, abs=2e-3)
        assert max(abs(a - b) for a, b in zip(ours.tolist(), before.tolist(), strict=True)) > 0.05


def test_vllm_is_not_asked_to_serve_what_it_cannot(run: Run, tmp_path: Path) -> None:
    method, folder, _ = run
    with pytest.raises(ConfigError, match="verdict readout"):
        rank_beside(folder / "adapter")
    config = tmp_path / "adapter_config.json"  # of an adapter without a card, as peft saves it
    config.write_bytes((folder / "adapter" / "adapter_config.json").read_bytes())
    if method in GOES_ON:  # is saved as LoRA
        assert rank_beside(tmp_path) == (12 if method == "adalora" else 8)
        return
    remedy = "embedded model" if method == "prefix" else "adapter merge"
    with pytest.raises(ConfigError, match=rf"training\.method = {method}.*{remedy}"):
        rank_beside(tmp_path)


def test_a_training_goes_on_only_by_the_same_method(run: Run) -> None:
    """LoRA and QLoRA are one method there, and what AdaLoRA saves is LoRA."""
    goes_on = {"adalora": ["lora"], "qlora": ["qlora", "lora"]}.get(run.method, [run.method])
    rank = 12 if run.method == "adalora" else 8
    for method in ("lora", "qlora", "dora", "adalora"):
        if method == "qlora" and run.base.parent.name.startswith("tiny"):
            continue  # a model that cannot be kept in 4 bits
        settings = tuning_settings(run.base, method=method, rank=rank)
        network = TunedNetwork(run.base, settings.training, dtype="float32")
        if method in goes_on:
            assert network.start_from(run.folder / "adapter")
            continue
        saved = "lora" if run.method in GOES_ON else run.method
        with pytest.raises(ConfigError, match=rf"set training\.method = {saved}"):
            network.start_from(run.folder / "adapter")


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_before_the_first_step_the_model_is_as_it_was(
    tiny_folder: Path, method: str, dtype: str
) -> None:
    network = TunedNetwork(
        tiny_folder, tuning_settings(tiny_folder, method=method).training, dtype=dtype
    )
    with torch.no_grad(), network.evaluating():
        found, before = network.scores(LISTS), network.untuned_scores(LISTS)
    for ours, untuned in zip(found, before, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, untuned, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["lora", "dora", "adalora", "full"])
def test_recomputing_gives_the_same_gradients(tiny_folder: Path, method: str) -> None:
    passes: list[int] = []

    def gradients(**training: object) -> dict[str, torch.Tensor]:
        settings = tuning_settings(tiny_folder, method=method, **training).training
        network = TunedNetwork(tiny_folder, settings, dtype="float32")
        (layer,) = (
            module
            for name, module in network.wrapped.named_modules()
            if name.endswith("0.self_attn")
        )
        layer.register_forward_hook(lambda *_: passes.append(1))
        torch.stack([scores.mean() for scores in network.scores(LISTS)]).sum().backward()
        found = {name: p.grad for name, p in network.trained.items() if p.grad is not None}
        assert found
        return found

    kept = gradients()
    assert len(passes) == 1
    again = gradients(gradient_checkpointing=True)
    assert len(passes) == 3
    assert kept.keys() == again.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_model_in_four_bits_is_the_rounded_model(even_folder: Path) -> None:
    """Its layers take 4 bits a weight, and it is known as the model that it was made of."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn import Linear4bit

    def network(method: str) -> TunedNetwork:
        settings = tuning_settings(even_folder, method=method).training
        return TunedNetwork(even_folder, settings, dtype="float32")

    small, whole = network("qlora"), network("lora")
    assert small.fingerprint == whole.fingerprint
    layers = {n: m for n, m in small.wrapped.named_modules() if isinstance(m, Linear4bit)}
    assert len(layers) == 2 * 7
    for name, layer in layers.items():
        assert layer.weight.nbytes * 2 == layer.in_features * layer.out_features
        rounded = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        plain = whole.wrapped.get_submodule(name).weight
        assert 0 < (plain - rounded).abs().max() < 0.25 * plain.abs().max()
        plain.data = rounded
    for _ in range(2):  # what evaluating leaves behind can be trained
        with torch.no_grad(), small.evaluating(), whole.evaluating():
            found, expected = torch.cat(small.scores(LISTS)), torch.cat(whole.scores(LISTS))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
        torch.cat(small.scores(LISTS)).mean().backward()
    assert all(p.grad is not None for p in small.trained.values())


def test_four_bits_are_refused_where_nothing_computes_them(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reranker.models.loading.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"training\.method = qlora.*train,qlora"):
        load_causal_model(tiny_folder, "float32", four_bits=True)


def test_layers_that_processors_compute_wrongly_in_four_bits_are_refused(
    tiny_folder: Path,
) -> None:
    """bitsandbytes 0.50.2 reads rows there as if blocks of 64 weights never crossed them."""
    with pytest.raises(ConfigError, match=r"qlora.*down_proj has 96 inputs.*64"):
        load_causal_model(tiny_folder, "float32", on_processor=True, four_bits=True)


@pytest.fixture(scope="module")
def prefixed(tiny_folder: Path, toy_files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefixed")
    settings = tuning_settings(tiny_folder, method="prefix", prefix_tokens=5, lists=8)
    tune(settings, [files_in(toy_files)], folder, name="prefixed")
    return folder / "adapter"


def test_the_embedded_model_reads_behind_a_learned_prefix(
    prefixed: Path, tiny_folder: Path
) -> None:
    """One prompt and several, with kept prompt starts and without, as in training."""
    training = tuning_settings(tiny_folder, method="prefix", prefix_tokens=5).training
    tuned = TunedNetwork(tiny_folder, training, dtype="float32")
    tuned.start_from(prefixed)
    start = LISTS[0].prompt.token_ids[:20]
    lists = [random_list(seed, 4, 60 + seed) for seed in range(3)]
    prompts = [
        one.prompt.model_copy(
            update={
                "token_ids": (*start, *one.prompt.token_ids[20:]),
                "verdict_positions": tuple(range(30, 50, 5)),
            }
        )
        for one in lists
    ]
    given = [one.model_copy(update={"prompt": p}) for one, p in zip(lists, prompts, strict=True)]
    with torch.no_grad(), tuned.evaluating():
        expected = [scores.tolist() for scores in tuned.scores(given)]
        untuned = [scores.tolist() for scores in tuned.untuned_scores(given)]
    model = load_causal_model(tiny_folder, "float32")
    scorer = CausalScorer(model, prefixes=4, learned=learned_prefix(model, prefixed))
    for _ in range(2):  # the second time from what was kept
        for found, wanted in zip(scorer.score(prompts), expected, strict=True):
            assert found == pytest.approx(wanted, abs=1e-4)
    assert len(scorer.prefixes) == 1
    for prompt, wanted in zip(prompts, expected, strict=True):
        (found,) = scorer.score([prompt])
        assert found == pytest.approx(wanted, abs=1e-4)
    assert abs(expected[0][0] - untuned[0][0]) > 0.01


def test_a_learned_prefix_is_kept_from_where_it_does_not_fit(
    prefixed: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=r"cannot be merged.*model\.adapter = "):
        write_merged(tiny_folder, prefixed, tmp_path / "merged", name="tiny", dtype="float32")
    assert not (tmp_path / "merged").exists()
    network = TunedNetwork(
        tiny_folder, tuning_settings(tiny_folder, method="prefix").training, dtype="float32"
    )
    with pytest.raises(ConfigError, match=r"set training\.prefix_tokens = 5"):
        network.start_from(prefixed)
    training = tuning_settings(tiny_folder, method="prefix", gradient_checkpointing=True).training
    with pytest.raises(ConfigError, match=r"training\.gradient_checkpointing: does not go"):
        TunedNetwork(tiny_folder, training, dtype="float32")
    plain = EmbeddedModel(tiny_folder, ModelSettings(name=str(tiny_folder), adapter="none"))
    tuned = EmbeddedModel(tiny_folder, ModelSettings(name=str(tiny_folder), adapter=str(prefixed)))
    assert tuned.spec.context_length == plain.spec.context_length - 5
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    save_file({"prompt_embeddings": torch.zeros(5, 8)}, damaged / "adapter_model.safetensors")
    with pytest.raises(DataError, match="does not fit the model"):
        learned_prefix(load_causal_model(tiny_folder, "float32"), damaged)


def test_the_vocabulary_is_not_trained_and_bfloat16_keeps_small_steps(tiny_folder: Path) -> None:
    training = tuning_settings(tiny_folder, method="full").training
    network = TunedNetwork(tiny_folder, training, dtype="bfloat16")
    assert {p.dtype for p in network.trained.values()} == {torch.float32}
    assert not any("embed" in name or "head" in name for name in network.trained)
    exact = TunedNetwork(tiny_folder, training, dtype="float32")
    with torch.no_grad():
        found = network.scores(LISTS)
        assert all(score.dtype == torch.float32 for score in found)
        pairs = zip(found, exact.scores(LISTS), strict=True)
        assert all(torch.allclose(a, b, atol=0.3) for a, b in pairs)


def test_dropout_is_on_in_training_and_off_in_judging(tiny_folder: Path) -> None:
    training = tuning_settings(tiny_folder, dropout=0.5).training
    network = TunedNetwork(tiny_folder, training, dtype="float32")
    assert network.method.lean_layers == 0
    with torch.no_grad():
        for parameter in network.trained.values():
            parameter.add_(0.1)
        first, second = network.scores(LISTS[:1])[0], network.scores(LISTS[:1])[0]
        assert not torch.allclose(first, second)
        with network.evaluating():
            first, second = network.scores(LISTS[:1])[0], network.scores(LISTS[:1])[0]
        assert torch.equal(first, second)
