"""Turn a quantised GGUF file into the Hugging Face folder that transformers, PEFT and vLLM read."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reranker.errors import ModelUnavailable
from reranker.ports import Progress
from reranker.quiet import quiet_transformers

_UNREADABLE = (struct.error, IndexError, OverflowError)  # of a file that was cut short
_QUANTISED_MARKS = ("hf_quantizer", "is_quantized", "quantization_config", "quantization_method")


def convert_gguf(gguf: Path, folder: Path, *, progress: Progress | None = None) -> None:
    """Write weights in bfloat16, tokenizer and chat template of a GGUF file into a folder.

    Takes about half a minute for 135 million parameters, and memory of some four times the file.

    Raises:
        ModelUnavailable: transformers cannot read the file.
    """
    stage = f"converting {gguf.name}"
    with quiet_transformers(), _quiet_reader():
        try:
            _convert(gguf, folder, stage, progress or (lambda *_: None))
        except (*_UNREADABLE, ValueError, RuntimeError, KeyError, ImportError) as error:
            raise ModelUnavailable(f"{gguf}: it cannot be converted: {error}") from error


@contextmanager
def _quiet_reader() -> Iterator[None]:
    # The one progress bar of transformers that its own switch does not reach.
    from transformers import modeling_gguf_pytorch_utils as reader

    bar = getattr(reader, "tqdm", None)
    setattr(reader, "tqdm", lambda items, **_: items)  # noqa: B010
    try:
        yield
    finally:
        setattr(reader, "tqdm", bar)  # noqa: B010


def _convert(gguf: Path, folder: Path, stage: str, progress: Progress) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    progress(stage, 0, 3)
    source: dict[str, Any] = {"gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(str(gguf.parent), **source)
    progress(stage, 1, 3)
    model = AutoModelForCausalLM.from_pretrained(
        str(gguf.parent), dtype=torch.bfloat16, **source, **_dequantised()
    )
    progress(stage, 2, 3)
    if any(value.dtype != torch.bfloat16 for value in model.parameters()):
        raise ValueError("transformers kept its weights quantised")
    # The weights are plain numbers now, but transformers refuses to save what bears these marks.
    for owner in (model, model.config):
        for mark in _QUANTISED_MARKS:
            vars(owner).pop(mark, None)
    setattr(model, "hf_quantizer", None)  # noqa: B010 - no attribute that its class declares
    tokenizer.model_max_length = model.config.max_position_embeddings
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))
    progress(stage, 3, 3)


def _dequantised() -> dict[str, Any]:
    # Where the kernels package is installed, newer releases keep the weights packed unless told
    # otherwise; older ones always unpack them and know no such setting.
    import transformers

    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}
