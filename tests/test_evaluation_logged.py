"""Rankers on logged lists: what place does, and what the rankers would have earned."""

import random
from pathlib import Path

import pytest

from eval.convert import convert_data
from eval.logs import write_impressions
from eval.run import Evaluation, evaluate
from eval.run.request import EvaluationRequest
from evaluation_shop import no_models, write_lines
from reranker.schema import Impression, ShownItem
from reranker.settings import Settings

ATTRACTION = {"a": 0.7, "b": 0.4, "c": 0.1}
EXAMINATION = (1.0, 0.6, 0.3)
LISTS = 3000


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Three products in every order equally often, clicked by a position-based model."""
    folder = tmp_path_factory.mktemp("logged")
    rng = random.Random(5)
    log = []
    for number in range(LISTS):
        order = rng.sample(sorted(ATTRACTION), 3)
        items = tuple(
            ShownItem(
                product_id=each,
                position=place + 1,
                propensity=1 / 3,
                prefix_propensity=(1 / 3, 1 / 6, 1 / 6)[place],
                grade=int(rng.random() < ATTRACTION[each] * EXAMINATION[place]),
            )
            for place, each in enumerate(order)
        )
        shopper = f"u{number % 500}"
        log.append(Impression(request_id=f"r{number}", user_id=shopper, query="x", items=items))
    write_impressions(folder / "log.jsonl", log)
    products = write_lines(
        folder / "products.jsonl", [{"product_id": each, "title": each} for each in ATTRACTION]
    )
    bought = [{"user_id": str(n), "product_ids": ids} for n, ids in enumerate(("abc", "ab", "a"))]
    rows = [row | {"product_ids": list(row["product_ids"])} for row in bought]
    histories = write_lines(folder / "histories.jsonl", rows)
    files = convert_data(
        "impressions", folder / "log.jsonl", folder / "out", {"products": str(products)}
    ).files
    settings = Settings.load(None, {"evaluation.permutations": 100})
    request = EvaluationRequest(
        products=products,
        cases=files["--cases"],
        histories=histories,
        impressions=files["--impressions"],
        rankers=("as-given", "popularity"),
        work=folder / "work",
    )
    return evaluate(request, settings, no_models(settings))


def test_the_curve_of_place_is_recovered(result: Evaluation) -> None:
    assert result.logged is not None
    assert result.logged.refused == ()
    assert len(result.logged.curves) == 3
    assert result.logged.curves[2].after_skip is not None
    for curve in result.logged.curves[:2]:  # the cascade is not how these shoppers click
        for estimate, truth in zip(curve.examination, EXAMINATION, strict=True):
            assert estimate.value == pytest.approx(truth, abs=0.06)


def test_what_a_ranker_would_have_earned(result: Evaluation) -> None:
    assert result.logged is not None
    rows = {(row.ranker, row.estimator): row for row in result.logged.policies}
    best = sum(ATTRACTION[each] * seen for each, seen in zip("abc", EXAMINATION, strict=True))
    chance = sum(ATTRACTION.values()) / 3 * sum(EXAMINATION)
    for estimator in ("snips", "item-position", "doubly-robust"):
        value = rows["popularity", estimator].value
        assert value is not None
        assert value.estimate.value == pytest.approx(best, abs=0.08)
    logged = rows["as-given", "as logged"].value
    assert logged is not None
    assert logged.estimate.value == pytest.approx(chance, abs=0.04)


def test_a_log_that_cannot_tell_says_why(tmp_path: Path) -> None:
    items = (ShownItem(product_id="a", position=1, grade=1), ShownItem(product_id="b", position=2))
    log = [Impression(request_id=f"r{n}", user_id=f"u{n}", items=items) for n in range(40)]
    write_impressions(tmp_path / "log.jsonl", log)
    products = write_lines(
        tmp_path / "p.jsonl", [{"product_id": each, "title": each} for each in "ab"]
    )
    options = {"products": str(products)}
    files = convert_data("impressions", tmp_path / "log.jsonl", tmp_path / "out", options).files
    settings = Settings.load(None, {"evaluation.permutations": 100})
    request = EvaluationRequest(
        products=products,
        cases=files["--cases"],
        impressions=files["--impressions"],
        rankers=("random",),
        work=tmp_path / "work",
    )
    result = evaluate(request, settings, no_models(settings))
    assert result.logged is not None
    assert result.logged.curves == ()
    assert len(result.logged.refused) == 3
    assert all(row.refused for row in result.logged.policies)
