"""What the README shows is run."""

import re
import shlex
from pathlib import Path

import pytest
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from typer.testing import CliRunner

from reranker.cli.app import app

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


GROUPS = {
    *("catalogue", "behaviour", "privacy", "index", "llm", "benchmark"),
    *("labels", "adapter", "evaluate", "interest"),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def test_the_python_examples(
    seed_store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SHELFWISE_STORE__PATH", str(seed_store))
    first, *others = blocks("python")
    exec(compile(first, "README.md", "exec"), {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("model smollm2-135m-shopper@")
    given = {
        "my_chat_model": FakeListChatModel(responses=['{"ranking": ["B", "A", "C"]}']),
        "documents": [Document(page_content=text) for text in ("a phone", "a tablet")],
    }
    for example in others:
        exec(compile(example, "README.md", "exec"), given)
    assert len(given["ranked"]) == 2
    assert {document.id for document in given["found"]} == {"laptop", "smartphone", "tablet"}
    assert given["result"].outcome == "model"
    given["shelf"].close()


def test_the_settings_example(tmp_path: Path) -> None:
    from reranker.settings import Settings

    (example,) = blocks("toml")
    file = tmp_path / "shelfwise.toml"
    file.write_text(example, encoding="utf-8")
    assert Settings.load(file).model.name == "smollm2-135m-instruct"


def test_every_command_and_option_that_is_shown_exists() -> None:
    shown = [
        shlex.split(line.partition("#")[0])[1:]
        for block in blocks("sh")
        for line in block.splitlines()
        if line.startswith("shelfwise ")
    ]
    assert len(shown) >= 6
    for words in shown:
        grouped = words[0] in GROUPS and not words[1].startswith("--")
        depth = 2 if grouped else 1
        help_text = CliRunner().invoke(app, [*words[:depth], "--help"])
        assert help_text.exit_code == 0, words
        for option in (word for word in words if word.startswith("--")):
            assert option in help_text.output, words
