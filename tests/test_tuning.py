import json
import os
import shutil
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from reranker.cli.tune import _moment, files_in
from reranker.errors import ConfigError, DataError
from reranker.models.adapter import AdapterCard, read_card, read_data_card
from reranker.ports import no_progress
from reranker.settings import Settings
from reranker.training.checkpoint import CHECKPOINT_FILE
from reranker.training.examples import PurchaseExamples
from reranker.training.record import read_record
from reranker.training.run import TuningRun
from reranker.training.tuning import tune
from tuning_shop import tuning_settings

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tuning_shop import tuning_settings
from reranker.cli.tune import files_in
from reranker.training.tuning import tune

def progress(stage, done, total):
    if stage.startswith("tuning") and done >= 20:
        os.kill(os.getpid(), signal.SIGKILL)

tune(
    tuning_settings(Path({model!r})), [files_in(Path({data!r}))], Path({run!r}), name="toy",
    progress=progress,
)
"""


@pytest.fixture(scope="module")
def settings(tiny_folder: Path) -> Settings:
    return tuning_settings(tiny_folder)


@pytest.fixture(scope="module")
def whole(
    settings: Settings, toy_files: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, AdapterCard]:
    """A training that nothing interrupts."""
    run = tmp_path_factory.mktemp("whole")
    return run, tune(settings, [files_in(toy_files)], run, name="toy")


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run / CHECKPOINT_FILE, weights_only=True)["weights"]
    return found


def test_training_learns_what_can_be_learnt(
    tiny_folder: Path, toy_files: Path, tmp_path: Path
) -> None:
    settings = tuning_settings(tiny_folder, lists=96, sales_dropout=0.0)
    card = tune(settings, [files_in(toy_files)], tmp_path, name="toy")
    losses = [line["loss"] for line in read_record(tmp_path) if line["kind"] == "step"]
    assert len(losses) == 24
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    untrained = next(line for line in read_record(tmp_path) if line["kind"] == "validation")
    assert untrained["step"] == 0
    assert card.validation["nDCG@10"] > untrained["nDCG@10"] + 0.15


def test_the_adapter_says_what_it_is_for(
    whole: tuple[Path, AdapterCard], settings: Settings
) -> None:
    run, card = whole
    assert read_card(run / "adapter") == card
    assert card.readout == "verdict"
    assert card.answer == (" yes",)
    assert [template.name for template in card.templates] == ["listwise_verdict"]
    assert card.validation["lists"] == 8
    assert 0 < card.training["lists_seen"] <= 48
    assert card.base.name == settings.model.name
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == settings.model.name
    (source,) = read_data_card(run / "adapter").sources
    assert (source.purchases, source.shoppers, source.products) == (52, 52, 40)


def test_a_killed_training_ends_with_the_same_weights(
    whole: tuple[Path, AdapterCard], settings: Settings, toy_files: Path, tmp_path: Path
) -> None:
    code = KILLED.format(
        tests=str(Path(__file__).parent),
        model=settings.model.name,
        data=str(toy_files),
        run=str(tmp_path),
    )
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    died = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    step = torch.load(tmp_path / CHECKPOINT_FILE, weights_only=True)["step"]
    assert 0 < step < 12
    tune(settings, [files_in(toy_files)], tmp_path, name="toy")
    expected, found = weights(whole[0]), weights(tmp_path)
    assert expected.keys() == found.keys()
    assert max(float((expected[n] - found[n]).abs().max()) for n in expected) <= 1e-6
    steps = [line["step"] for line in read_record(tmp_path) if line["kind"] == "step"]
    assert steps == list(range(1, 13))


def test_two_processes_train_as_one(
    whole: tuple[Path, AdapterCard], settings: Settings, toy_files: Path, tmp_path: Path
) -> None:
    """Started by accelerate's own launcher, over gloo; a step's lists are shared out to both."""
    values = settings.training.model_dump(mode="json", exclude_defaults=True)
    given = {
        "model.name": settings.model.name,
        "model.dtype": "float32",
        "ranking.card_tokens": 16,
        **{f"training.{name}": value for name, value in values.items()},
    }
    sets = [part for name, value in given.items() for part in ("--set", f"{name}={value}")]
    program = tmp_path / "shelfwise.py"
    program.write_text("from reranker.cli.app import main\nmain()\n")
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launch += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launch += ["--main_process_port", "0", "--num_cpu_threads_per_process", "1"]
    run = tmp_path / "run"
    tune = [
        str(program),
        "tune",
        str(toy_files),
        "--out",
        str(run),
        "--name",
        "toy",
        "--json",
        *sets,
    ]
    done = subprocess.run([sys.executable, *launch, *tune], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["name"] == "toy"  # one of them speaks
    expected, found = weights(whole[0]), weights(run)
    assert expected.keys() == found.keys()
    assert max(float((expected[n] - found[n]).abs().max()) for n in expected) <= 1e-3
    steps, alone = (
        [line for line in read_record(folder) if line["kind"] == "step"]
        for folder in (run, whole[0])
    )
    assert [line["tokens"] for line in steps] == [line["tokens"] for line in alone]
    assert steps[0]["loss"] == pytest.approx(alone[0]["loss"], abs=1e-5)
    assert not (run / "data" / "1").exists()


def test_a_folder_whose_lists_would_be_made_otherwise_is_refused(
    settings: Settings,
    whole: tuple[Path, AdapterCard],
    toy_files: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(PurchaseExamples, "_sold", lambda *given: (None,) * len(given[2]))
    with pytest.raises(ConfigError, match="other settings or data"):
        tune(settings, [files_in(toy_files)], whole[0], name="toy")


def test_a_folder_of_another_training_is_refused(
    whole: tuple[Path, AdapterCard], tiny_folder: Path, toy_files: Path
) -> None:
    other = tuning_settings(tiny_folder, learning_rate=0.02)
    with pytest.raises(ConfigError, match="other settings or data"):
        tune(other, [files_in(toy_files)], whole[0], name="toy")


def test_a_training_may_start_from_an_adapter_and_owns_what_that_has_learnt(
    whole: tuple[Path, AdapterCard], tiny_folder: Path, toy_files: Path, tmp_path: Path
) -> None:
    start = whole[0] / "adapter"
    settings = tuning_settings(tiny_folder, lists=4, validate_every=1, learning_rate=1e-4)
    tune(settings, [files_in(toy_files)], tmp_path / "more", name="more", start=start)
    first = next(line for line in read_record(tmp_path / "more") if line["kind"] == "validation")
    assert first["nDCG@10"] == pytest.approx(whole[1].validation["nDCG@10"], abs=1e-6)
    (source,) = read_data_card(start).sources
    assert source.seen == whole[1].training["lists_seen"] > 0
    card = read_card(tmp_path / "more" / "adapter")
    validations = [p for p in read_record(tmp_path / "more") if p["kind"] == "validation"]
    best = max(validations, key=lambda point: point["nDCG@10"])["step"]
    (more,) = read_data_card(tmp_path / "more" / "adapter").sources
    assert more.seen == card.training["lists_seen"] == source.seen + 4 * best
    other = tuning_settings(tiny_folder, alpha=8)
    with pytest.raises(ConfigError, match=r"scaled in another way: set training\.alpha = 32"):
        tune(other, [files_in(toy_files)], tmp_path / "other", name="other", start=start)
    with pytest.raises(ConfigError, match=r"set ranking\.readout = verdict"):
        tune(
            settings,
            [files_in(toy_files)],
            tmp_path / "labels",
            name="labels",
            start=start,
            readout="labels",
        )


def test_an_adapter_set_aside_by_a_killed_writer_is_put_back(
    whole: tuple[Path, AdapterCard], settings: Settings, toy_files: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(whole[0], tmp_path / "run")
    (run / "adapter").rename(run / "adapter.old")
    shutil.copytree(run / "adapter.old", run / "adapter.partial")
    tune(settings, [files_in(toy_files)], run, name="toy")
    assert read_card(run / "adapter").weights_sha256 == whole[1].weights_sha256
    assert not (run / "adapter.old").exists()
    assert not (run / "adapter.partial").exists()


def test_a_run_keeps_the_moment_that_it_was_started_at(tmp_path: Path) -> None:
    given = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert _moment(given, tmp_path / "given") == given
    assert not (tmp_path / "given").exists()
    before = datetime.now(UTC)
    started = _moment(None, tmp_path / "run")
    assert before <= started <= datetime.now(UTC)
    assert _moment(None, tmp_path / "run") == started
    (tmp_path / "run" / "until").write_text("soon")
    with pytest.raises(DataError, match=r"until.*name the moment by --until"):
        _moment(None, tmp_path / "run")


def test_what_an_adapter_has_seen_is_passed_over(
    whole: tuple[Path, AdapterCard], tiny_folder: Path, toy_files: Path, tmp_path: Path
) -> None:
    def first_lists(name: str, start: Path | None, step: int, **training: object) -> object:
        settings = tuning_settings(tiny_folder, **training)
        folder = tmp_path / name
        run = TuningRun(
            settings,
            [files_in(toy_files)],
            folder,
            folder / "work",
            name="toy",
            readout="verdict",
            progress=no_progress,
        )
        if start is not None:
            run.start_from(start)
        return run.trainer([1.0]).lists_of(step)

    start = whole[0] / "adapter"
    (source,) = read_data_card(start).sources
    assert source.seen % 4 == 0
    expected = first_lists("anew", None, source.seen // 4)
    assert first_lists("on", start, 0) == expected
    assert first_lists("anew", None, 0) != expected
    for setting, value in (("seed", 3), ("validation_shoppers", 9)):
        with pytest.raises(ConfigError, match=rf"tuned with training\.{setting} = .* set the same"):
            first_lists(setting, start, 0, **{setting: value})
    damaged = shutil.copytree(start, tmp_path / "damaged")
    (damaged / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(DataError, match=r"adapter_config\.json.*field r"):
        first_lists("damaged-run", damaged, 0)


def test_a_damaged_checkpoint_is_named(
    whole: tuple[Path, AdapterCard], settings: Settings, toy_files: Path, tmp_path: Path
) -> None:
    content = (whole[0] / CHECKPOINT_FILE).read_bytes()
    (tmp_path / CHECKPOINT_FILE).write_bytes(content[: len(content) // 2])
    with pytest.raises(DataError, match=r"checkpoint\.pt: the checkpoint is damaged"):
        tune(settings, [files_in(toy_files)], tmp_path, name="toy")


def test_training_ends_when_validation_stops_getting_better(
    tiny_folder: Path, toy_files: Path, tmp_path: Path
) -> None:
    # Steps too small to change any order: no validation is better than the untuned model's.
    still = tuning_settings(tiny_folder, learning_rate=1e-12, validate_every=1, patience=2)
    tune(still, [files_in(toy_files)], tmp_path, name="toy")
    assert len([line for line in read_record(tmp_path) if line["kind"] == "step"]) == 2


def test_labels_can_be_tuned_too(tiny_folder: Path, toy_files: Path, tmp_path: Path) -> None:
    settings = tuning_settings(tiny_folder, lists=8, validate_every=2)
    card = tune(settings, [files_in(toy_files)], tmp_path, name="toy", readout="labels")
    assert card.readout == "labels"
    assert card.answer[:3] == ("A", "B", "C")
    assert [template.name for template in card.templates] == ["listwise_labels"]
