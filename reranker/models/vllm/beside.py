"""Which adapters vLLM serves beside their base model."""

from pathlib import Path

from reranker.errors import ConfigError
from reranker.models.adapter import CONFIG_FILE, card_beside, read_config


def rank_beside(folder: Path) -> int:
    """Return the rank of an adapter that vLLM can serve beside its base model.

    Raises:
        ConfigError: it has to be merged, or is none.
        DataError: its configuration or its card is damaged.
    """
    remedy = f"shelfwise adapter merge {folder} --out FOLDER, then shelfwise llm serve FOLDER"
    card, file = card_beside(folder), folder / CONFIG_FILE
    if card is not None and card.readout == "verdict":
        raise ConfigError(
            f"adapter {folder}: it was tuned for the verdict readout, which can kill vLLM's engine "
            f"beside LoRA adapters: {remedy}"
        )
    if not file.is_file():
        raise ConfigError(f"adapter {folder}: there is no {file.name}: no LoRA adapter")
    config = read_config(folder)
    if config.method == "prefix":
        raise ConfigError(
            f"adapter {folder}: it was tuned with training.method = prefix, which vLLM does not "
            f"serve: use it with the embedded model, by model.adapter = {folder}"
        )
    if config.method != "lora":
        raise ConfigError(
            f"adapter {folder}: it was tuned with training.method = {config.method}, and vLLM "
            f"serves LoRA alone beside a base model: {remedy}"
        )
    return config.r
