"""A shop whose purchases are easy to learn, for tests of tuning."""

import json
from pathlib import Path

import torch

from reranker.models.rendering import RenderedPrompt
from reranker.settings import Settings
from reranker.training.encoding import EncodedList

KINDS = ("honey", "bread", "apple", "cheese")


def shop_files(folder: Path, *, shoppers: int = 60) -> Path:
    """Write products and purchases: whoever bought two things of a kind buys honey next."""
    folder.mkdir(parents=True, exist_ok=True)
    products = [
        {"product_id": f"{kind}{number}", "title": f"{kind} {number}"}
        for kind in KINDS
        for number in range(10)
    ]
    purchases = [
        {
            "user_id": f"u{number}",
            "history": [f"{KINDS[1 + number % 3]}{(number + i) % 10}" for i in range(2)],
            "target": f"honey{number % 10}",
        }
        for number in range(shoppers)
    ]
    for name, rows in (("products", products), ("purchases", purchases)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def tuning_settings(model: Path, **training: object) -> Settings:
    """Settings of a short training in float32; more of ``[training]`` by name."""
    given = {
        "lists": 48,
        "batch": 4,
        "candidates": 6,
        "teacher": 0.0,
        "average": 0.5,
        "learning_rate": 0.01,
        "validation_shoppers": 8,
        "validation_lists": 8,
        "validate_every": 6,
        "checkpoint_every": 2,
    }
    return Settings.load(
        None,
        {
            "model.name": str(model),
            "model.dtype": "float32",
            "ranking.card_tokens": 16,
            **{f"training.{name}": value for name, value in {**given, **training}.items()},
        },
    )


def random_list(seed: int, slots: int, length: int) -> EncodedList:
    """Make a list of random tokens whose first slot is wanted."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(100, 40_000, (length,), generator=generator).tolist()
    places = sorted(torch.randperm(length - 1, generator=generator)[:slots].add(1).tolist())
    return EncodedList(
        prompt=RenderedPrompt(token_ids=tuple(tokens), verdict_positions=tuple(places)),
        grades=(1.0, *[0.0] * (slots - 1)),
        teacher=None,
        weight=1.0,
    )
