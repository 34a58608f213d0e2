import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from reranker.cli.app import app
from reranker.errors import ConfigError, ShelfwiseError
from reranker.training.record import read_record
from tuning_shop import shop_files


def run(*arguments: object) -> dict[str, object]:
    ended = CliRunner().invoke(app, [*map(str, arguments), "--json"], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    found: dict[str, object] = json.loads(ended.stdout)
    return found


def test_from_purchases_to_a_served_folder(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = shop_files(tmp_path / "toy", shoppers=20)
    named = ["--set", f"model.name={tiny_folder}", "--set", "model.dtype=float32"]
    training = {
        "lists": 8, "batch": 4, "candidates": 5, "teacher": 0.5, "learning_rate": 0.01,
        "validation_shoppers": 4, "validate_every": 1,
    }  # fmt: skip
    sets = [
        part for name, value in training.items() for part in ("--set", f"training.{name}={value}")
    ]
    card = run("tune", data, "--out", tmp_path / "run", "--name", "toy", *named, *sets)
    assert card["readout"] == "verdict"

    adapter = tmp_path / "run" / "adapter"
    shown = run("adapter", "show", adapter)
    assert shown["name"] == "toy"
    (source,) = shown["data"]["sources"]  # type: ignore[index]
    assert source["purchases"] == 16

    measured = run(
        "adapter", "evaluate", adapter, data, *named, "--set", "training.validation_shoppers=4"
    )
    assert measured["measures"]["lists"] == 4  # type: ignore[index]

    merged = run("adapter", "merge", adapter, "--out", tmp_path / "merged", *named)
    assert merged["weights_sha256"] == card["weights_sha256"]
    assert (tmp_path / "merged" / "model.safetensors").is_file()

    run("tune", data, "--out", tmp_path / "next", "--from", adapter, *named, *sets)
    before = next(line for line in read_record(tmp_path / "next") if line["kind"] == "validation")
    assert before["nDCG@10"] == card["validation"]["nDCG@10"]  # type: ignore[index]

    # What lies in the user's cache folder can be called by its name.
    monkeypatch.setenv("SHELFWISE_CACHE", str(tmp_path / "cache"))
    shutil.copytree(adapter, tmp_path / "cache" / "adapters" / "mine")
    ended = CliRunner().invoke(app, ["adapter", "list", "--json"])
    names = [Path(one["folder"]).name for one in json.loads(ended.stdout)]
    assert "mine" in names
    assert run("adapter", "show", "mine")["name"] == "toy"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to learn from"),
        (["EMPTY"], "products.parquet is missing"),
        (["DATA", "--weight", "1", "--weight", "2"], "2 are given for 1 sources"),
        (["DATA", "--weight", "0"], "--weight 0: must be a number above 0"),
        (["DATA", "--weight", "-1"], "--weight -1: must be a number above 0"),
        (["DATA", "--weight", "nan"], "--weight nan: must be a number above 0"),
        (["DATA", "--weight", "inf"], "--weight inf: must be a number above 0"),
        (["DATA", "--name", "A B"], "--name 'A B': the name of an adapter is of small letters"),
        (["DATA", "--published"], "--published: speaks of the behaviour of a store"),
        (["DATA", "--until", "2026-01-01"], "--until: speaks of the behaviour of a store"),
        (["DATA", "--out", "FILE"], "a-file is a file: name a folder"),
        (["DATA", "--out", "UNDER"], "a-file is a file: name a folder"),
    ],
)
def test_what_cannot_be_tuned_is_named(arguments: list[str], message: str, tmp_path: Path) -> None:
    shop_files(tmp_path / "data")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a-file").write_text("something else", encoding="utf-8")
    places = {
        "EMPTY": str(tmp_path / "empty"),
        "DATA": str(tmp_path / "data"),
        "FILE": str(tmp_path / "a-file"),
        "UNDER": str(tmp_path / "a-file" / "run"),
    }
    line = ["tune", "--out", str(tmp_path / "run"), *(places.get(a, a) for a in arguments)]
    ended = CliRunner().invoke(app, line)
    assert ended.exit_code == 1
    assert isinstance(ended.exception, ShelfwiseError)
    assert message in str(ended.exception)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("adapter", "cause"),
    [
        ("none", "model.adapter names none"),
        ("auto", "tuned for the verdict readout"),
        ("no-such-adapter", "no-such-adapter"),
    ],
)
def test_what_cannot_be_compared_beside_its_base_is_named(adapter: str, cause: str) -> None:
    arguments = ["benchmark", "equality", "--lora", "--set", f"model.adapter={adapter}"]
    ended = CliRunner().invoke(app, arguments)
    assert isinstance(ended.exception, ConfigError)
    assert cause in str(ended.exception)
    assert ("leave out --lora" in str(ended.exception)) == (adapter != "no-such-adapter")
