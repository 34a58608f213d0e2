"""What DoRA, whole weights, dropout and recomputing learn, save, and are refused for."""

from pathlib import Path

import pytest
import torch

from reranker.cli.tune import files_in
from reranker.errors import ConfigError
from reranker.models.loading import load_causal_model
from reranker.models.merging import merge
from reranker.models.vllm.beside import rank_beside
from reranker.training.network import TunedNetwork
from reranker.training.record import read_record
from reranker.training.tuning import tune
from tuning_shop import random_list, shop_files, tiny_model, tuning_settings

LISTS = [random_list(1, 5, 40), random_list(2, 3, 33)]
RATES = {"dora": 0.01, "full": 0.003}


@pytest.fixture(scope="module")
def model(smollm2_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(smollm2_folder, tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shop_files(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture(scope="module", params=["dora", "full"])
def run(
    request: pytest.FixtureRequest,
    model: Path,
    data: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path]:
    method: str = request.param
    folder = tmp_path_factory.mktemp(method)
    settings = tuning_settings(model, method=method, learning_rate=RATES[method])
    tune(settings, [files_in(data)], folder, name=method)
    return method, folder


def test_each_method_learns(run: tuple[str, Path]) -> None:
    _, folder = run
    found = [line["nDCG@10"] for line in read_record(folder) if line["kind"] == "validation"]
    assert max(found) > found[0] + 0.15


def test_the_merged_model_scores_as_the_tuned_one(run: tuple[str, Path], model: Path) -> None:
    """What was saved, merged into the base model, against what was saved, gone on training with."""
    method, folder = run
    training = tuning_settings(model, method=method).training
    tuned = TunedNetwork(model, training, dtype="float32")
    tuned.start_from(folder / "adapter")
    plain = load_causal_model(model, "float32")
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


def test_vllm_is_not_asked_to_serve_what_it_cannot(run: tuple[str, Path], tmp_path: Path) -> None:
    method, folder = run
    with pytest.raises(ConfigError, match="verdict readout"):
        rank_beside(folder / "adapter")
    config = tmp_path / "adapter_config.json"  # of an adapter without a card, as peft saves it
    config.write_bytes((folder / "adapter" / "adapter_config.json").read_bytes())
    with pytest.raises(ConfigError, match=rf"training\.method = {method}.*adapter merge"):
        rank_beside(tmp_path)


def test_a_training_goes_on_only_by_the_same_method(run: tuple[str, Path], model: Path) -> None:
    method, folder = run
    other = TunedNetwork(model, tuning_settings(model).training, dtype="float32")
    with pytest.raises(ConfigError, match=rf"set training\.method = {method}"):
        other.start_from(folder / "adapter")


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_before_the_first_step_the_model_is_as_it_was(model: Path, method: str, dtype: str) -> None:
    network = TunedNetwork(model, tuning_settings(model, method=method).training, dtype=dtype)
    with torch.no_grad(), network.evaluating():
        found, before = network.scores(LISTS), network.untuned_scores(LISTS)
    for ours, untuned in zip(found, before, strict=True):
        assert ours.dtype == torch.float32
        torch.testing.assert_close(ours, untuned, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", ["lora", "dora", "full"])
def test_recomputing_gives_the_same_gradients(model: Path, method: str) -> None:
    passes: list[int] = []

    def gradients(**training: object) -> dict[str, torch.Tensor]:
        settings = tuning_settings(model, method=method, **training).training
        network = TunedNetwork(model, settings, dtype="float32")
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


def test_the_vocabulary_is_not_trained_and_bfloat16_keeps_small_steps(model: Path) -> None:
    training = tuning_settings(model, method="full").training
    network = TunedNetwork(model, training, dtype="bfloat16")
    assert {p.dtype for p in network.trained.values()} == {torch.float32}
    assert not any("embed" in name or "head" in name for name in network.trained)
    exact = TunedNetwork(model, training, dtype="float32")
    with torch.no_grad():
        found = network.scores(LISTS)
        assert all(score.dtype == torch.float32 for score in found)
        pairs = zip(found, exact.scores(LISTS), strict=True)
        assert all(torch.allclose(a, b, atol=0.3) for a, b in pairs)


def test_dropout_is_on_in_training_and_off_in_judging(model: Path) -> None:
    training = tuning_settings(model, dropout=0.5).training
    network = TunedNetwork(model, training, dtype="float32")
    assert network.lean_layers == 0
    with torch.no_grad():
        for parameter in network.trained.values():
            parameter.add_(0.1)
        first, second = network.scores(LISTS[:1])[0], network.scores(LISTS[:1])[0]
        assert not torch.allclose(first, second)
        with network.evaluating():
            first, second = network.scores(LISTS[:1])[0], network.scores(LISTS[:1])[0]
        assert torch.equal(first, second)
