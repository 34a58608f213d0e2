from pathlib import Path

import pytest

from reranker.errors import ConfigError
from reranker.settings import Settings, flatten, origins


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "shelfwise.toml"
    path.write_text('[model]\nname = "from-file"\nthreads = 1\n[ranking]\nwindow = 12\n')
    return path


def test_later_sources_win(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELFWISE_RANKING__WINDOW", "13")
    monkeypatch.setenv("SHELFWISE_MODEL__THREADS", "2")
    settings = Settings.load(file, {"model.threads": 3})
    assert (settings.model.name, settings.ranking.window, settings.model.threads) == (
        "from-file",
        13,
        3,
    )
    found = origins(file, {"model.threads": 3})
    assert found["model.name"] == "file"
    assert found["ranking.window"] == "environment"
    assert found["model.threads"] == "argument"
    assert found["ranking.seed"] == "default"


def test_the_working_folder_s_file_is_found(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert Settings.load().model.name == "from-file"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ranking.window": "many"}, r"ranking.window \(argument\).*'many'"),
        ({"ranking.windw": 3}, r"ranking.windw \(argument\): unknown; there are ranking.*window"),
        ({"ranking.window": 0}, "greater than or equal to 2"),
    ],
)
def test_a_wrong_setting_is_named(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Settings.load(None, arguments)


def test_a_section_given_as_a_value_is_named() -> None:
    with pytest.raises(ConfigError, match=r"model.name \(argument\): model is given as a value"):
        Settings.load(None, {"model": 3, "model.name": "x"})


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("SHELFWISE_RANKNG__WINDOW", "SHELFWISE_RANKNG__WINDOW: unknown; known are .*RANKING__"),
        ("SHELFWISE_RANKING__WINDW", r"ranking.windw \(environment\): unknown"),
        ("SHELFWISE_MODEL", "environment variable"),
    ],
)
def test_a_wrong_environment_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, variable: str, message: str
) -> None:
    monkeypatch.setenv(variable, "nonsense")
    with pytest.raises(ConfigError, match=message):
        Settings.load()


def test_a_setting_given_a_section_s_place_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text("model = 3\n")
    with pytest.raises(ConfigError, match=r"setting model \(file\)"):
        Settings.load(path)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        Settings.load(tmp_path / "gone.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[model\n")
    with pytest.raises(ConfigError, match=r"broken\.toml: not valid TOML"):
        Settings.load(broken)


def test_every_setting_is_described() -> None:
    for name, _ in flatten(Settings().model_dump()):
        section, leaf = name.split(".")
        field = getattr(Settings(), section).__class__.model_fields[leaf]
        assert field.description, name


def test_several_addresses_come_from_a_text_or_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = ("http://a:1", "http://b:2")
    assert Settings.load(None, {"server.urls": "http://a:1, http://b:2"}).server.urls == two
    for text in ("http://a:1,http://b:2", '["http://a:1", "http://b:2"]'):
        monkeypatch.setenv("SHELFWISE_SERVER__URLS", text)
        assert Settings.load().server.urls == two
    monkeypatch.setenv("SHELFWISE_SERVER__URLS", "[http://a:1")
    with pytest.raises(ConfigError, match=r"server\.urls"):
        Settings.load()
    monkeypatch.delenv("SHELFWISE_SERVER__URLS")
    file = tmp_path / "shelfwise.toml"
    file.write_text('[server]\nurls = ["http://a:1", "http://b:2"]\n')
    assert Settings.load(file).server.urls == two


def test_secrets_are_not_printed() -> None:
    settings = Settings.load(None, {"server.api_key": "hunter2", "server.cache_key": "hunter3"})
    assert "hunter" not in repr(settings) + str(settings) + settings.model_dump_json()
    with pytest.raises(ConfigError, match=r"server\.api_key") as told:
        Settings.load(None, {"server.api_key": 12345678})
    assert "12345678" not in str(told.value)
