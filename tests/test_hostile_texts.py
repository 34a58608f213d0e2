import random

import pytest

from eval.benchmarks.injections import PATTERNS
from reranker.schema import Language, Product
from reranker.training.hostile import hostile

PLAIN = Product(product_id="p", title="tea", brand="Leaf", attributes={"size": "100 g"})


def said(language: Language, count: int = 400) -> list[str]:
    """What hostile texts add to a product."""
    generator = random.Random(7)
    texts = []
    for _ in range(count):
        product = hostile(PLAIN, language, generator)
        changed = [
            product.title.removeprefix("tea. ") if product.title != "tea" else "",
            (product.brand or "").removeprefix("Leaf ") if product.brand != "Leaf" else "",
            product.attributes.get("note", ""),
        ]
        assert sum(map(bool, changed)) == 1  # in one place
        assert product.attributes["size"] == "100 g"
        assert product.product_id == "p"
        texts.append("".join(changed))
    return texts


@pytest.mark.parametrize("language", ["en", "zh"])
def test_half_ask_and_half_look_like_scores(language: Language) -> None:
    texts = said(language)
    asking = [text for text in texts if ": " in text and "=" not in text and len(text) > 12]
    scores = [text for text in texts if any(mark in text for mark in ("=", "99 %", "10.0", '"'))]
    assert 100 < len(scores) < 300
    assert len(asking) > 100
    assert len(set(texts)) > 150
    chinese = sum(any("一" <= sign <= "鿿" for sign in text) for text in texts)
    assert chinese == (len(texts) if language == "zh" else 0)


def test_none_is_what_the_benchmark_tries() -> None:
    tried = {pattern.text.casefold() for pattern in PATTERNS}
    found = {text.casefold() for language in ("en", "zh") for text in said(language, 3000)}
    assert not tried & found
