"""What the orders of an evaluation depend on: where it is the same, earlier orders can be used."""

import json
from hashlib import blake2b
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from eval.run.inputs import Inputs
from reranker.errors import ConfigError
from reranker.models.adapter import adapter_of
from reranker.settings import ModelSettings, Settings

_SECTIONS = ("retrieval", "profile", "model", "ranking", "fusion", "evaluation")
_CODE = ("eval.cases", "eval.past", "eval.rankers", "prompts", "reranker", "retrieval")
_ONLY_FIGURES = ("measures", "permutations", "concurrency")


def identity_of(inputs: Inputs, settings: Settings) -> str:
    """Return a hash of files, settings, cut, code and weights.

    Not in it: how many of the cases are ranked, and the code of rankers of other packages.
    """
    parts = {
        "files": [
            (each.role, each.fingerprint) for each in inputs.files if each.role != "impressions"
        ],
        "settings": ranking_settings(settings),
        "cut": inputs.guard.model_dump(mode="json"),
        "version": version("shelfwise"),
        "code": _code(),
        "weights": [
            weights_of(settings.model.name),
            _adapter_weights(settings.model),
            weights_of(settings.retrieval.embedder),
        ],
    }
    text = json.dumps(parts, sort_keys=True, default=str)
    return blake2b(text.encode(), digest_size=10).hexdigest()


def ranking_settings(settings: Settings) -> dict[str, Any]:
    """Return the settings that an order may depend on."""
    chosen = {name: getattr(settings, name).model_dump(mode="json") for name in _SECTIONS}
    for name in _ONLY_FIGURES:
        del chosen["evaluation"][name]
    served = {"served": bool(settings.server.urls), "adapter": settings.server.adapter}
    return {**chosen, "server": served}


def _code() -> str:
    """Return a hash of all that takes part in an order: what older code ranked is not reused."""
    digest = blake2b(digest_size=16)
    for package in _CODE:
        folder = Path(str(files(package)))
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".py", ".jinja")):
            digest.update(path.relative_to(folder).as_posix().encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _adapter_weights(model: ModelSettings) -> list[tuple[str, int, int]]:
    try:
        folder = adapter_of(model)
        return weights_of(str(folder)) if folder is not None else []
    except ConfigError:  # it is said by what loads the model, if a ranker asks one
        return []


def weights_of(name: str | None) -> list[tuple[str, int, int]]:
    """Return what tells that a local folder of weights has changed."""
    if name is None or not Path(name).is_dir():
        return []
    files = sorted(path for path in Path(name).rglob("*") if path.is_file())
    return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
