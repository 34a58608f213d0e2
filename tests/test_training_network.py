import math
from collections import Counter
from pathlib import Path

import pytest
import torch

from reranker.errors import ConfigError
from reranker.settings import TrainingSettings
from reranker.training.causal_attention import CausalAttention
from reranker.training.encoding import by_length
from reranker.training.examples import Logged
from reranker.training.network import TunedNetwork
from reranker.training.objective import (
    direct_preference,
    distillation,
    lambdarank,
    list_loss,
    listwise,
    policy_value,
    ranknet,
)
from reranker.training.validation import shared_out
from tuning_shop import random_list, tuning_settings

SMALL = TrainingSettings(rank=4, alpha=8, seed=1)


def network(folder: Path, *, dtype: str = "float32", lean: bool = True) -> TunedNetwork:
    made = TunedNetwork(folder, SMALL, dtype=dtype, lean=lean)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # an untrained adapter changes nothing: its second matrices are 0
        for parameter in made.trained.values():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return made


LISTS = [random_list(1, 5, 40), random_list(2, 3, 33), random_list(3, 7, 52)]


def test_scores_are_those_of_the_whole_vocabulary_at_every_token(tiny_folder: Path) -> None:
    from peft import get_peft_model_state_dict, set_peft_model_state_dict
    from peft.tuners.lora.layer import Linear
    from transformers import AutoModelForCausalLM

    from reranker.training.methods.low_rank import LowRank

    ours = network(tiny_folder)
    plain = AutoModelForCausalLM.from_pretrained(str(tiny_folder), dtype=torch.float32)
    theirs = LowRank(plain, SMALL.model_copy(update={"seed": 9}), lean=False).wrapped
    state = get_peft_model_state_dict(ours.wrapped, save_embedding_layers=False)
    set_peft_model_state_dict(theirs, state)
    assert any(type(module) is Linear for module in theirs.modules())
    with torch.no_grad():
        grouped = ours.scores(LISTS)
        for one, found in zip(LISTS, grouped, strict=True):
            logits = theirs(input_ids=torch.tensor([one.prompt.token_ids])).logits[0]
            logprobs = torch.log_softmax(logits.float(), dim=-1)
            expected = [
                float(logprobs[place - 1, one.prompt.token_ids[place]])
                for place in one.prompt.verdict_positions
            ]
            assert found.tolist() == pytest.approx(expected, abs=1e-4)


def gradients(folder: Path, dtype: str, *, lean: bool) -> dict[str, torch.Tensor]:
    made = network(folder, dtype=dtype, lean=lean)
    assert made.method.lean_layers == (14 if lean else 0)
    torch.stack([scores.mean() for scores in made.scores(LISTS)]).sum().backward()
    found = {name: p.grad for name, p in made.trained.items() if p.grad is not None}
    assert found.keys() == made.trained.keys()
    assert {gradient.dtype for gradient in found.values()} == {torch.float32}
    return found


def error(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    wrong = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    whole = sum(float(gradient.square().sum()) for gradient in expected.values())
    return math.sqrt(wrong / whole)


def test_the_lean_layers_learn_what_those_of_peft_learn(tiny_folder: Path) -> None:
    exact = gradients(tiny_folder, "float32", lean=False)
    assert error(gradients(tiny_folder, "float32", lean=True), exact) < 1e-4
    rounded = error(gradients(tiny_folder, "bfloat16", lean=False), exact)
    assert error(gradients(tiny_folder, "bfloat16", lean=True), exact) < 2 * rounded < 0.3


@pytest.mark.parametrize("tokens", [1, 95, 96, 97, 300])
def test_attention_in_blocks_is_attention(tokens: int) -> None:
    generator = torch.Generator().manual_seed(tokens)

    def heads(count: int) -> torch.Tensor:
        made = torch.randn(2, tokens, count, 16, generator=generator).transpose(1, 2)
        return made.requires_grad_()

    query, key, value = heads(6), heads(2), heads(2)
    ours = CausalAttention.apply(query, key, value, 0.3)
    theirs = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=0.3, enable_gqa=True
    )
    torch.testing.assert_close(ours, theirs)
    towards = torch.randn(ours.shape, generator=generator)
    found = torch.autograd.grad(ours, (query, key, value), towards)
    expected = torch.autograd.grad(theirs, (query, key, value), towards)
    torch.testing.assert_close(found, expected)


def test_only_the_adapter_is_trained(tiny_folder: Path) -> None:
    made = network(tiny_folder, dtype="bfloat16")
    torch.stack([scores.mean() for scores in made.scores(LISTS)]).sum().backward()
    for name, parameter in made.wrapped.named_parameters():
        if ".lora_" in name:
            assert parameter.dtype == torch.float32
            assert parameter.grad is not None
            assert float(parameter.grad.abs().sum()) > 0
        else:
            assert not parameter.requires_grad
            assert parameter.grad is None
            assert parameter.dtype == torch.bfloat16 or "head" in name
    assert all("lm_head" not in name and "embed" not in name for name in made.trained)


def test_a_new_adapter_changes_nothing(tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    made = TunedNetwork(tiny_folder, SMALL, dtype="float32")
    plain = AutoModelForCausalLM.from_pretrained(str(tiny_folder), dtype=torch.float32)
    one = LISTS[0]
    with torch.no_grad():
        logits = plain(input_ids=torch.tensor([one.prompt.token_ids])).logits[0]
        (found,) = made.scores([one])
    logprobs = torch.log_softmax(logits.float(), dim=-1)
    place = one.prompt.verdict_positions[0]
    expected = float(logprobs[place - 1, one.prompt.token_ids[place]])
    assert float(found[0]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("method", ["full", "prefix"])
@pytest.mark.parametrize(
    ("setting", "default", "other"),
    [
        ("rank", 8, 16),
        ("alpha", 32.0, 8.0),
        ("dropout", 0.0, 0.3),
        ("rank_stabilised", False, True),
    ],
)
def test_settings_that_say_nothing_to_a_method_are_refused(
    tiny_folder: Path, method: str, setting: str, default: object, other: object
) -> None:
    given = tuning_settings(tiny_folder, method=method, **{setting: other}).training
    with pytest.raises(
        ConfigError,
        match=rf"training\.{setting}: does not go with training\.method = {method}.*leave it out",
    ):
        TunedNetwork(tiny_folder, given, dtype="float32")
    same = tuning_settings(tiny_folder, method=method, **{setting: default}).training
    assert TunedNetwork(tiny_folder, same, dtype="float32")


def test_lists_are_grouped_by_length() -> None:
    lists = [random_list(n, 2, length) for n, length in enumerate((90, 10, 50, 12, 45, 11))]
    groups = by_length(lists, 100)
    assert [[len(one) for one in group] for group in groups] == [[90], [50, 45], [12, 11, 10]]


def test_losses_against_the_formula() -> None:
    scores = torch.tensor([-1.0, -2.0, -4.0])
    total = math.log(math.exp(-1) + math.exp(-2) + math.exp(-4))
    grades = torch.tensor([0.0, 3.0, 0.0])
    assert float(listwise(scores, grades)) == pytest.approx(total + 2)
    both = torch.tensor([1.0, 3.0, 0.0])
    assert float(listwise(scores, both)) == pytest.approx(0.25 * (total + 1) + 0.75 * (total + 2))
    pairs = [math.log1p(math.exp(-(-2 + 1))), math.log1p(math.exp(-(-2 + 4)))]
    assert float(ranknet(scores, grades)) == pytest.approx(sum(pairs) / 2)
    assert float(distillation(scores, scores + 7, 2.0)) == pytest.approx(0, abs=1e-6)
    teacher = torch.tensor([-4.0, -2.0, -1.0])
    p = [math.exp(t) / sum(map(math.exp, (-4, -2, -1))) for t in (-4, -2, -1)]
    q = [math.exp(s) / math.exp(total) for s in (-1, -2, -4)]
    divergence = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(distillation(scores, teacher, 1.0)) == pytest.approx(divergence, rel=1e-5)
    one = random_list(1, 3, 9).model_copy(
        update={"grades": tuple(grades.tolist()), "teacher": tuple(teacher.tolist())}
    )
    mixed = list_loss(scores, one, TrainingSettings(teacher=0.25, temperature=1.0))
    assert float(mixed) == pytest.approx(0.75 * (total + 2) + 0.25 * divergence, rel=1e-5)


def test_lambdarank_weighs_pairs_by_what_they_do_to_ndcg() -> None:
    scores = torch.tensor([-1.0, -2.0, -4.0])  # in places 1, 2, 3
    grades = torch.tensor([0.0, 2.0, 1.0])
    discount = [1 / math.log2(place + 1) for place in (1, 2, 3)]
    ideal = 2 * discount[0] + 1 * discount[1]

    def pair(better: int, worse: int) -> float:
        gain = float(grades[better] - grades[worse]) * (discount[better] - discount[worse])
        margin = float(scores[better] - scores[worse])
        return abs(gain) / ideal * math.log1p(math.exp(-margin))

    expected = pair(1, 0) + pair(1, 2) + pair(2, 0)
    assert float(lambdarank(scores, grades)) == pytest.approx(expected, rel=1e-5)


def test_preferences_are_counted_beside_the_untuned_model() -> None:
    grades = torch.tensor([0.0, 1.0])
    scores, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -1.0])
    margin = 0.5 * ((-2 - -1) - (-1 - -3))
    found = direct_preference(scores, reference, grades, 0.5)
    assert float(found) == pytest.approx(math.log1p(math.exp(-margin)), rel=1e-5)


def test_the_logged_reward_is_weighed_by_inverse_propensity_and_cut_off() -> None:
    scores, grades = torch.tensor([0.0, 0.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 2.0, 0.0])
    logged = Logged(place=2, propensity=0.125)
    assert float(policy_value(scores, grades, logged, 10)) == pytest.approx(-2 * 0.25 / 0.125)
    assert float(policy_value(scores, grades, logged, 1.5)) == pytest.approx(-3)
    one = random_list(1, 4, 9).model_copy(update={"grades": (0.0, 0.0, 2.0, 0.0), "logged": logged})
    settings = TrainingSettings(objective="policy", teacher=0)
    assert float(list_loss(scores, one, settings)) == pytest.approx(-4)
    unlogged = one.model_copy(update={"logged": None})
    assert float(list_loss(scores, unlogged, settings)) == pytest.approx(math.log(4))


def test_the_untuned_model_can_be_asked_beside_the_tuned_one(tiny_folder: Path) -> None:
    made = network(tiny_folder)
    tuned, untuned = made.scores(LISTS), made.untuned_scores(LISTS)
    made.restore({name: torch.zeros_like(p) for name, p in made.trained.items()})
    for before, ours, bare in zip(tuned, untuned, made.scores(LISTS), strict=True):
        torch.testing.assert_close(ours, bare.detach())
        assert not torch.allclose(before, ours)


def test_a_list_without_anything_bought_teaches_nothing() -> None:
    for loss in (listwise, ranknet, lambdarank):
        scores = torch.tensor([-1.0, -2.0], requires_grad=True)
        found = loss(scores, torch.zeros(2))
        found.backward()
        assert found.item() == 0
        assert scores.grad is not None
        assert scores.grad.tolist() == [0, 0]


def test_validation_looks_at_sources_in_the_shares_of_training() -> None:
    held = [[f"a{n}" for n in range(1000)], [f"b{n}" for n in range(100)], ["c0", "c1"]]
    looked_at = shared_out(held, [2.0, 4.0, 1.0], 30)
    assert Counter(one[0] for one in looked_at) == {"a": 9, "b": 19, "c": 2}
    assert len(set(looked_at)) == 30
    assert looked_at[:2] == ["a0", "a111"], "spread over all that a source holds back"
    assert len(shared_out(held, [2.0, 4.0, 1.0], 5000)) == 1102
    assert shared_out(held[2:], [1.0], 1) == ["c0"]
