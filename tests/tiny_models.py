"""Language models with random weights, for tests of how a model is asked."""

import shutil
from pathlib import Path
from typing import Any

from reranker.models.embedded import EmbeddedModel
from reranker.settings import ModelSettings


def make_tiny(
    folder: Path, tokenizer_from: Path, *, window: int | None = None, **sizes: Any
) -> Path:
    """Write a Llama, with a sliding window a Mistral, of two narrow layers and a real tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    given: dict[str, Any] = {
        "vocab_size": 49152,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 400,
        "tie_word_embeddings": False,
        "initializer_range": 0.4,
        **sizes,
    }
    model: Any = (
        LlamaForCausalLM(LlamaConfig(**given))
        if window is None
        else MistralForCausalLM(MistralConfig(**given, sliding_window=window))
    )
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tokenizer_from / name, folder / name)
    return folder


def make_tunable(folder: Path, tokenizer_from: Path, *, inner: int = 96) -> Path:
    """Write a tiny model that learns: a little wider, its first weights small, its context long."""
    return make_tiny(
        folder,
        tokenizer_from,
        hidden_size=64,
        intermediate_size=inner,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.1,
    )


def load_tiny(folder: Path, **settings: Any) -> EmbeddedModel:
    return EmbeddedModel(folder, ModelSettings(name="tiny", dtype="float32", **settings))
