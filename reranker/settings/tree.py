"""The tree of settings, merged from `shelfwise.toml`, the environment and arguments.

A later source wins: file, then environment (``SHELFWISE_MODEL__NAME=...``), then arguments
(``--set model.name=...``). `Settings.load` builds the tree; `origins` tells where each value came
from.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from reranker.errors import ConfigError
from reranker.settings.behaviour import (
    CleaningSettings,
    LabelSettings,
    PrivacySettings,
    ProfileSettings,
)
from reranker.settings.database import without_credentials
from reranker.settings.ranking import (
    FusionSettings,
    ModelSettings,
    RankingSettings,
    ServerSettings,
)
from reranker.settings.shop import EvaluationSettings, RetrievalSettings, StoreSettings
from reranker.settings.training import TrainingSettings

CONFIG_FILE = "shelfwise.toml"
ENV_PREFIX = "SHELFWISE_"
Origin = Literal["default", "file", "environment", "argument"]
_SECRETS = ("server.api_key", "server.cache_key", "privacy.key")


class Settings(BaseSettings):
    """The whole tree. Build it with `Settings.load`."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=ENV_PREFIX, env_nested_delimiter="__"
    )

    store: StoreSettings = StoreSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    cleaning: CleaningSettings = CleaningSettings()
    privacy: PrivacySettings = PrivacySettings()
    profile: ProfileSettings = ProfileSettings()
    labels: LabelSettings = LabelSettings()
    model: ModelSettings = ModelSettings()
    server: ServerSettings = ServerSettings()
    ranking: RankingSettings = RankingSettings()
    fusion: FusionSettings = FusionSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    training: TrainingSettings = TrainingSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take what `load` has merged already, and nothing else."""
        return (init_settings,)

    @classmethod
    def load(
        cls, file: Path | None = None, arguments: Mapping[str, Any] | None = None
    ) -> "Settings":
        """Merge file, environment and arguments.

        Args:
            file: a TOML file; None takes `shelfwise.toml` of the working folder if it is there.
            arguments: dotted names to values, such as ``{"model.name": "..."}``.

        Raises:
            ConfigError: naming the setting, its source, and what it may be.
        """
        layers = _layers(cls, file, arguments or {})
        merged: dict[str, Any] = {}
        for _, values in layers:
            _merge(merged, values)
        try:
            return cls(**merged)
        except ValidationError as error:
            raise ConfigError(_explain(error, layers)) from None


def origins(
    file: Path | None = None, arguments: Mapping[str, Any] | None = None
) -> dict[str, Origin]:
    """Return for each dotted setting name the source that its value came from."""
    found: dict[str, Origin] = {name: "default" for name, _ in flatten(Settings().model_dump())}
    for origin, values in _layers(Settings, file, arguments or {}):
        found.update(dict.fromkeys(_given(values), origin))
    return found


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a nested mapping as dotted names and values."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _given(values: Mapping[str, Any]) -> set[str]:
    """Return the settings that a layer gives, also where their values are tables themselves."""
    return {".".join(name.split(".")[:2]) for name, _ in flatten(values)}


def _layers(
    cls: type[Settings], file: Path | None, arguments: Mapping[str, Any]
) -> list[tuple[Origin, dict[str, Any]]]:
    if file is not None and not file.is_file():
        raise ConfigError(f"{file}: there is no such settings file")
    path = file if file is not None else Path(CONFIG_FILE)
    try:
        from_file = TomlConfigSettingsSource(cls, toml_file=path)()
    except ValueError as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from error
    given: dict[str, Any] = {}
    for name, value in arguments.items():
        branch = given
        *parents, leaf = name.split(".")
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"setting {name} (argument): {parent} is given as a value, too")
        branch[leaf] = value
    return [("file", from_file), ("environment", _environment(cls)), ("argument", given)]


def _environment(cls: type[Settings]) -> dict[str, Any]:
    known = {f"{ENV_PREFIX}{name}__".upper() for name in cls.model_fields}
    for variable in os.environ:
        nested = variable.upper().startswith(ENV_PREFIX) and "__" in variable
        if nested and not variable.upper().startswith(tuple(known)):
            names = ", ".join(sorted(f"{name}..." for name in known))
            raise ConfigError(f"environment variable {variable}: unknown; known are {names}")
    try:
        return EnvSettingsSource(cls)()
    except SettingsError as error:
        raise ConfigError(f"environment variable {ENV_PREFIX}...: {error}") from error


def _merge(base: dict[str, Any], update: Mapping[str, Any]) -> None:
    for name, value in update.items():
        if isinstance(value, Mapping) and isinstance(base.get(name), dict):
            _merge(base[name], value)
        else:
            base[name] = dict(value) if isinstance(value, Mapping) else value


def _explain(error: ValidationError, layers: list[tuple[Origin, dict[str, Any]]]) -> str:
    lines = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"])
        origin = next((o for o, values in reversed(layers) if name in _given(values)), "argument")
        if problem["type"] == "extra_forbidden":
            known = [leaf for leaf, _ in flatten(Settings().model_dump())]
            beside = [leaf for leaf in known if leaf.startswith(f"{problem['loc'][0]}.")] or known
            lines.append(f"setting {name} ({origin}): unknown; there are {', '.join(beside)}")
        else:
            shown = without_credentials(repr(problem["input"]))
            given = "" if name in _SECRETS else f", not {shown}"
            lines.append(f"setting {name} ({origin}): {problem['msg']}{given}")
    return "\n".join(lines)
