import json
import sys
from pathlib import Path

import pytest

from eval.convert.converters import converter_names
from evaluation_shop import ShopFiles, make_shop
from reranker.cli.app import main
from reranker.cli.evaluate import KINDS


class Ended:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, " ".join(out.split()), " ".join(err.split())


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["shelfwise", "evaluate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        return Ended(int(ended.value.code or 0), captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> ShopFiles:
    return make_shop(tmp_path_factory.mktemp("shop"))


def files_of(shop: ShopFiles) -> tuple[object, ...]:
    return ("--products", shop.products, "--cases", shop.cases, "--histories", shop.histories)


def test_an_evaluation_writes_its_report_and_its_twin(run, shop: ShopFiles, tmp_path: Path) -> None:
    ended = run(
        *files_of(shop), "--rankers", "random,cooccurrence,full-nollm,interest",
        "--json", "out.json", "--report", "out.html", "--prove-time", 5,
        "--measures", "nDCG@10,P@1", "--seed", 3,
        "--compare-with", "random",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    assert "cooccurrence" in ended.out
    assert "every order was the same" in ended.out
    result = json.loads((tmp_path / "out.json").read_text())
    assert [each["measure"] for each in result["rankers"][0]["measures"]] == ["nDCG@10", "P@1"]
    assert result["settings"]["evaluation.seed"] == "3"
    assert result["command"].startswith("shelfwise evaluate --products")
    assert "All rankers" in (tmp_path / "out.html").read_text()
    assert (tmp_path / "out.json.work" / "ranked").is_dir()


def test_the_language_model_with_its_ablations(run, shop: ShopFiles, tmp_path: Path) -> None:
    ended = run(
        *files_of(shop), "--rankers", "llm,full", "--limit", 2, "--ablation-cases", 2,
        "--json", "out.json", "--report", "out.html",
    )  # fmt: skip
    assert ended.code == 0, ended.err
    result = json.loads((tmp_path / "out.json").read_text())
    assert [each["without"] for each in result["ablations"]] == [
        "llm-noprofile",
        "llm-otherprofile",
        "llm-reshuffled",
        "full-nollm",
    ]
    assert result["focus"] == "full"
    model = result["rankers"][0]["model"]
    assert sum(model["outcomes"].values()) == 2
    assert "What became of the questions" in (tmp_path / "out.html").read_text()


def test_defects_are_listed_by_row(run, shop: ShopFiles, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in shop.cases.read_text().splitlines()][:3]
    rows[1]["candidates"] = []
    file = tmp_path / "cases.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    ended = run("--products", shop.products, "--cases", file, "--rankers", "random")
    assert ended.code == 3
    assert (
        "2 case 1 candidates error an empty list; write null for the whole catalogue" in ended.out
    )
    assert "Traceback" not in ended.err
    checked = run("check", file, "--products", shop.products, "--json")
    assert checked.code == 3
    assert json.loads(checked.out)["counts"] == {"candidates-empty": 1}
    assert run("check", shop.cases, "--products", shop.products).code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "--products FILE is needed"),
        (["--products", "gone.csv", "--cases", "gone.jsonl"], 3, "gone.csv"),
        (["--products", "p", "--cases", "c", "--rankers", ""], 2, "rankers"),
        (["convert", "nothing"], 2, "cannot be converted"),
        (["check", "gone.jsonl"], 3, "gone.jsonl"),
        (["--products", "p", "--cases", "c", "--json", "."], 2, "--json .: this is a folder"),
        (["--products", "p", "--cases", "c", "--report", "/dev/null/p"], 2, "written in /dev/null"),
    ],
)
def test_mistakes_end_with_a_message_and_a_code(
    run, arguments: list[str], code: int, message: str
) -> None:
    ended = run(*arguments)
    assert ended.code == code
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_json_names_a_file_and_errors_stay_readable(run, shop: ShopFiles) -> None:
    ended = run(*files_of(shop), "--rankers", "randon", "--json", "out.json")
    assert ended.code == 2
    assert ended.err.startswith("ConfigError: ranker 'randon': unknown")


def test_figures_are_whole_in_a_narrow_terminal(
    run, shop: ShopFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    ended = run(*files_of(shop), "--rankers", "random,cooccurrence", "--prove-time", 0)
    for name in ("cooccurrence", "nDCG@10", "HitRate@10", "95 % of nDCG@10"):
        assert name in ended.out
    assert "…" not in ended.out


def test_the_rankers_are_listed(run) -> None:
    listed = run("rankers")
    assert listed.code == 0
    for name in ("random", "llm-noprofile", "full"):
        assert name in listed.out
    assert json.loads(run("rankers", "--json").out)["random"]


def test_the_help_of_convert_names_every_kind() -> None:
    assert KINDS.split(", ") == list(converter_names())


def test_converting_says_what_comes_next(run, tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_text('{"id": 1, "title": "F"}\n{"id": 2, "title": "G"}\n')
    group = {"id": 1, "user": "u", "ts": 1636993834, "shown": [1, 2], "liked": [1]}
    (tmp_path / "ranking.jsonl").write_text(json.dumps(group))
    ended = run("convert", "ranklens", tmp_path, "--to", tmp_path / "cases")
    assert ended.code == 0, ended.err
    assert "next: shelfwise evaluate --products" in ended.out
    again = run("convert", "ranklens", tmp_path, "--to", tmp_path / "cases", "--json")
    assert Path(json.loads(again.out)["files"]["--cases"]).exists()
