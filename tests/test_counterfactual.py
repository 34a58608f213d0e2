import dataclasses
import sys
import warnings
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from eval.benchmarks.estimators import measure_estimators, scenarios
from eval.counterfactual.estimators import evaluate_policy
from eval.counterfactual.reward_model import RewardModel, fit
from eval.counterfactual.target_policy import TargetPolicy
from eval.logs import LoggedLists
from eval.simulation import ShopDesign, SimulatedShop
from eval.statistics.estimates import RefusedEstimate
from reranker.errors import ConfigError, DataError
from reranker.models.package_source import unpack_package
from reranker.models.weights import cache_folder
from reranker.schema import Impression, ShownItem

ACTIONS, PLACES, ROUNDS = 7, 3, 1000


@pytest.fixture(scope="module")
def obp() -> Iterator[Any]:
    """The estimators of obp 0.4.1: their own code out of the package, which is not installed."""
    folder = unpack_package(
        "obp==0.4.1",
        wheel_sha256="87dec9caf4283c25ab13036532e0a24566f1c7bdcad1653a8ded43b2f5ef8208",
        prefix="obp/",
        target=cache_folder() / "datasets" / "obp",
    )
    before, write = set(sys.modules), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # the folder stays as it was unpacked
    for name, path in (("obp", folder), ("obp.ope", folder / "ope")):
        package = ModuleType(name)
        package.__path__ = [str(path)]
        sys.modules[name] = package
    # Only helpers that are not called here ask for pandas.
    sys.modules.setdefault("pandas", ModuleType("pandas")).DataFrame = object
    both = ModuleType("both")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # its docstrings' escapes
        both.single = import_module("obp.ope.estimators")
        both.slate = import_module("obp.ope.estimators_slate")
    sys.dont_write_bytecode = write
    yield both
    for name in set(sys.modules) - before:
        if name == "pandas" or name.split(".")[0] == "obp":
            del sys.modules[name]


class Bandit:
    """Random single actions in places, in obp's arrays and in ours."""

    def __init__(self, seed: int, *, uniform: bool = False, fixed: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.action = rng.integers(ACTIONS, size=ROUNDS)
        self.position = rng.integers(PLACES, size=ROUNDS)
        self.reward = rng.integers(2, size=ROUNDS)
        self.pscore = np.full(ROUNDS, 1 / ACTIONS) if uniform else rng.uniform(0.1, 1, ROUNDS)
        if fixed:
            chosen = rng.integers(ACTIONS, size=(ROUNDS, PLACES))
            self.dist = np.eye(ACTIONS)[chosen].transpose(0, 2, 1)
        else:
            self.dist = rng.dirichlet(np.ones(ACTIONS), size=(ROUNDS, PLACES)).transpose(0, 2, 1)
        self.rewards = rng.uniform(size=(ROUNDS, ACTIONS, PLACES))
        rounds = np.arange(ROUNDS)
        self.logs = LoggedLists(
            request_ids=tuple(map(str, rounds)),
            shoppers=rounds,
            queries=rounds,
            query_names=tuple(map(str, rounds)),
            products=tuple(map(str, range(ACTIONS))),
            request=rounds,
            product=self.action,
            position=self.position + 1,
            propensity=self.pscore,
            prefix_propensity=self.pscore.copy(),
            grade=self.reward,
        )
        wanted = self.dist[rounds, self.action, self.position]
        rows = np.repeat(rounds, ACTIONS)
        actions = np.tile(np.arange(ACTIONS), ROUNDS)
        places = self.position[rows]
        self.target = TargetPolicy(
            wanted, wanted, rows, actions, places + 1, self.dist[rows, actions, places]
        )

    @property
    def model(self) -> RewardModel:
        """Predicts exactly ``rewards``: every round is a query of its own."""
        pairs = np.arange(ROUNDS * ACTIONS)
        rates = self.rewards.reshape(1, ROUNDS * ACTIONS, PLACES)
        zeros = np.zeros(ROUNDS, np.int64)
        return RewardModel(zeros, np.arange(ROUNDS), pairs, ACTIONS, rates, np.zeros((1, PLACES)))


@pytest.mark.parametrize("seed", range(5))
def test_same_numbers_as_obp_on_1000_rounds(obp: Any, seed: int) -> None:
    b = Bandit(seed)
    given = {
        "reward": b.reward,
        "action": b.action,
        "position": b.position,
        "pscore": b.pscore,
        "action_dist": b.dist,
    }
    modelled = {**given, "estimated_rewards_by_reg_model": b.rewards}
    direct = {
        k: v
        for k, v in modelled.items()
        if k in {"action_dist", "position", "estimated_rewards_by_reg_model"}
    }
    theirs = {
        "ips": obp.single.InverseProbabilityWeighting().estimate_policy_value(**given),
        "snips": obp.single.SelfNormalizedInverseProbabilityWeighting().estimate_policy_value(
            **given
        ),
        "doubly-robust": obp.single.DoublyRobust().estimate_policy_value(**modelled),
        "direct": obp.single.DirectMethod().estimate_policy_value(**direct),
    }
    for name, value in theirs.items():
        ours = evaluate_policy(
            b.logs, b.target, name, model=b.model, min_support=0, min_effective_n=0
        )
        assert abs(ours.estimate.value - value) < 1e-9, name


def test_same_replay_as_obp(obp: Any) -> None:
    b = Bandit(3, uniform=True, fixed=True)
    theirs = obp.single.ReplayMethod().estimate_policy_value(
        reward=b.reward, action=b.action, position=b.position, action_dist=b.dist
    )
    assert abs(evaluate_policy(b.logs, b.target, "replay").estimate.value - theirs) < 1e-9


def test_same_list_estimators_as_obp(obp: Any) -> None:
    shop = SimulatedShop(ShopDesign(), seed=4)
    visits = shop.visit(shop.policy("common"), 200, 5, np.random.default_rng(4))
    logs, target = visits.logs, shop.target(visits, shop.policy("taste"))
    last = logs.last_rows[logs.request]
    for name, slate, logged_by, wanted in (
        ("ips", "StandardIPS", logs.prefix_propensity[last], target.prefix_propensity[last]),
        ("item-position", "IndependentIPS", logs.propensity, target.propensity),
        ("cascade", "RewardInteractionIPS", logs.prefix_propensity, target.prefix_propensity),
    ):
        # `estimate_policy_value` is the sum of these over the number of lists, after checks that
        # need pandas.
        rewards = getattr(obp.slate, f"Slate{slate}")(len_list=3)._estimate_round_rewards(
            reward=logs.grade,
            position=logs.position - 1,
            behavior_policy_pscore=logged_by,
            evaluation_policy_pscore=wanted,
        )
        ours = evaluate_policy(logs, target, name, min_support=0, min_effective_n=0)
        assert abs(ours.estimate.value - rewards.sum() / len(logs)) < 1e-9, name


def test_bias_and_coverage_in_simulation() -> None:
    """The small form of `shelfwise benchmark estimators`; its README table has 1,000 runs."""
    for scenario in scenarios():
        for row in measure_estimators(scenario, 150):
            if row.assumption_holds:
                assert abs(row.bias) < 4 * row.spread / np.sqrt(row.repetitions) + 1e-9, row
                assert 0.88 <= row.coverage <= 0.99, row


def logged(*lists: tuple[str, ...], propensity: float | None = 0.5) -> LoggedLists:
    return LoggedLists.from_impressions(
        Impression(
            request_id=f"r{number}",
            user_id=f"u{number // 2}",
            query="q",
            items=tuple(
                ShownItem(
                    product_id=p,
                    position=place,
                    propensity=propensity,
                    prefix_propensity=propensity,
                    grade=int(p == "a"),
                )
                for place, p in enumerate(shown, 1)
            ),
        )
        for number, shown in enumerate(lists)
    )


def test_a_policy_of_fixed_lists() -> None:
    logs = logged(("a", "b"), ("b", "a"), ("a", "c"), ("b", "c"))
    target = TargetPolicy.from_lists(logs, {f"r{i}": ["a", "c", "z"] for i in range(4)})
    assert target.propensity.tolist() == [1, 0, 0, 0, 1, 1, 0, 1]
    assert target.prefix_propensity.tolist() == [1, 0, 0, 0, 1, 1, 0, 0]
    a, c = logs.products.index("a"), logs.products.index("c")
    assert target.product.tolist() == [a, c] * 4
    assert target.position.tolist() == [1, 2] * 4


def test_values_of_a_fixed_policy_by_hand() -> None:
    logs = logged(*[("a", "b"), ("b", "a")] * 50)
    target = TargetPolicy.from_lists(logs, {name: ["a", "b"] for name in logs.request_ids})
    for name in ("ips", "snips", "clipped-ips", "item-position", "cascade", "replay"):
        assert evaluate_policy(logs, target, name).estimate.value == pytest.approx(1.0), name
    value = evaluate_policy(logs, target, "ips")
    assert (value.support, value.estimate.effective_n, value.largest_weight) == (1.0, 50.0, 2.0)
    assert value.heaviest_share == pytest.approx(1 / 50)
    cut = evaluate_policy(logs, target, "clipped-ips", clip=1.5)
    assert cut.estimate.value == pytest.approx(0.75)
    assert (cut.clip, cut.clipped) == (1.5, 0.5)


def test_refusal_where_support_is_missing() -> None:
    logs = logged(*[("a", "b")] * 60, propensity=1.0)
    target = TargetPolicy.from_lists(
        logs, {f"r{i}": ["a", "b"] if i % 2 else ["c", "d"] for i in range(60)}
    )
    for name in ("ips", "snips", "clipped-ips", "item-position", "cascade"):
        with pytest.raises(RefusedEstimate, match="never shown") as caught:
            evaluate_policy(logs, target, name, min_effective_n=1)
        assert caught.value.support == pytest.approx(0.5)


def test_refusal_where_the_target_depends_on_what_was_drawn() -> None:
    """A target that always shows what was logged, of lists that were drawn with chance 1/2."""
    logs = logged(*[("a", "b"), ("b", "c")] * 50)
    target = TargetPolicy.from_lists(
        logs, {f"r{i}": ["b", "c"] if i % 2 else ["a", "b"] for i in range(100)}
    )
    for name in ("ips", "snips", "clipped-ips", "item-position", "cascade", "doubly-robust"):
        with pytest.raises(RefusedEstimate, match=r"weights average 2\.00") as caught:
            evaluate_policy(logs, target, name, model=fit(logs))
        assert caught.value.support == pytest.approx(2.0)
    evaluate_policy(logs, target, "ips", max_support=3.0)


def test_refusal_without_propensities_and_of_replay_on_a_log_that_is_not_random() -> None:
    logs = logged(*[("a", "b"), ("b", "a")] * 50, propensity=None)
    target = TargetPolicy.from_lists(logs, {name: ["a", "b"] for name in logs.request_ids})
    for name in ("ips", "item-position", "cascade", "replay"):
        with pytest.raises(RefusedEstimate):
            evaluate_policy(logs, target, name)
    assert evaluate_policy(logs, target, "replay", uniform=True).estimate.value == 1.0
    shop = SimulatedShop(ShopDesign())
    visits = shop.visit(shop.policy("common"), 100, 2, np.random.default_rng(0))
    with pytest.raises(RefusedEstimate, match="random"):
        evaluate_policy(visits.logs, shop.target(visits, shop.best()), "replay")


def test_refusal_of_a_small_effective_sample() -> None:
    logs = logged(*[("a", "b"), ("b", "a")] * 5)
    target = TargetPolicy.from_lists(logs, {name: ["a", "b"] for name in logs.request_ids})
    with pytest.raises(RefusedEstimate, match="effective sample of 5"):
        evaluate_policy(logs, target, "ips")


def test_what_is_missing_is_named() -> None:
    logs = logged(("a", "b"), ("b", "a"))
    with pytest.raises(DataError, match="'r1'"):
        TargetPolicy.from_lists(logs, {"r0": ["a"]})
    target = TargetPolicy.from_lists(logs, {"r0": ["a"], "r1": ["a"]})
    with pytest.raises(ConfigError, match="reward model"):
        evaluate_policy(logs, target, "doubly-robust")
    with pytest.raises(DataError, match="another log"):
        evaluate_policy(logged(("a",)), target, "ips")


def test_the_reward_model_never_saw_the_shopper_that_it_predicts() -> None:
    shop = SimulatedShop(ShopDesign(), seed=1)
    logs = shop.visit(shop.policy("random"), 40, 5, np.random.default_rng(1)).logs
    model = fit(logs, folds=4)
    changed = logs.grade.copy()
    mine = logs.shoppers[logs.request] == 7
    changed[mine] = 1 - changed[mine]

    other = fit(dataclasses.replace(logs, grade=changed), folds=4)
    same = model.predict(logs.request, logs.product, logs.position) == other.predict(
        logs.request, logs.product, logs.position
    )
    assert same[mine].all()
    assert not same.all()
    with pytest.raises(ConfigError, match="folds"):
        fit(logs, folds=41)


def test_an_unknown_product_gets_the_rate_of_the_place() -> None:
    logs = logged(*[("a", "b"), ("b", "a")] * 50)
    model = fit(logs, folds=2)
    none = np.array([-1]), np.array([1])
    assert model.predict(np.array([0]), *none)[0] == pytest.approx(0.5, abs=0.1)
