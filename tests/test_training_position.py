"""What is learnt of lists that were shown must not be the places in which they were shown."""

from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import product

import pytest
import torch
from torch import Tensor

from reranker.models.rendering import RenderedPrompt
from reranker.schema import Impression, ShownItem
from reranker.settings import TrainingSettings
from reranker.training.encoding import EncodedList
from reranker.training.examples import Logged
from reranker.training.objective import (
    direct_preference,
    lambdarank,
    list_loss,
    listwise,
    ranknet,
)
from reranker.training.purchases import Purchase
from reranker.training.shown_source import purchase_of
from reranker.training.validation import by_score, ndcg

EXAMINATION = (1.0, 0.6, 0.4, 0.25, 0.18)
PAIRS: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "ranknet": ranknet,
    "lambdarank": lambdarank,
    "preference": lambda scores, grades, weights: direct_preference(
        scores, torch.zeros_like(scores), grades, 0.5, weights
    ),
}


def shown(
    grades: Sequence[int],
    examination: Sequence[float] = EXAMINATION,
    ids: Sequence[str] = ("p0", "p1", "p2", "p3", "p4"),
    propensity: float | None = None,
) -> Purchase | None:
    items = [
        ShownItem(
            product_id=ids[number],
            position=number + 1,
            grade=grade,
            propensity=None if number else propensity,
        )
        for number, grade in enumerate(grades)
    ]
    impression = Impression(
        request_id="r", user_id="u", at=datetime(2026, 1, 1, tzinfo=UTC), items=tuple(items)
    )
    return purchase_of(impression, set(ids), examination)


def tensors(one: Purchase) -> tuple[Tensor, Tensor | None]:
    weights = torch.tensor(one.item_weights) if one.item_weights else None
    return torch.tensor(one.grades), weights


def minimised(loss: Callable[[Tensor], Tensor], slots: int) -> list[float]:
    """Return the scores that make a loss smallest, or those of 300 steps towards them."""
    scores = torch.zeros(slots, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        loss(scores).backward()
        optimizer.step()
    return scores.tolist()


@pytest.mark.parametrize("name", PAIRS)
def test_a_purchase_is_better_than_a_click_wherever_both_were_shown(name: str) -> None:
    one = shown((3, 0, 0, 0, 1))
    assert one is not None
    grades, weights = tensors(one)
    scores = minimised(lambda scores: PAIRS[name](scores, grades, weights), 5)
    assert scores[0] > scores[4] > max(scores[1:4])


def test_validation_measures_what_was_wanted_and_not_where_it_was_shown() -> None:
    one = shown((3, 0, 0, 0, 1))
    assert one is not None
    assert ndcg(by_score((5, 3, 2, 1, 4), one.grades), 10) == pytest.approx(1)
    click_first = ndcg(by_score((4, 3, 2, 1, 5), one.grades), 10)
    assert click_first < 0.85


def test_a_place_that_is_seldom_looked_at_makes_a_click_weigh_more_up_to_a_bound() -> None:
    one = shown((1, 0, 0, 0, 1), (1, 0.5, 0.01))
    assert one is not None
    assert one.grades == (1, 0, 0, 0, 1)
    assert one.item_weights == pytest.approx((1, 2, 20, 20, 20))
    assert one.weight == 1
    alike = shown((1, 0, 0, 0, 1), ())
    assert alike is not None
    assert alike.item_weights == ()


def expected_clicks(
    wanted: Sequence[float], examination: Sequence[float]
) -> Iterator[tuple[float, tuple[int, ...]]]:
    """Yield each outcome of a list with its probability; a click needs a look and a wish."""
    chances = [want * look for want, look in zip(wanted, examination, strict=True)]
    for clicks in product((0, 1), repeat=len(wanted)):
        likely = 1.0
        for click, chance in zip(clicks, chances, strict=True):
            likely *= chance if click else 1 - chance
        yield likely, clicks


@pytest.mark.parametrize("name", ["listwise", *PAIRS])
def test_what_is_wanted_more_is_learnt_from_below_what_is_wanted_less(name: str) -> None:
    """The worst product always stands first, and is clicked most."""
    loss = PAIRS.get(name, listwise)
    wanted, examination, ids = (0.1, 0.15, 0.2), (1, 0.4, 0.2), ("p0", "p1", "p2")
    outcomes = list(expected_clicks(wanted, examination))
    lists = [(likely, shown(clicks, examination, ids)) for likely, clicks in outcomes]

    def expected(scores: Tensor) -> Tensor:
        parts = [likely * loss(scores, *tensors(one)) for likely, one in lists if one is not None]
        return torch.stack(parts).sum()

    def unweighted(scores: Tensor) -> Tensor:
        parts = [
            likely * loss(scores, tensors(one)[0], None) for likely, one in lists if one is not None
        ]
        return torch.stack(parts).sum()

    worst, middle, best = minimised(expected, 3)
    assert best > middle > worst
    worst, middle, best = minimised(unweighted, 3)
    assert worst > middle > best


def test_the_policys_reward_counts_no_clicks_elsewhere() -> None:
    """The one that leads is drawn evenly; a click further down follows one of them often."""
    first, below = (0.4, 0.35, 0.05), (0.02, 0.5, 0.02)
    settings = TrainingSettings(objective="policy", policy_weight=100, teacher=0)
    scores = torch.log(torch.full((3,), 1 / 3))
    reward = [0.0, 0.0, 0.0]
    for leads in range(3):
        ids = [f"p{leads}", *(f"p{n}" for n in range(3) if n != leads)]
        for likely, clicks in expected_clicks((first[leads], 0, below[leads]), (1, 1, 1)):
            one = shown(clicks, (1, 0.2, 0.1), ids, propensity=1 / 3)
            if one is None or one.propensity is None:
                continue
            encoded = EncodedList(
                prompt=RenderedPrompt(token_ids=(1, 2, 3, 4), verdict_positions=(1, 2, 3)),
                grades=one.grades,
                item_weights=one.item_weights,
                teacher=None,
                logged=Logged(place=0, propensity=one.propensity),
                weight=one.weight,
            )
            loss = list_loss(scores, encoded, settings) * encoded.weight
            reward[leads] -= likely * float(loss)
    assert reward == pytest.approx(first, abs=1e-5)
