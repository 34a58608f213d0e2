"""Adapter folders: what tuning has learnt, and what it was learnt for.

A folder is an ordinary peft adapter (``adapter_config.json``, ``adapter_model.safetensors``) of
LoRA, DoRA or a learned prefix, or in the same files the change of each of a model's weights, with a
card beside it, ``shelfwise.json``. The card records the base model, the readout and the prompt
templates of the training: an adapter is refused for any other, because it would rank by questions
that it has never seen.
"""

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from reranker.errors import ConfigError, DataError
from reranker.models.stored_folder import file_sha256
from reranker.models.weights import cache_folder
from reranker.schema import Language, TemplateRef, Value
from reranker.settings import ModelSettings

CARD_FILE = "shelfwise.json"
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
DATA_CARD_FILE = "data_card.json"
WEIGHT_DELTA = "WEIGHT_DELTA"
"""``peft_type`` of a folder that peft does not know: the change of each of the model's weights."""
PREFIX_TENSOR = "prompt_embeddings"
"""Name that peft gives a learned prefix."""
_PREFIX = "PREFIX_TUNING"
NAME = r"[a-z0-9][a-z0-9._-]{0,63}"


class BaseModelCard(Value):
    """The model that an adapter was made for.

    Attributes:
        name: as the settings named it.
        fingerprint: of its weights; see `weights_fingerprint`.
    """

    name: str
    fingerprint: str


class SourceCard(Value):
    """One source of examples.

    Attributes:
        purchases: lists to learn from.
        shoppers: whose purchases they are.
        products: that can be candidates.
        first: oldest purchase, where times are known.
        last: newest purchase, where times are known.
        sha256: of the purchases, whatever their order.
        seen: lists that were learnt from, in the order of the training; the next begins after them.
    """

    name: str
    purchases: int
    shoppers: int
    products: int
    first: AwareDatetime | None = None
    last: AwareDatetime | None = None
    languages: tuple[Language, ...]
    sha256: str
    seen: int = 0


class DataCard(Value):
    """What an adapter was tuned on: ``data_card.json``.

    Attributes:
        shoppers: file beside it with the pseudonyms of the shoppers of a store, so that a request
            to forget one finds the models that learnt from them; None for public data.
        key_fingerprint: of the key that the pseudonyms were made with.
        erased_shoppers: of those trained on, how many have asked to be forgotten since.
    """

    sources: tuple[SourceCard, ...]
    shoppers: str | None = None
    key_fingerprint: str | None = None
    erased_shoppers: int = 0


class AdapterConfig(BaseModel):
    """``adapter_config.json``, as far as it is read here.

    Attributes:
        peft_type: ``LORA``, ``PREFIX_TUNING``, or `WEIGHT_DELTA`.
        r: rank; 0 where there are no matrices of low rank.
        lora_alpha: products are scaled by ``lora_alpha / r``,
        use_rslora: or by ``lora_alpha / sqrt(r)``.
        use_dora: whether rows of the weights have lengths of their own.
        num_virtual_tokens: length of a learned prefix; None where there is none.
        modules_to_save, rank_pattern, alpha_pattern, fan_in_fan_out, bias: what tuning here never
            sets, and merging does not know.
    """

    model_config = ConfigDict(frozen=True)

    peft_type: str
    r: int = 0
    lora_alpha: float = 0.0
    use_rslora: bool = False
    use_dora: bool = False
    num_virtual_tokens: int | None = None
    modules_to_save: Sequence[str] | None = None
    rank_pattern: Mapping[str, int] | None = None
    alpha_pattern: Mapping[str, float] | None = None
    fan_in_fan_out: bool = False
    bias: str = "none"

    @model_validator(mode="after")
    def _has_rank(self) -> Self:
        if self.peft_type not in {WEIGHT_DELTA, _PREFIX} and self.r < 1:
            raise ValueError("field r (the rank) is missing")
        return self

    @property
    def method(self) -> str:
        """The ``training.method`` that it comes from."""
        if self.peft_type == WEIGHT_DELTA:
            return "full"
        if self.peft_type == _PREFIX:
            return "prefix"
        return "dora" if self.use_dora else "lora"

    @property
    def scaling(self) -> float:
        """What products of the matrices are multiplied by."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


class AdapterCard(Value):
    """What is known of an adapter.

    Attributes:
        name: what results and commands call it.
        answer: token of the ``verdict`` readout, or the labels in their order.
        templates: that the prompts were made by.
        card_tokens: longest product card in training, in tokens.
        profile_tokens: longest profile in training, in tokens.
        candidates: longest list in training.
        validation: measures on purchases of shoppers who are in no training list.
        training: settings of the run, and what it took.
        weights_sha256: of ``adapter_model.safetensors``.
    """

    format: Literal[1] = 1
    name: str = Field(pattern=f"^{NAME}$")
    created: AwareDatetime
    base: BaseModelCard
    readout: Literal["verdict", "labels"]
    answer: tuple[str, ...]
    templates: tuple[TemplateRef, ...]
    card_tokens: int
    profile_tokens: int
    candidates: int
    validation: Mapping[str, float]
    training: Mapping[str, Any]
    weights_sha256: str

    @property
    def identity(self) -> str:
        """Name and start of the weights' hash: two trainings never share it."""
        return f"{self.name}@{self.weights_sha256[:8]}"


def find_adapter(name: str) -> Path:
    """Return the folder of an adapter.

    Args:
        name: a folder, the name of an adapter that comes with the package, or of one in the
            user's cache folder.

    Raises:
        ConfigError: there is none of this name.
    """
    places = [Path(name).expanduser(), *(folder / name for folder in _homes())]
    for place in places:
        if (place / CARD_FILE).is_file():
            return place
    if (places[0] / CONFIG_FILE).is_file():
        message = (
            f"{places[0]}: {CARD_FILE} is missing, so nothing tells which model, readout and "
            "templates this adapter was made for: tune one with shelfwise tune"
        )
        raise ConfigError(message)
    known = ", ".join(path.name for path in known_adapters()) or "none"
    fault = "this folder holds no adapter" if places[0].is_dir() else "there is no such folder"
    raise ConfigError(f"adapter {name!r}: {fault}; known by name are {known}")


def adapter_of(settings: ModelSettings) -> Path | None:
    """Return the folder of the adapter that settings name; None for the model as it is.

    Raises:
        ConfigError: there is none of this name.
    """
    if settings.adapter == "none":
        return None
    if settings.adapter != "auto":
        return find_adapter(settings.adapter)
    fitting = (
        folder
        for folder in known_adapters(_homes()[:1])
        if read_card(folder).base.name == settings.name
    )
    return next(fitting, None)


def card_beside(model: Path) -> AdapterCard | None:
    """Return the card in a folder, of an adapter or of a model that one was merged into.

    None where there is none; the weights are not looked at.

    Raises:
        DataError: the card is damaged.
    """
    file = model / CARD_FILE
    if not file.is_file():
        return None
    try:
        return AdapterCard.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{file}: the card cannot be read: {error}") from error


def known_adapters(homes: Sequence[Path] | None = None) -> tuple[Path, ...]:
    """Return the folders of all adapters that can be called by their name.

    Args:
        homes: folders that they lie in; None takes the package's and the user's.
    """
    found = [p.parent for home in homes or _homes() for p in sorted(home.glob(f"*/{CARD_FILE}"))]
    return tuple(found)


def read_card(folder: Path) -> AdapterCard:
    """Read an adapter's card and make sure that its weights are the ones that it speaks of.

    Raises:
        DataError: the card or the weights are missing or damaged.
    """
    try:
        card = AdapterCard.model_validate_json((folder / CARD_FILE).read_bytes())
        found = file_sha256(folder / WEIGHTS_FILE)
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: missing, so the adapter is not whole") from error
    except (OSError, ValidationError) as error:
        raise DataError(f"{folder / CARD_FILE}: the card cannot be read: {error}") from error
    if found != card.weights_sha256:
        message = f"{folder / WEIGHTS_FILE}: damaged: its SHA-256 is not the one of the card"
        raise DataError(message)
    return card


def read_config(folder: Path) -> AdapterConfig:
    """Read what the tensors of an adapter are.

    Raises:
        DataError: ``adapter_config.json`` is missing or damaged.
    """
    file = folder / CONFIG_FILE
    try:
        return AdapterConfig.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: the adapter cannot be read: {error}") from error
    except ValidationError as error:
        problem = error.errors()[0]
        field = ".".join(map(str, problem["loc"]))
        message = f"{file}: the adapter cannot be read: {field} {problem['msg']}".rstrip()
        raise DataError(message) from None


def read_data_card(folder: Path) -> DataCard:
    """Read what an adapter was tuned on.

    Raises:
        DataError: the card is missing or damaged.
    """
    file = folder / DATA_CARD_FILE
    try:
        return DataCard.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        raise DataError(f"{file}: the data card cannot be read: {error}") from error


def _homes() -> tuple[Path, ...]:
    return Path(str(files("reranker"))) / "adapters", cache_folder() / "adapters"
