import math

import numpy as np
import pytest

from eval.measures.rankings import measure_cases, parse_measures
from reranker.errors import ConfigError, DataError

MEASURES = ("nDCG@10", "nDCG@3", "RR", "RR@10", "P@5", "R@5", "AP", "Success@3", "HitRate@3")


def random_cases(count: int) -> tuple[dict[str, dict[str, int]], dict[str, list[str]]]:
    rng = np.random.default_rng(11)
    targets, rankings = {}, {}
    for number in range(count):
        products = [f"p{i}" for i in range(rng.integers(1, 40))]
        graded = rng.choice(products, size=rng.integers(1, len(products) + 1), replace=False)
        targets[f"c{number}"] = {str(p): int(rng.integers(1, 4)) for p in graded}
        shown = rng.permutation(products)[: rng.integers(1, len(products) + 1)]
        rankings[f"c{number}"] = [str(p) for p in shown]
    return targets, rankings


def by_hand(measure: str, grades: dict[str, int], order: list[str]) -> float:
    """The textbook formulas, written without any library."""
    name, _, cut = measure.partition("@")
    k = int(cut) if cut else len(order)
    gains = [grades.get(product, 0) for product in order]
    hits = [gain > 0 for gain in gains]
    if name == "nDCG":
        best = sorted(grades.values(), reverse=True)[:k]
        ideal = sum(g / math.log2(i + 2) for i, g in enumerate(best))
        return sum(g / math.log2(i + 2) for i, g in enumerate(gains[:k])) / ideal
    if name == "RR":
        return next((1 / (i + 1) for i, hit in enumerate(hits[:k]) if hit), 0.0)
    if name == "AP":
        found = [i for i, hit in enumerate(hits) if hit]
        return sum((n + 1) / (i + 1) for n, i in enumerate(found)) / len(grades)
    total = {"P": k, "R": len(grades), "Success": 1, "HitRate": 1}[name]
    count = sum(hits[:k])
    return (min(count, 1) if name in {"Success", "HitRate"} else count) / total


def test_same_numbers_as_ir_measures_pytrec_eval_and_the_formulas_on_1000_cases() -> None:
    import ir_measures
    import pytrec_eval

    targets, rankings = random_cases(1000)
    ours = {m.measure: m for m in measure_cases(MEASURES, targets, rankings)}
    run = {c: {p: 1.0 / (1 + i) for i, p in enumerate(o)} for c, o in rankings.items()}
    for name in MEASURES:
        values = dict(zip(ours[name].case_ids, ours[name].values, strict=True))
        theirs = {
            metric.query_id: metric.value
            for metric in ir_measures.iter_calc(parse_measures([name]), targets, run)
        }
        assert max(abs(values[c] - theirs[c]) for c in targets) < 1e-9
        assert max(abs(values[c] - by_hand(name, targets[c], rankings[c])) for c in targets) < 1e-9
    trec = pytrec_eval.RelevanceEvaluator(targets, {"ndcg_cut_10", "recip_rank", "map"})
    answers = trec.evaluate(run)
    for name, key in (("nDCG@10", "ndcg_cut_10"), ("RR", "recip_rank"), ("AP", "map")):
        values = dict(zip(ours[name].case_ids, ours[name].values, strict=True))
        assert max(abs(values[c] - answers[c][key]) for c in targets) < 1e-9


def test_no_case_is_dropped() -> None:
    targets = {
        "hit": {"a": 1},
        "no target": {},
        "grade 0": {"a": 0},
        "silent": {"a": 1},
        "empty": {"a": 1},
    }
    rankings = {"hit": ["a", "b"], "no target": ["a"], "grade 0": ["a"], "empty": []}
    (measured,) = measure_cases(["nDCG@10"], targets, rankings)
    assert measured.case_ids == tuple(targets)
    assert measured.values[0] == 1.0
    assert np.isnan(measured.values[1:3]).all()
    assert measured.values[3:] == (0.0, 0.0)
    assert (measured.without_target, measured.unanswered) == (2, 2)
    estimate = measured.mean(["x", "y", "z", "u", "v"])
    assert estimate.value == pytest.approx(1 / 3)
    assert (estimate.n, estimate.excluded, estimate.clusters) == (3, 2, 3)


def test_a_ranker_that_answers_nothing_scores_0() -> None:
    (measured,) = measure_cases(["RR"], {"a": {"p": 1}, "b": {"p": 1}}, {})
    assert measured.values == (0.0, 0.0)
    assert measured.unanswered == 2


def test_more_than_float_precision_of_places_does_not_tie() -> None:
    order = [f"p{i:05}" for i in range(20_000)]
    (measured,) = measure_cases(["RR"], {"c": {"p15000": 1}}, {"c": order})
    assert measured.values[0] == pytest.approx(1 / 15_001, abs=1e-12)


def test_a_measure_of_a_grade_has_no_value_without_a_target_of_it() -> None:
    targets = {"bought": {"a": 3, "b": 1}, "clicked": {"a": 1}, "silent": {"c": 3}}
    rankings = {"bought": ["b", "a"], "clicked": ["a"]}
    expected = {"HitRate(rel=3)@10": 1.0, "RR(rel=3)": 0.5, "AP(rel=3)": 0.5, "P(rel=3)@2": 0.5}
    for measured in measure_cases(tuple(expected), targets, rankings):
        assert measured.values[0] == expected[measured.measure]
        assert np.isnan(measured.values[1])
        assert measured.values[2] == 0.0
        assert (measured.without_target, measured.unanswered) == (1, 1)


def test_measures_that_ask_for_numbers_as_ids_take_any_case_ids() -> None:
    names = ("ERR@10", "nDCG(dcg='exp-log2')@10", "nDCG@10")
    for ids in (("1", "2"), ("2", "1"), ("Ann's first", "b\tc")):
        targets = {ids[0]: {"a": 3, "b": 1}, ids[1]: {"a": 1}}
        rankings = {ids[0]: ["a", "x"], ids[1]: ["x", "a"]}
        errs, exponential, plain = measure_cases(names, targets, rankings)
        assert errs.values == (0.4375, 0.03125)
        assert exponential.values == pytest.approx((7 / (7 + 1 / math.log2(3)), 1 / math.log2(3)))
        assert plain.values == pytest.approx((3 / (3 + 1 / math.log2(3)), 1 / math.log2(3)))


def test_a_measure_whose_trial_divides_by_0_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import ir_measures

    def divided(*_: object) -> list[object]:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(ir_measures.DefaultPipeline, "iter_calc", divided)
    with pytest.raises(ConfigError, match="division by zero"):
        parse_measures(["P@17"])


@pytest.mark.parametrize(
    "name",
    ["RR(rel=2.5)", "Success(rel=0)@3", "Judged@0", "nDCG@0", "nDCG(cutoff='a')", "HitRate@0"],
)
def test_a_measure_that_cannot_be_computed_is_named_before_ranking(name: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot be computed here|invalid param|is no place"):
        parse_measures([name])


@pytest.mark.parametrize("name", ["nDGC@10", "", "P@", "nDCG@ten", "__import__('os')", "HitRat@3"])
def test_an_unknown_measure_is_named(name: str) -> None:
    with pytest.raises(ConfigError, match="measure"):
        parse_measures([name])


@pytest.mark.parametrize(
    ("targets", "rankings", "message"),
    [
        ({"a": {"p": 1}}, {"b": ["p"]}, "'b'"),
        ({"a": {"p": 1}}, {"a": ["p", "q", "p"]}, "'p' is ranked twice"),
        ({"a": {"p": -1}}, {}, "grade -1"),
        ({"a": {"p": 0.5}}, {}, "grade 0.5"),
    ],
)
def test_wrong_data_is_named(
    targets: dict[str, dict[str, int]], rankings: dict[str, list[str]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        measure_cases(["RR"], targets, rankings)
