import json
from pathlib import Path

import pytest

from reranker.errors import ConfigError
from reranker.models.tokenizing import HFTokenizer
from reranker.ports import no_progress
from reranker.settings import Settings, TrainingSettings
from reranker.training.held_back import lists_of_all
from reranker.training.logged_lists import check_logged
from reranker.training.sources import Lists, PurchaseFiles


def shop_lists(folder: Path, purchases: list[dict[str, object]], tokenizer: HFTokenizer) -> Lists:
    folder.mkdir()
    products: list[dict[str, object]] = [
        {"product_id": f"p{number}", "title": f"thing {number}"} for number in range(10)
    ]
    for name, rows in (("products", products), ("purchases", purchases)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    source = PurchaseFiles(
        name="shop", products=folder / "products.jsonl", purchases=folder / "purchases.jsonl"
    )
    settings = Settings.load(None, {"training.validation_shoppers": 1, "training.teacher": 0.0})
    (found,) = lists_of_all([source], folder / "work", settings, tokenizer, no_progress)
    return found


def test_lists_without_a_propensity_are_counted_and_refused_where_there_are_no_others(
    tmp_path: Path, tokenizer: HFTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    row = {"history": ["p9"], "target": "p2", "candidates": ["p1", "p2", "p3"]}
    bare: list[dict[str, object]] = [{"user_id": f"u{n}", **row} for n in range(6)]
    told = [{**one, "propensity": 0.25} for one in bare[:4]]
    elsewhere = {**bare[4], "candidates": ["gone", "p2"], "propensity": 0.5}
    policy = TrainingSettings(objective="policy")
    none, some, every = (
        shop_lists(tmp_path / name, rows, tokenizer)
        for name, rows in (("none", bare), ("some", [*told, elsewhere, bare[5]]), ("every", told))
    )
    assert none.train.logged() == 0
    with pytest.raises(ConfigError, match=r"policy .* no list of shop says.*columns candidates"):
        check_logged([none], policy)
    check_logged([every], policy)
    assert not caplog.messages
    check_logged([every, some], policy)
    (said,) = caplog.messages
    missing = sum(some.train.example(row, 0).logged is None for row in range(len(some.train)))
    assert missing in (1, 2)
    assert said.startswith(f"shop: {missing} of 5 lists have no propensity")
