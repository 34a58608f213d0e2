"""What rankers would have earned where each list shows a part of what it was drawn from."""

import random
from pathlib import Path

import pytest

from eval.cases import read_cases, write_cases
from eval.convert import convert_data
from eval.logs import read_impressions, write_impressions
from eval.run import evaluate
from eval.run.request import EvaluationRequest
from eval.run.results import PolicyRow
from evaluation_shop import no_models, write_lines
from reranker.errors import DataError
from reranker.schema import Impression, ShownItem
from reranker.settings import Settings

ATTRACTION = {"a": 0.7, "b": 0.5, "c": 0.35, "d": 0.2, "e": 0.1, "f": 0.05}
EXAMINATION = (1.0, 0.6, 0.3)
LISTS = 3000


def write_log(path: Path, among: int, *, pool: bool = True) -> Path:
    """Lists of three of the first so many products at random, clicked by a position-based model."""
    rng, products = random.Random(5), tuple(ATTRACTION)[:among]
    log = []
    for number in range(LISTS):
        chance, items = 1.0, []
        for place, each in enumerate(rng.sample(products, 3)):
            chance /= among - place
            grade = int(rng.random() < ATTRACTION[each] * EXAMINATION[place])
            items.append(
                ShownItem(
                    product_id=each,
                    position=place + 1,
                    propensity=1 / among,
                    prefix_propensity=chance,
                    grade=grade,
                )
            )
        log.append(
            Impression(
                request_id=f"r{number}",
                user_id=f"u{number % 500}",
                query="x",
                pool=products if pool else (),
                items=tuple(items),
            )
        )
    write_impressions(path, log)
    return path


def policies(
    folder: Path, log: Path, *, turned: bool = False, **options: str
) -> dict[tuple[str, str], PolicyRow]:
    """Evaluate the converted log; ``turned`` puts the candidates of each case from f to a."""
    rows = [{"product_id": each, "title": each} for each in ATTRACTION]
    products = write_lines(folder / "products.jsonl", rows)
    bought = [{"user_id": f"s{n}", "product_ids": list("abcdef"[: 6 - n])} for n in range(6)]
    histories = write_lines(folder / "histories.jsonl", bought)
    given = {"products": str(products), **options}
    files = convert_data("impressions", log, folder / "out", given).files
    if turned:
        cases = [
            case.model_copy(
                update={"candidates": tuple(sorted(case.candidates or (), reverse=True))}
            )
            for case in read_cases(files["--cases"]).cases
        ]
        write_cases(files["--cases"], cases)
    settings = Settings.load(None, {"evaluation.permutations": 100})
    request = EvaluationRequest(
        products=products,
        cases=files["--cases"],
        histories=histories,
        impressions=files["--impressions"],
        rankers=("as-given", "popularity"),
        work=folder / "work",
    )
    logged = evaluate(request, settings, no_models(settings)).logged
    assert logged is not None
    return {(row.ranker, row.estimator): row for row in logged.policies}


def earned(order: str) -> float:
    return sum(ATTRACTION[each] * seen for each, seen in zip(order, EXAMINATION, strict=True))


def test_a_ranker_that_saw_a_part_of_the_pool_only_is_refused(tmp_path: Path) -> None:
    found = policies(tmp_path, write_log(tmp_path / "log.jsonl", 6))
    for estimator in ("snips", "item-position", "doubly-robust"):
        row = found["popularity", estimator]
        assert row.value is None
        assert "should average 1: either the policy ranked only what each list shows" in str(
            row.refused
        )
        assert "candidates=pool" in str(row.refused)


@pytest.mark.parametrize("name", ["log.jsonl", "log.parquet"])
def test_a_ranker_that_saw_the_pool_is_estimated(tmp_path: Path, name: str) -> None:
    log = write_log(tmp_path / name, 6)
    assert next(read_impressions(log)).pool == tuple(ATTRACTION)
    found = policies(tmp_path, log, candidates="pool")
    for estimator in ("item-position", "doubly-robust"):
        value = found["popularity", estimator].value
        assert value is not None
        assert value.estimate.covers(earned("abc"))
        assert value.support == pytest.approx(1.0, abs=0.1)
    assert found["as-given", "as logged"].value is not None


def test_a_log_that_does_not_tell_its_pool_is_named(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", 6, pool=False)
    with pytest.raises(DataError, match="3000 of 3000 lists do not tell what they were drawn from"):
        policies(tmp_path, log, candidates="pool")


def test_candidates_in_another_order_than_logged_are_a_policy_like_others(tmp_path: Path) -> None:
    log = write_log(tmp_path / "log.jsonl", 3)
    found = policies(tmp_path, log, turned=True)
    assert ("as-given", "as logged") not in found
    for estimator in ("snips", "item-position", "doubly-robust"):
        value = found["as-given", estimator].value
        assert value is not None
        assert value.estimate.value == pytest.approx(earned("cba"), abs=0.08)
