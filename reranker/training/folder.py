"""Writing adapter folders.

Importing this module loads torch and peft.
"""

import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from reranker.errors import DataError
from reranker.models.adapter import (
    CARD_FILE,
    DATA_CARD_FILE,
    WEIGHTS_FILE,
    AdapterCard,
    DataCard,
)
from reranker.models.stored_folder import file_sha256
from reranker.training.network import TunedNetwork
from retrieval.behaviour.pseudonyms import Pseudonym
from retrieval.privacy.traces import write_shoppers


def write_adapter(
    folder: Path,
    network: TunedNetwork,
    facts: Mapping[str, Any],
    data: DataCard,
    shoppers: Iterable[Pseudonym] = (),
) -> AdapterCard:
    """Write the network's adapter and its cards as a folder, in place of one that was there.

    The weights are in float16: half the size of float32, and for numbers above 1e-5 finer than
    bfloat16.

    Args:
        folder: of the adapter; killed on the way, it holds the old adapter or the
            new, if need be after `recover`.
        network: whose present weights are written.
        facts: fields of `AdapterCard`, without the time and the hash.
        data: what it was tuned on.
        shoppers: of a store, who are learnt from; the data card then names their file.

    Raises:
        DataError: the training has diverged, or the folder cannot be written.
    """
    fresh, old = _fresh(folder), _old(folder)
    try:
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        network.method.write_config(fresh, facts["base"].name)
        save_file(_halved(network), fresh / WEIGHTS_FILE, metadata={"format": "pt"})
        sha256 = file_sha256(fresh / WEIGHTS_FILE)
        card = AdapterCard(created=datetime.now(UTC), weights_sha256=sha256, **facts)
        (fresh / CARD_FILE).write_text(card.model_dump_json(indent=1), encoding="utf-8")
        if data.shoppers:  # before the card that names them
            write_shoppers(fresh, shoppers)
        (fresh / DATA_CARD_FILE).write_text(data.model_dump_json(indent=1), encoding="utf-8")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.replace(old)
        fresh.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise DataError(f"{folder}: the adapter cannot be written: {error}") from error
    return card


def recover(folder: Path) -> None:
    """Clear up after a `write_adapter` that was killed: what it had set aside is put back.

    Raises:
        DataError: the folder cannot be written.
    """
    try:
        if _old(folder).exists() and not folder.exists():
            _old(folder).replace(folder)
        for left in (_old(folder), _fresh(folder)):
            if left.exists():
                shutil.rmtree(left)
    except OSError as error:
        raise DataError(f"{folder}: cannot be cleared up: {error}") from error


def _fresh(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.partial")


def _old(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.old")


def _halved(network: TunedNetwork) -> dict[str, Tensor]:
    halved = {name: tensor.half().contiguous() for name, tensor in network.method.tensors().items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in halved.values()):
        message = "the training has diverged: lower training.learning_rate and start over"
        raise DataError(message)
    return halved
