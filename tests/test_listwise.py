"""The model's answers are scripted here: the subject is what becomes of good and bad ones."""

import time
from collections.abc import Sequence

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.errors import ConfigError, ModelTimeout, ModelUnavailable, OutputError
from reranker.fusion import Blend
from reranker.listwise import Judgement
from reranker.models.tokenizing import HFTokenizer
from reranker.schema import Candidate, Product, ProductInterest, Prompt, SlotScores
from reranker.settings import FusionSettings
from reranker.shuffles import instability, shuffled_orders
from scripted_model import (
    Answer,
    ScriptedModel,
    fails,
    judge,
    prefer_last_product,
    prefer_last_product_by_title,
    shown,
)
from shop import candidates

SCORES = st.one_of(st.none(), st.floats(-50, 0))


def test_scores_return_to_their_candidates_whatever_the_order(tokenizer: HFTokenizer) -> None:
    model = ScriptedModel(tokenizer, prefer_last_product)
    judged = judge(model, shuffles=5)
    assert judged.logprobs == (0.0, 1.0, 2.0, 3.0, 4.0, 5.0)
    assert judged.instability == 0
    assert len({prompt.order for prompt in model.prompts}) == 5


@pytest.mark.parametrize("size", [2, 15, 25, 35, 52, 53, 95, 100, 500])
@pytest.mark.parametrize("strategy", ["pivot", "sliding"])
def test_every_candidate_reaches_the_model_and_the_best_come_first(
    tokenizer: HFTokenizer, size: int, strategy: str
) -> None:
    """The best stand last in recall: the hardest case for a window that moves."""
    model = ScriptedModel(tokenizer, prefer_last_product_by_title)
    judged = judge(model, size=size, strategy=strategy)
    assert shown(model) == {f"thing {number}" for number in range(size)}
    assert sorted(judged.places) == list(range(1, size + 1))
    assert judged.outcome == "model"
    best = sorted(range(size), key=lambda candidate: judged.places[candidate])[:10]
    assert best == list(range(size))[::-1][:10]


@pytest.mark.parametrize("user_id", ["ann", None])
@pytest.mark.parametrize("readout", ["labels", "verdict", "generate"])
def test_what_a_model_caches_is_kept_apart_by_shopper(
    tokenizer: HFTokenizer, readout: str, user_id: str | None
) -> None:
    model = ScriptedModel(tokenizer, prefer_last_product)
    assert judge(model, size=25, user_id=user_id, readout=readout).rounds > 1
    assert set(model.scopes) == {user_id}


def test_a_query_that_was_cut_is_an_issue(tokenizer: HFTokenizer) -> None:
    judged = judge(ScriptedModel(tokenizer, prefer_last_product), query="thing " * 90)
    assert [issue.code for issue in judged.issues] == ["query_shortened"]
    assert judged.outcome == "model"


def test_the_window_shrinks_to_the_context(tokenizer: HFTokenizer) -> None:
    class Narrow(ScriptedModel):
        spec = ScriptedModel.spec.model_copy(update={"context_length": 1024})

    model = Narrow(tokenizer, prefer_last_product_by_title)
    judged = judge(model, size=30)
    assert None not in judged.places
    assert max(len(prompt.order) for prompt in model.prompts) == 8


def test_lost_windows_are_counted_and_cost_no_candidate(tokenizer: HFTokenizer) -> None:
    def every_third_fails(prompts: Sequence[Prompt]) -> tuple[SlotScores, ...]:
        if len(model.prompts) % 3 == 2:
            raise ModelUnavailable("gone for a moment")
        return prefer_last_product_by_title(prompts)

    model = ScriptedModel(tokenizer, every_third_fails)
    judged = judge(model, size=60)
    assert judged.outcome == "model"
    assert {issue.code for issue in judged.issues} == {"model_error", "window_lost"}
    placed = [place for place in judged.places if place is not None]
    assert 20 <= len(placed) < 60
    assert sorted(placed) == list(range(1, len(placed) + 1))


def test_a_model_that_is_down_is_not_asked_window_after_window(tokenizer: HFTokenizer) -> None:
    model = ScriptedModel(tokenizer, fails(ModelUnavailable("the server is gone")))
    for strategy in ("pivot", "sliding"):
        model.prompts.clear()
        assert judge(model, size=500, strategy=strategy).outcome == "fallback"
        assert len(model.prompts) == 2


def test_what_was_judged_before_the_deadline_keeps_its_place(tokenizer: HFTokenizer) -> None:
    class SlowAfterTheFirst(ScriptedModel):
        async def read(self, prompts: Sequence[Prompt], **_how: object) -> tuple[SlotScores, ...]:
            if self.prompts:
                await anyio.sleep(30)
            return await super().read(prompts)

    model = SlowAfterTheFirst(tokenizer, prefer_last_product_by_title)
    judged = judge(model, size=50, deadline=time.monotonic() + 2)
    assert judged.deadline_hit
    assert judged.outcome == "model"
    assert judged.places == (*range(20, 0, -1), *[None] * 30)
    assert [issue.code for issue in judged.issues] == ["deadline"]


@pytest.mark.parametrize("size", [0, 1])
def test_nothing_to_rank_asks_nothing(tokenizer: HFTokenizer, size: int) -> None:
    model = ScriptedModel(tokenizer, prefer_last_product)
    assert judge(model, size=size).outcome == "model"
    assert model.prompts == []


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (fails(ModelUnavailable("the server is gone")), "model_error"),
        (fails(OutputError("not a number")), "bad_output"),
        (lambda prompts: (SlotScores(logprobs=(0.0,)),) * len(prompts), "bad_output"),
        (lambda prompts: (), "bad_output"),
        (
            lambda prompts: tuple(
                SlotScores(logprobs=(-9.0,) * 6, label_mass=0.001) for _ in prompts
            ),
            "low_label_mass",
        ),
    ],
)
def test_a_failing_model_is_a_typed_fallback(
    tokenizer: HFTokenizer, answer: Answer, code: str
) -> None:
    judged = judge(ScriptedModel(tokenizer, answer))
    assert judged.outcome == "fallback"
    assert [issue.code for issue in judged.issues] == [code]
    assert judged.logprobs == (None,) * 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 27}, r"ranking.window = 27: scripted has 26 labels; lower it$"),
        ({"readout": "verdict"}, "ranking.readout = verdict: scripted can only be read by labels"),
    ],
)
def test_a_model_that_cannot_be_asked_so_is_refused_at_the_start(
    tokenizer: HFTokenizer, changes: dict[str, object], message: str
) -> None:
    class LabelsOnly(ScriptedModel):
        spec = ScriptedModel.spec.model_copy(update={"readouts": frozenset({"labels"})})

    with pytest.raises(ConfigError, match=message):
        judge(LabelsOnly(tokenizer, prefer_last_product), **changes)


def test_a_readout_without_labels_is_named_where_the_model_has_it(tokenizer: HFTokenizer) -> None:
    model = ScriptedModel(tokenizer, prefer_last_product)
    with pytest.raises(ConfigError, match=r"lower it, or set ranking\.readout = verdict"):
        judge(model, window=27)
    assert judge(model, window=27, readout="verdict").outcome == "model"


def test_a_timeout_of_the_model_s_own_is_not_our_deadline(tokenizer: HFTokenizer) -> None:
    judged = judge(ScriptedModel(tokenizer, fails(ModelTimeout("no answer in 5 s"))))
    assert not judged.deadline_hit
    assert judged.issues[0].code == "model_error"


def test_an_error_that_is_not_the_model_s_reaches_the_caller(tokenizer: HFTokenizer) -> None:
    with pytest.raises(ZeroDivisionError):
        judge(ScriptedModel(tokenizer, fails(ZeroDivisionError())))


def test_a_deadline_ends_the_wait(tokenizer: HFTokenizer) -> None:
    class Slow(ScriptedModel):
        async def read(self, prompts: Sequence[Prompt], **_how: object) -> tuple[SlotScores, ...]:
            await anyio.sleep(30)
            return ()

    started = time.monotonic()
    judged = judge(Slow(tokenizer, prefer_last_product), deadline=started + 0.2)
    assert time.monotonic() - started < 5
    assert judged.deadline_hit
    assert judged.issues[0].code == "deadline"


@given(st.integers(1, 60), st.integers(1, 9), st.text(max_size=5))
def test_orders_are_permutations_and_repeatable(size: int, count: int, seed: str) -> None:
    orders = shuffled_orders(size, count, seed)
    assert len(orders) == count
    assert all(sorted(order) == list(range(size)) for order in orders)
    assert orders == shuffled_orders(size, count, seed)


def test_an_even_number_of_shuffles_gives_every_candidate_the_same_mean_place() -> None:
    orders = shuffled_orders(21, 4, "seed")
    for candidate in range(21):
        assert sum(order.index(candidate) for order in orders) / 4 == 10


def test_instability_of_opposite_orders() -> None:
    assert instability([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]]) == pytest.approx(4 / 3)
    assert instability([[1.0, 2.0]]) is None


def judgement(logprobs: Sequence[float | None]) -> Judgement:
    """Return the judgement of a model that heard of some candidates and not of others."""
    judged_at = sorted(
        (index for index, score in enumerate(logprobs) if score is not None),
        key=lambda index: -(logprobs[index] or 0.0),
    )
    places = {candidate: place for place, candidate in enumerate(judged_at, start=1)}
    return Judgement(
        places=tuple(places.get(index) for index in range(len(logprobs))),
        logprobs=tuple(logprobs),
        reasons=(None,) * len(logprobs),
        outcome="model",
    )


def things(number: int) -> tuple[Candidate, ...]:
    return candidates(tuple(Product(product_id=str(n), title="thing") for n in range(number)))


@given(
    st.lists(st.tuples(SCORES, st.floats(-9, 9)), max_size=60),
    st.floats(0, 2),
    st.floats(0, 2),
    st.floats(0, 2),
    st.booleans(),
)
def test_every_candidate_comes_back_exactly_once(
    told: list[tuple[float | None, float]],
    model: float,
    recall: float,
    interest: float,
    learned: bool,
) -> None:
    items, judged = things(len(told)), judgement([score for score, _ in told])
    weights = FusionSettings(model=model, recall=recall, interest=interest)
    known = [ProductInterest(odds=odds, sales=None) for _, odds in told] if learned else None
    blend = Blend(items, None, known, weights)
    assert sorted(blend.shown(), key=lambda each: each.recall_rank) == list(items)
    ranked = blend.items(judged)
    assert all((item.interest is not None) == learned for item in ranked)
    assert [item.rank for item in ranked] == list(range(1, len(items) + 1))
    assert {item.product.product_id for item in ranked} == {str(n) for n in range(len(items))}
    scores = [item.score for item in ranked]
    assert scores == sorted(scores, reverse=True)
    for item in ranked:
        assert item.recall_score == items[int(item.product.product_id)].recall_score


def test_the_model_is_never_shown_one_of_several() -> None:
    """One alone would be said to be placed by a model that was not asked."""
    several, one = (Blend(things(n), None, None, FusionSettings()) for n in (3, 1))
    assert [len(several.shown(most)) for most in (1, 2, 3, None)] == [2, 2, 3, 3]
    assert one.shown(1) == things(1)


def test_a_stage_without_weight_places_nothing() -> None:
    """The model has the last first; where neither it nor recall counts, recall decides."""
    items, judged = things(3), judgement([-3.0, -2.0, -1.0])

    def placed(**weights: float) -> list[tuple[str, str]]:
        ranked = Blend(items, None, None, FusionSettings(**weights)).items(judged)
        return [(item.product.product_id, item.placed_by) for item in ranked]

    assert placed(model=1, recall=0) == [("2", "model"), ("1", "model"), ("0", "model")]
    assert placed(model=0, recall=1) == [("0", "recall"), ("1", "recall"), ("2", "recall")]
    assert placed(model=0, recall=0) == [("0", "recall"), ("1", "recall"), ("2", "recall")]


@given(st.lists(SCORES, max_size=30), st.integers(0, 30))
def test_items_made_while_the_model_is_asked_are_those_made_afterwards(
    logprobs: list[float | None], behind: int
) -> None:
    """Also where it has not heard of all that it was shown."""
    items, judged = things(len(logprobs) + behind), judgement(logprobs).followed_by(behind)
    prepared, afterwards = (Blend(items, None, None, FusionSettings()) for _ in range(2))
    assert prepared.shown(len(logprobs)) == items[: max(len(logprobs), 2)]
    prepared.prepare()
    assert prepared.items(judged) == afterwards.items(judged)
