"""A small shop whose shoppers stay in one of three groups of products: who counts can tell."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from eval.run import EvaluationRequest, Models
from reranker.models.tokenizing import HFTokenizer
from reranker.models.weights import resolve_tokenizer
from reranker.settings import Settings

GROUPS = ("mug", "lamp", "chair")
CUT = datetime(2026, 3, 1, tzinfo=UTC)
_IN_GROUP = 8
_SHOPPERS = 60


class ShopFiles(NamedTuple):
    """The files that an evaluation takes."""

    products: Path
    cases: Path
    histories: Path


def product_rows() -> list[dict[str, Any]]:
    return [
        {
            "product_id": f"{group}{number}",
            "title": f"{group.capitalize()} number {number}",
            "brand": f"Brand {number % 2}",
            "category": f"Home > {group.capitalize()}s",
            "price": 5.0 + number,
            "attributes": {"seller": f"Seller {number % 3}"},
        }
        for group in GROUPS
        for number in range(_IN_GROUP)
    ]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def make_shop(folder: Path, *, times: bool = True) -> ShopFiles:
    """Write the shop: what shoppers bought before the cut, and what they want after it."""
    rng = random.Random(3)
    histories, cases = [], []
    for shopper in range(_SHOPPERS):
        group = GROUPS[shopper % len(GROUPS)]
        own = [f"{group}{number}" for number in rng.sample(range(_IN_GROUP), 5)]
        *history, target = own
        others = [f"{each}{n}" for each in GROUPS if each != group for n in range(_IN_GROUP)]
        candidates = rng.sample([target, *rng.sample(others, 9)], 10)
        dates = [CUT - timedelta(days=20 - 4 * place) for place, _ in enumerate(history)]
        row: dict[str, Any] = {"user_id": f"u{shopper}", "product_ids": history}
        case: dict[str, Any] = {
            "case_id": f"case {shopper}",
            "user_id": f"u{shopper}",
            "query": group if shopper % 2 else None,
            "history": history,
            "candidates": candidates,
            "targets": [target],
            "segments": ["even" if shopper % 2 == 0 else "odd"],
        }
        if times:
            row["times"] = [moment.isoformat() for moment in dates]
            case["history_at"] = row["times"]
            case["at"] = (CUT + timedelta(hours=shopper)).isoformat()
        histories.append(row)
        cases.append(case)
    return ShopFiles(
        products=write_lines(folder / "products.jsonl", product_rows()),
        cases=write_lines(folder / "cases.jsonl", cases),
        histories=write_lines(folder / "histories.jsonl", histories),
    )


def request_of(shop: ShopFiles, folder: Path, *rankers: str, **more: Any) -> EvaluationRequest:
    files = {"products": shop.products, "cases": shop.cases, "histories": shop.histories}
    return EvaluationRequest(rankers=rankers, work=folder / "work", **{**files, **more})


def no_models(settings: Settings) -> Models:
    """Models of which none may be opened but the tokenizer."""

    def refuse() -> Any:
        raise AssertionError("no ranker here needs a model")

    def tokenizer() -> HFTokenizer:
        return HFTokenizer(resolve_tokenizer(settings.model.name))

    return Models(language_model=refuse, writer=refuse, embedder=refuse, tokenizer=tokenizer)
