"""What is shown, and that its log tells the truth about other rankers."""

from datetime import UTC, datetime

import numpy as np
import pytest

from eval.counterfactual.estimators import evaluate_policy
from eval.counterfactual.target_policy import TargetPolicy
from eval.logs import LoggedLists
from eval.statistics.estimates import RefusedEstimate
from reranker.errors import ConfigError
from reranker.impressions import ShownList, show
from reranker.schema import Impression, Product, RankedItem, RerankResult, SearchRequest

CHANCE = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
EXAMINED = (1.0, 0.5)
NOON = datetime(2026, 3, 5, 12, tzinfo=UTC)


def answer_of(request: SearchRequest, scores: tuple[float, ...]) -> RerankResult:
    items = tuple(
        RankedItem(
            product=Product(product_id=f"p{number}", title=f"Thing {number}"),
            rank=number + 1,
            score=score,
            recall_rank=number + 1,
            recall_score=1.0,
            placed_by="model",
            reason="",
        )
        for number, score in enumerate(scores)
    )
    return RerankResult(request_id=request.request_id, items=items, outcome="model")


def shown(seed: int, **options: float) -> ShownList:
    name = f"r{seed}"
    request = SearchRequest(request_id=name, user_id=f"u{seed}", query="thing", k=2, at=NOON)
    answer = answer_of(request, (6.0, 5.0, 4.0, 3.0, 2.0, 1.0))
    return show(request, answer, rng=np.random.default_rng(seed), **options)


def clicked(impression: Impression, rng: np.random.Generator) -> Impression:
    items = tuple(
        item.model_copy(
            update={
                "grade": int(
                    rng.random() < CHANCE[int(item.product_id[1:])] * EXAMINED[item.position - 1]
                )
            }
        )
        for item in impression.items
    )
    return impression.model_copy(update={"items": items})


def test_without_exploration_the_list_is_shown_as_ranked() -> None:
    found = shown(1)
    assert [item.product.product_id for item in found.items] == ["p0", "p1"]
    assert found.impression.policy == "as-ranked"
    assert [item.propensity for item in found.impression.items] == [1.0, 1.0]
    assert found.impression.request_id == "r1"
    assert found.impression.pool == ()


def test_the_log_tells_what_a_list_was_drawn_from() -> None:
    assert shown(1, temperature=1.0, among=4).impression.pool == ("p0", "p1", "p2", "p3")
    assert len(shown(1, temperature=1.0).impression.pool) == 6


def test_the_log_tells_what_another_order_would_have_earned() -> None:
    rng = np.random.default_rng(4)
    lists = [clicked(shown(n, temperature=1.0).impression, rng) for n in range(6000)]
    logs = LoggedLists.from_impressions(lists)
    turned = {each.request_id: ["p5", "p4"] for each in lists}
    target = TargetPolicy.from_lists(logs, turned)
    truth = CHANCE[5] * EXAMINED[0] + CHANCE[4] * EXAMINED[1]
    found = evaluate_policy(logs, target, "item-position")
    assert found.estimate.covers(truth)
    assert found.support == pytest.approx(1.0, abs=0.2)
    assert found.estimate.value > 1.5 * logs.reached().sum() / len(logs)


def test_a_log_without_exploration_is_refused() -> None:
    rng = np.random.default_rng(4)
    logs = LoggedLists.from_impressions([clicked(shown(n).impression, rng) for n in range(200)])
    target = TargetPolicy.from_lists(logs, {name: ["p5", "p4"] for name in logs.request_ids})
    with pytest.raises(RefusedEstimate, match="never shown"):
        evaluate_policy(logs, target, "item-position")


def test_a_draw_keeps_the_evidence_and_can_be_repeated() -> None:
    first = shown(7, temperature=2.0)
    assert first == shown(7, temperature=2.0)
    orders = {
        tuple(i.product.product_id for i in shown(n, temperature=2.0).items) for n in range(9)
    }
    assert len(orders) > 3
    for item, logged in zip(first.items, first.impression.items, strict=True):
        assert item.product.product_id == logged.product_id == f"p{item.rank - 1}"
    near = [shown(n, temperature=0.05).items[0].rank for n in range(50)]
    assert near == [1] * 50


def test_only_the_best_may_be_drawn() -> None:
    seen = {
        i.product.product_id for n in range(300) for i in shown(n, temperature=9, among=3).items
    }
    assert seen == {"p0", "p1", "p2"}


def test_equal_scores_are_drawn_evenly_and_a_wrong_temperature_is_refused() -> None:
    request = SearchRequest(query="thing", k=2)
    even = show(request, answer_of(request, (1.0, 1.0, 1.0)), temperature=0.5)
    assert even.impression.items[0].propensity == pytest.approx(1 / 3)
    with pytest.raises(ConfigError, match="temperature 0"):
        show(request, answer_of(request, (2.0, 1.0)), temperature=0.0)


def test_hundreds_of_places_can_be_explored() -> None:
    request = SearchRequest(query="thing", k=200)
    answer = answer_of(request, [float(-n) for n in range(300)])
    long = show(request, answer, temperature=1, rng=np.random.default_rng(0)).impression
    assert len({item.product_id for item in long.items}) == 200
    assert all(0 < item.propensity <= 1 for item in long.items)
