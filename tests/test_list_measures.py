import math

import numpy as np
import pytest

from eval.logs import LoggedLists
from eval.measures.lists import (
    catalogue_coverage,
    click_through,
    conversion,
    diversity,
    exposure,
    group_diversity,
    popularity_lift,
)
from eval.measures.scores import calibration_error, measure_scores
from reranker.errors import DataError
from reranker.schema import Impression, ShownItem


@pytest.fixture
def logs() -> LoggedLists:
    grades = [(1, 0, 0), (0, 0, 3), (3, 1, 0), (0, 0, 0)]
    return LoggedLists.from_impressions(
        Impression(
            request_id=f"r{row}",
            user_id=f"u{row // 2}",
            items=tuple(
                ShownItem(product_id=f"p{place}", position=place, grade=grade)
                for place, grade in enumerate(shown, 1)
            ),
        )
        for row, shown in enumerate(grades)
    )


def test_click_through_and_conversion_of_the_first_places(logs: LoggedLists) -> None:
    assert click_through(logs, 2).value == pytest.approx(3 / 8)
    assert click_through(logs, 10).value == pytest.approx(4 / 12)
    assert conversion(logs, 2).value == pytest.approx(1 / 4)
    assert conversion(logs, 3).value == pytest.approx(2 / 4)
    assert (conversion(logs, 3).n, conversion(logs, 3).clusters) == (4, 2)


def test_coverage() -> None:
    assert catalogue_coverage([["a", "b", "c"], ["b", "a"]], 2, 10) == 0.2
    with pytest.raises(DataError, match="2 products are shown"):
        catalogue_coverage([["a", "b"]], 2, 1)


def test_popularity_lift() -> None:
    popularity = {"a": 10.0, "b": 5.0, "c": 1.0}
    lists = [["a", "c"], ["b"], [], ["a"]]
    reference = [["a", "b", "c", "d"], ["b", "d"], ["a"], []]
    estimate = popularity_lift(lists, reference, popularity, 1, ["u", "v", "w", "x"])
    assert estimate.value == pytest.approx((10 + 5) / (4 + 2.5) - 1)
    assert (estimate.n, estimate.excluded) == (2, 2)


def test_exposure_and_disparity() -> None:
    groups = {"a": "acme", "b": "acme", "c": "bolt"}
    found = exposure([["a", "c"], ["b", "z"]], [["a", "c"], ["b", "c"]], groups, 2)
    second = 1 / math.log2(3)
    total = 2 + 2 * second
    assert found.shares == pytest.approx(
        {"": second / total, "acme": 2 / total, "bolt": second / total}
    )
    assert found.reference == {"acme": 0.5, "bolt": 0.5}
    gaps = abs(2 / total - 0.5) + abs(second / total - 0.5) + second / total
    assert found.disparity == pytest.approx(gaps / 2)
    assert exposure([["a"]], [["a"]], groups, 1).disparity == 0
    assert exposure([["a"]], [["c"]], groups, 1).disparity == 1
    with pytest.raises(DataError, match="nothing is shown"):
        exposure([[]], [["a"]], groups, 1)


def test_diversity() -> None:
    one_hot = {"a": np.array([1.0, 0]), "b": np.array([2.0, 0]), "c": np.array([0, 1.0])}
    found = diversity([["a", "b", "c"], ["a", "b"], ["a"]], one_hot, 3, ["u", "v", "w"])
    assert found.value == pytest.approx((2 / 3 + 0) / 2)
    assert found.excluded == 1
    with pytest.raises(DataError, match="'z' has no vector"):
        diversity([["a", "z"], ["a", "b"]], one_hot, 2, ["u", "v"])


def test_diversity_of_groups_is_that_of_one_hot_vectors() -> None:
    rng = np.random.default_rng(4)
    groups = {f"p{n}": f"g{rng.integers(4)}" for n in range(30)}
    one_hot = {p: np.eye(4)[int(group[1:])] for p, group in groups.items()}
    lists = [[str(p) for p in rng.permutation(sorted(groups))[:8]] for _ in range(50)]
    shoppers = [f"u{n % 9}" for n in range(50)]
    ours = group_diversity(lists, groups, 5, shoppers)
    theirs = diversity(lists, one_hot, 5, shoppers)
    assert ours.value == pytest.approx(theirs.value)
    assert ours.low == pytest.approx(theirs.low)
    alone = group_diversity([["p0", "?"], ["p0", "p1"], ["p2", "p3"]], groups, 5, ["u", "v", "w"])
    assert (alone.n, alone.excluded) == (2, 1)


def test_interest_scores_against_scikit_learn() -> None:
    from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

    rng = np.random.default_rng(4)
    scores = rng.random(500)
    labels = (rng.random(500) < scores).astype(int)
    found = measure_scores(scores, labels, np.arange(500) // 5, threshold=0.4)
    said = scores >= 0.4
    assert found.accuracy.value == pytest.approx(accuracy_score(labels, said))
    assert found.recall.value == pytest.approx(recall_score(labels, said))
    assert found.precision is not None
    assert found.precision.value == pytest.approx(precision_score(labels, said))
    assert found.f1.value == pytest.approx(f1_score(labels, said))
    assert found.mae.value == pytest.approx(np.abs(scores - labels).mean())
    assert found.mae.clusters == 100
    assert found.calibration_error < 0.1
    none = measure_scores(np.zeros(4), [1, 0, 0, 1], [1, 2, 3, 4])
    assert (none.precision, none.f1.value, none.recall.value) == (None, 0, 0)


def test_calibration_error_by_hand() -> None:
    assert calibration_error([0.95, 1.0, 0.05], [1, 0, 1], bins=10) == pytest.approx(
        (2 * abs(0.975 - 0.5) + abs(0.05 - 1)) / 3
    )
    rng = np.random.default_rng(0)
    scores = rng.random(200_000)
    assert calibration_error(scores, rng.random(200_000) < scores) < 0.01
    assert calibration_error(scores, rng.random(200_000) < scores**2) > 0.1


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.5, 1.5], [1, 0], "score 2 is 1.5"),
        ([0.5, float("nan")], [1, 0], "score 2 is nan"),
        ([0.5, 0.5], [1, 2], "label 2 is 2"),
        ([0.5, 0.5], [0, 0], "no label is 1"),
        ([0.5], [1, 0], "same length"),
    ],
)
def test_wrong_scores_are_named(scores: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        measure_scores(scores, labels, list(range(len(scores))))
