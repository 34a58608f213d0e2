"""Whole evaluations of a small shop, from its files to figures."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.cases import RejectedCases
from eval.past import Purchases, TimeGuard
from eval.rankers import Ranked
from eval.run import Evaluation, evaluate
from eval.run.figures import figure
from eval.run.work_file import RankedCase, WorkFile
from evaluation_shop import CUT, ShopFiles, make_shop, no_models, request_of, write_lines
from reranker.errors import ConfigError, DataError
from reranker.settings import Settings

COUNTING = ("random", "popularity", "cooccurrence", "own-history", "interest")
SETTINGS = Settings.load(None, {"evaluation.permutations": 500})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> ShopFiles:
    return make_shop(tmp_path_factory.mktemp("shop"))


def run(shop: ShopFiles, folder: Path, *rankers: str, **more: Any) -> Evaluation:
    settings = more.pop("settings", SETTINGS)
    request = request_of(shop, folder, *rankers, **more)
    return evaluate(request, settings, no_models(settings))


@pytest.fixture(scope="module")
def result(shop: ShopFiles, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return run(shop, tmp_path_factory.mktemp("run"), *COUNTING, proof_cases=10)


def value(result: Evaluation, ranker: str, measure: str = "nDCG@10") -> float:
    found = next(each for each in result.rankers if each.name == ranker).measured(measure).value
    assert found is not None
    return found


def test_who_counts_beats_chance(result: Evaluation) -> None:
    assert value(result, "cooccurrence") > 0.95
    assert value(result, "random") < 0.65
    assert value(result, "interest") > 0.9
    assert result.cases == result.shoppers == 60
    assert result.deciding == "nDCG@10"
    assert result.baseline == "random"


def test_every_figure_has_its_interval_and_its_comparison(result: Evaluation) -> None:
    for ranker in result.rankers:
        for each in ranker.measures:
            assert each.estimate is not None
            assert each.estimate.low <= each.estimate.value <= each.estimate.high
            assert each.value == pytest.approx(each.estimate.value)
    best = next(
        each
        for each in result.comparisons
        if (each.variant, each.measure) == ("cooccurrence", "nDCG@10")
    )
    assert best.difference.low > 0
    assert best.p_holm < 0.05
    assert len(result.comparisons) == 4 * 5


def test_segments_and_what_is_shown(result: Evaluation) -> None:
    ranker = next(each for each in result.rankers if each.name == "cooccurrence")
    groups = {(each.group, each.segment): each.figure.n for each in ranker.segments}
    assert groups["file", "even"] == groups["file", "odd"] == 30
    assert groups["query", "head queries"] + groups["query", "tail queries"] == 30
    assert ("product", "head products") in groups
    assert ranker.shown.popularity_lift is not None
    assert ranker.shown.brands is not None
    assert sum(ranker.shown.brands.shares.values()) == pytest.approx(1)
    assert ranker.shown.sellers is not None
    assert set(ranker.shown.sellers.shares) == {"Seller 0", "Seller 1", "Seller 2"}
    assert 0 < ranker.shown.coverage <= 1
    interest = next(each for each in result.rankers if each.name == "interest").interest
    assert interest is not None
    assert interest.accuracy.value > 0.8


def test_the_same_again_is_the_same(shop: ShopFiles, result: Evaluation, tmp_path: Path) -> None:
    again = run(shop, tmp_path, *COUNTING, proof_cases=10)
    different = {"made_at", "seconds", "rankers"}
    assert again.model_dump(exclude=different) == result.model_dump(exclude=different)
    for one, other in zip(result.rankers, again.rankers, strict=True):
        times = {"median_ms", "p95_ms"}
        assert one.model_dump(exclude=times) == other.model_dump(exclude=times)


def test_time_is_proven_by_poison(result: Evaluation) -> None:
    assert result.time_proof is not None
    assert result.time_proof.proven
    assert result.time_proof.events > 100
    assert result.time_proof.histories == 10
    assert result.knowledge.guard.cut == CUT
    assert not [each for each in result.warnings if "leak" in each]


@pytest.mark.parametrize("way", ["purchases", "case"])
def test_the_proof_fails_without_the_guard(
    shop: ShopFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(TimeGuard, way, lambda _, everything: everything)
    result = run(shop, tmp_path, "cooccurrence", "own-history", "popularity", proof_cases=10)
    assert result.time_proof is not None
    assert not result.time_proof.proven
    changed = {name for name, ids in result.time_proof.changed.items() if ids}
    expected = {"purchases": "popularity", "case": "own-history"}
    assert expected[way] in changed
    assert [each for each in result.warnings if each.startswith("time leaks")]


def test_an_embargo_cuts_earlier(shop: ShopFiles, tmp_path: Path) -> None:
    settings = Settings.load(None, {"evaluation.embargo_hours": 10 * 24})
    result = run(shop, tmp_path, "own-history", settings=settings)
    assert result.knowledge.guard.embargo == timedelta(days=10)
    assert result.knowledge.after_cut == 60
    assert result.knowledge.shortened == 60
    assert result.knowledge.purchases == 180


def test_a_leak_in_the_files_is_warned_of(shop: ShopFiles, tmp_path: Path) -> None:
    cases = [json.loads(line) for line in shop.cases.read_text().splitlines()]
    rows = [{"user_id": case["user_id"], "product_ids": case["targets"]} for case in cases[:7]]
    train = write_lines(tmp_path / "train.jsonl", rows)
    result = run(shop, tmp_path, "popularity", train=train)
    assert len(result.knowledge.leaked) == 7
    assert "7 cases have their answer among the purchases" in result.warnings[0]
    assert result.knowledge.untimed == 7


def test_files_without_times_say_so(tmp_path: Path) -> None:
    result = run(make_shop(tmp_path, times=False), tmp_path, "popularity", proof_cases=5)
    assert result.knowledge.guard.cut is None
    assert result.time_proof is not None
    assert not result.time_proof.applicable
    assert [each for each in result.warnings if "carry no time" in each]


def test_cases_without_a_target_are_counted(shop: ShopFiles, tmp_path: Path) -> None:
    cases = [json.loads(line) for line in shop.cases.read_text().splitlines()]
    for case in cases[:6]:
        case["targets"] = []
    other = shop._replace(cases=write_lines(tmp_path / "cases.jsonl", cases))
    result = run(other, tmp_path, "popularity", "random")
    assert (result.cases, result.without_target) == (60, 6)
    assert result.rankers[0].measures[0].n == 54
    assert result.rankers[0].measures[0].without_value == 6
    assert [each for each in result.warnings if each.startswith("6 cases have no target")]
    assert result.values["nDCG@10"]["random"][:6] == (None,) * 6


def test_without_a_file_of_purchases_the_cases_histories_are_learnt_from(
    shop: ShopFiles, tmp_path: Path
) -> None:
    result = run(shop, tmp_path, "popularity", "cooccurrence", "interest", histories=None)
    assert result.knowledge.own_histories
    assert result.knowledge.purchases == 60 * 4
    assert value(result, "cooccurrence") > 0.9
    assert result.time_proof is not None
    assert result.time_proof.proven
    assert [each for each in result.warnings if each.startswith("neither --histories nor")]


def test_of_a_shopper_with_several_cases_no_answer_is_learnt(tmp_path: Path) -> None:
    """The later case's history holds the answer of the earlier one."""
    shop = make_shop(tmp_path, times=False)
    rows = [json.loads(line) for line in shop.cases.read_text().splitlines()]
    later = [
        row | {"case_id": f"later {n}", "history": [*row["history"], *row["targets"]]}
        for n, row in enumerate(rows)
    ]
    other = shop._replace(cases=write_lines(tmp_path / "cases.jsonl", [*later, *rows]))
    result = run(other, tmp_path, "own-history", histories=None)
    assert result.knowledge.purchases == 60 * 4
    assert result.knowledge.leaked == ()


def test_where_nothing_is_known_of_purchases_it_is_said(shop: ShopFiles, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in shop.cases.read_text().splitlines()]
    for row in rows:
        del row["history"], row["history_at"]
    other = shop._replace(cases=write_lines(tmp_path / "cases.jsonl", rows))
    result = run(other, tmp_path, "random", "popularity", "cooccurrence", histories=None)
    assert value(result, "popularity") == value(result, "random") == value(result, "cooccurrence")
    assert [each for each in result.warnings if each.startswith("nothing is known of purchases")]


def test_a_sample_lies_in_a_larger_one(shop: ShopFiles, tmp_path: Path) -> None:
    small, large = (run(shop, tmp_path, "random", limit=n).case_ids for n in (10, 30))
    assert len(small) == 10
    assert set(small) < set(large)


def test_unusable_rows_are_refused_or_counted(shop: ShopFiles, tmp_path: Path) -> None:
    cases = [json.loads(line) for line in shop.cases.read_text().splitlines()]
    cases[0]["candidates"].append("gone")
    other = shop._replace(cases=write_lines(tmp_path / "cases.jsonl", cases))
    with pytest.raises(RejectedCases, match="row 1, candidates"):
        run(other, tmp_path, "random")
    result = run(other, tmp_path, "random", max_rejected=0.1)
    assert (result.rows, result.cases, result.rejected) == (60, 59, 1)


@pytest.mark.parametrize(
    ("rankers", "more", "message"),
    [
        (("randon",), {}, "ranker 'randon': unknown; there are random"),
        (("random", "random"), {}, "named twice"),
        (("random",), {"baseline": "popularity"}, "baseline 'popularity'"),
        (("random",), {"settings": Settings.load(None, {"evaluation.measures": "nDGC@10"})},
         "measure 'nDGC@10'"),
    ],
)  # fmt: skip
def test_a_wrong_choice_is_named(
    shop: ShopFiles, tmp_path: Path, rankers: tuple[str, ...], more: dict[str, Any], message: str
) -> None:
    settings = more.pop("settings", SETTINGS)
    request = request_of(shop, tmp_path, *rankers).model_copy(update=more)
    with pytest.raises(ConfigError, match=message):
        evaluate(request, settings, no_models(settings))


def test_a_ranker_that_loses_candidates_is_refused(
    shop: ShopFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eval.rankers import counting

    monkeypatch.setattr(
        counting.AsGiven, "rank", lambda _, case: Ranked(product_ids=case.candidates[1:])
    )
    with pytest.raises(DataError, match="returned 9 products for 10 candidates"):
        run(shop, tmp_path, "as-given")


def test_one_shopper_gives_figures_without_intervals(shop: ShopFiles, tmp_path: Path) -> None:
    cases = [json.loads(line) | {"user_id": "u"} for line in shop.cases.read_text().splitlines()]
    other = shop._replace(cases=write_lines(tmp_path / "cases.jsonl", cases))
    result = run(other, tmp_path, "random", "popularity")
    assert result.rankers[0].measures[0].value is not None
    assert result.rankers[0].measures[0].estimate is None
    assert "two" in str(result.rankers[0].measures[0].refused)
    assert result.comparisons == ()


def test_an_interval_stays_within_what_the_measure_can_be() -> None:
    values, units = np.array([1.0, 0.9, 1.0, 0.8]), np.arange(4)
    beyond = figure("gain", values, units).estimate
    assert beyond is not None
    assert beyond.high > 1
    for name in ("nDCG@10", "RR", "AP(rel=2)@5", "HitRate@10"):
        found = figure(name, values, units).estimate
        assert found is not None
        assert (found.low, found.high) == (beyond.low, 1.0)
    low = figure("RR", 1 - values, units).estimate
    assert low is not None
    assert low.low == 0.0


def test_a_work_file_mends_its_torn_end(tmp_path: Path) -> None:
    lines = [
        RankedCase(case_id=str(n), milliseconds=1.0, ranked=Ranked(product_ids=("a",)))
        for n in range(3)
    ]
    with WorkFile(tmp_path, "random", "key") as work:
        for line in lines:
            work.add(line)
    (file,) = tmp_path.glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-10])
    with WorkFile(tmp_path, "random", "key") as work:
        assert set(work.done) == {"0", "1"}
        work.add(lines[2])
    with WorkFile(tmp_path, "random", "key") as work:
        assert work.done == {str(n): line for n, line in enumerate(lines)}
    with WorkFile(tmp_path, "random", "key", fresh=True) as work:
        assert work.done == {}


def test_purchases_go_there_and_back() -> None:
    purchases = Purchases.of([])
    assert len(purchases) == 0
    assert list(purchases.sequences()) == []
    assert np.array_equal(Purchases.joined([purchases]).user, purchases.user)
