"""AdaLoRA: ranks move between layers, and a training goes on as if it had never stopped."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from reranker.cli.tune import files_in
from reranker.errors import ConfigError
from reranker.models.adapter import read_card
from reranker.training.network import TunedNetwork
from reranker.training.tuning import tune
from tuning_shop import random_list, tuning_settings

LISTS = [random_list(1, 5, 40), random_list(2, 3, 33)]


def test_ranks_move_to_the_layers_that_need_them(
    tiny_folder: Path, toy_files: Path, tmp_path: Path
) -> None:
    """In the end there are as many ranks as the setting says for each layer, in other places."""
    given = {"method": "adalora", "rank": 4, "average": 0.98, "learning_rate": 0.03, "lists": 96}
    settings = tuning_settings(tiny_folder, **given)
    tune(settings, [files_in(toy_files)], tmp_path, name="adalora")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    ranks = [
        int((tensor.abs().sum(dim=1) > 0).sum())
        for name, tensor in saved.items()
        if ".lora_A." in name
    ]
    assert (len(ranks), sum(ranks)) == (14, 4 * 14)
    assert len(set(ranks)) > 1
    assert {tensor.shape[0] for name, tensor in saved.items() if ".lora_A." in name} == {6}
    assert read_card(tmp_path / "adapter").training["method"] == "adalora"


def test_a_training_whose_ranks_move_goes_on_as_if_never_stopped(
    tiny_folder: Path, toy_files: Path, tmp_path: Path
) -> None:
    settings = tuning_settings(tiny_folder, method="adalora", lists=96)

    def stop(stage: str, done: int, _total: int) -> None:
        if stage.startswith("tuning") and done == 52:
            raise KeyboardInterrupt

    tune(settings, [files_in(toy_files)], tmp_path / "whole", name="x")
    with pytest.raises(KeyboardInterrupt):
        tune(settings, [files_in(toy_files)], tmp_path / "stopped", name="x", progress=stop)
    longer = tuning_settings(tiny_folder, method="adalora", lists=160)
    with pytest.raises(ConfigError, match="with other settings"):
        tune(longer, [files_in(toy_files)], tmp_path / "stopped", name="x")
    tune(settings, [files_in(toy_files)], tmp_path / "stopped", name="x")
    expected, found = (
        torch.load(tmp_path / run / "checkpoint.pt", weights_only=True)
        for run in ("whole", "stopped")
    )
    for part in ("weights", "average", "best_weights", "method_state"):
        assert expected[part].keys() == found[part].keys()
        for name, tensor in expected[part].items():
            torch.testing.assert_close(found[part][name], tensor, rtol=0, atol=1e-6)


def test_the_lean_layers_of_adalora_compute_what_its_own_do(tiny_folder: Path) -> None:
    training = tuning_settings(tiny_folder, method="adalora").training
    lean = TunedNetwork(tiny_folder, training, dtype="float32")
    own = TunedNetwork(tiny_folder, training, dtype="float32", lean=False)
    assert (lean.method.lean_layers, own.method.lean_layers) == (14, 0)
    torch.manual_seed(3)
    moved = {name: p + 0.2 * torch.randn_like(p) for name, p in lean.state().items()}
    gradients = []
    for network in (lean, own):
        network.restore(moved)
        added = network.method.regularisation()
        assert added is not None
        (torch.stack([s.mean() for s in network.scores(LISTS)]).sum() + added).backward()
        gradients.append({name: p.grad for name, p in network.trained.items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-3, atol=1e-5)


def test_adalora_takes_some_steps(tiny_folder: Path) -> None:
    training = tuning_settings(tiny_folder, method="adalora", lists=12, batch=4).training
    with pytest.raises(ConfigError, match=r"training\.lists = 12 makes 3: set more lists"):
        TunedNetwork(tiny_folder, training, dtype="float32")
    for name, value in (("patience", 2), ("rank_stabilised", True)):
        training = tuning_settings(
            tiny_folder, method="adalora", lists=96, **{name: value}
        ).training
        with pytest.raises(ConfigError, match=rf"training\.{name}: does not go with"):
            TunedNetwork(tiny_folder, training, dtype="float32")
