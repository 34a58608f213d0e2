"""Do the estimators tell the truth? Bias and coverage where the truth is known, and real logs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from eval.counterfactual.estimators import Estimator, evaluate_policy
from eval.counterfactual.reward_model import fit
from eval.logs import LoggedLists
from eval.logs.open_bandit import fetch_open_bandit, read_open_bandit
from eval.position_bias.curves import (
    PositionBias,
    cascade_em,
    intervention_harvesting,
    position_based_em,
)
from eval.simulation import Policy, ShopDesign, SimulatedShop
from eval.statistics.estimates import Estimate, RefusedEstimate
from reranker.ports import Progress, no_progress
from reranker.schema import Value

_PLACES = 10
_EVERY: tuple[Estimator, ...] = (
    "ips",
    "snips",
    "clipped-ips",
    "item-position",
    "cascade",
    "doubly-robust",
    "direct",
)
_NO_INTERVAL = "the model's own error is not in its interval"
_ONLY_PLACE = "clicks depend on the items above, which it assumes away"
_HEAVY = "a few lists carry the weights (skewed beyond what an interval can tell from one sample)"


class Scenario(Value):
    """A simulated shop, a logging policy and a policy to evaluate.

    Attributes:
        shoppers: of one log.
        visits: of each shopper.
        doubts: estimators whose assumption does not hold here, with the reason.
    """

    name: str
    design: ShopDesign
    logging: Policy
    target: Policy
    estimators: tuple[Estimator, ...]
    shoppers: int
    visits: int
    doubts: dict[Estimator, str]

    def shop(self) -> SimulatedShop:
        """Return the shop that the policies are of."""
        return SimulatedShop(self.design)


class EstimatorRow(Value):
    """How one estimator did over many simulated logs.

    Attributes:
        truth: the policy's exact value, in clicks a list.
        bias: mean estimate less truth.
        spread: standard deviation of the estimates.
        coverage: share of the intervals that hold the truth.
        half_width: mean of half the interval.
        effective_n: mean effective sample size.
        requests: of one log.
        repetitions: logs that were not refused.
        refused: logs that were.
        doubt: why its interval cannot be trusted in this scenario; empty where it can.
    """

    scenario: str
    estimator: Estimator
    truth: float
    bias: float
    spread: float
    coverage: float
    half_width: float
    effective_n: float
    requests: int
    repetitions: int
    refused: int
    doubt: str

    @property
    def assumption_holds(self) -> bool:
        """Whether the estimator's assumptions hold in the scenario."""
        return not self.doubt


class CurveRow(Value):
    """A position-bias curve against the truth.

    Attributes:
        worst: largest absolute error over places.
        covered: places after the first whose interval holds the truth.
        half_width: widest half interval.
    """

    log: str
    method: str
    sessions: int
    worst: float
    covered: int
    places: int
    half_width: float


class RealRow(Value):
    """A position-bias curve of a real log."""

    log: str
    bias: PositionBias
    clicks: int


class EstimatorBenchmark(Value):
    """All of it."""

    estimators: tuple[EstimatorRow, ...]
    curves: tuple[CurveRow, ...]
    real: tuple[RealRow, ...]


def scenarios() -> tuple[Scenario, ...]:
    """Return the scenarios: two click models, a random log, and a policy far from the log."""
    place = ShopDesign()
    cascade = ShopDesign(click_model="cascade")
    short = ShopDesign(candidates=4, examination=(1.0, 0.6))
    near, apart = (0.5, 1.5), (0.15, 0.7)
    doubt: dict[Estimator, str] = {"direct": _NO_INTERVAL}
    only_place: dict[Estimator, str] = {
        "item-position": _ONLY_PLACE,
        "doubly-robust": _ONLY_PLACE,
    }
    heavy: dict[Estimator, str] = dict.fromkeys(("ips", "snips", "clipped-ips", "cascade"), _HEAVY)
    shop = SimulatedShop(short)
    return (
        _scenario("position-based clicks", place, near, doubt),
        _scenario("cascade clicks", cascade, near, {**doubt, **only_place}),
        Scenario(
            name="random log, fixed order",
            design=short,
            logging=shop.policy("random"),
            target=shop.best(),
            estimators=("replay", *_EVERY),
            shoppers=500,
            visits=6,
            doubts=doubt,
        ),
        _scenario("policy far from the log", place, apart, {**doubt, **heavy}),
    )


def _scenario(
    name: str,
    design: ShopDesign,
    temperatures: tuple[float, float],
    doubts: dict[Estimator, str],
) -> Scenario:
    shop = SimulatedShop(design)
    return Scenario(
        name=name,
        design=design,
        logging=shop.policy("common", temperature=temperatures[1]),
        target=shop.policy("taste", temperature=temperatures[0]),
        estimators=_EVERY,
        shoppers=500,
        visits=6,
        doubts=doubts,
    )


def measure_estimators(
    scenario: Scenario, repetitions: int, *, seed: int = 0, progress: Progress = no_progress
) -> tuple[EstimatorRow, ...]:
    """Estimate a policy's known value from many simulated logs."""
    shop, rng = scenario.shop(), np.random.default_rng(seed)
    truth = shop.value(scenario.target)
    found: dict[Estimator, list[Estimate]] = {name: [] for name in scenario.estimators}
    for done in range(repetitions):
        visits = shop.visit(scenario.logging, scenario.shoppers, scenario.visits, rng)
        target = shop.target(visits, scenario.target)
        model = fit(visits.logs, seed=done)
        for name, estimates in found.items():
            try:
                value = evaluate_policy(visits.logs, target, name, model=model)
            except RefusedEstimate:
                continue
            estimates.append(value.estimate)
        progress(scenario.name, done + 1, repetitions)
    return tuple(
        _row(scenario, name, truth, estimates, repetitions) for name, estimates in found.items()
    )


def _row(
    scenario: Scenario,
    name: Estimator,
    truth: float,
    estimates: list[Estimate],
    repetitions: int,
) -> EstimatorRow:
    values = np.array([estimate.value for estimate in estimates] or [np.nan])
    return EstimatorRow(
        scenario=scenario.name,
        estimator=name,
        truth=truth,
        bias=float(values.mean()) - truth,
        spread=float(values.std()),
        coverage=_mean([float(e.covers(truth)) for e in estimates]),
        half_width=_mean([(e.high - e.low) / 2 for e in estimates]),
        effective_n=_mean([e.effective_n for e in estimates]),
        requests=scenario.shoppers * scenario.visits,
        repetitions=len(estimates),
        refused=repetitions - len(estimates),
        doubt=scenario.doubts.get(name, ""),
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def measure_curves(
    sessions: int = 100_000, *, seed: int = 0, progress: Progress = no_progress
) -> tuple[CurveRow, ...]:
    """Recover known position bias of ten places from simulated sessions."""
    design = ShopDesign(
        candidates=12,
        queries=20,
        tastes=4,
        examination=tuple(1 / (1 + 0.35 * place) for place in range(_PLACES)),
    )
    cascade = design.model_copy(
        update={"click_model": "cascade", "after_click": 0.4, "after_skip": 0.85}
    )
    alike = cascade.model_copy(update={"generosity": (1.0,)})
    common, personal = "log by common opinion", "personalised log"
    runs: tuple[tuple[str, ShopDesign, Callable[[LoggedLists], PositionBias]], ...] = (
        (common, design, position_based_em),
        (common, design, intervention_harvesting),
        (personal, design, position_based_em),
        (personal, design, _harvest_by_propensity),
        (f"{common}, shoppers alike", alike.model_copy(update={"tastes": 1}), cascade_em),
        (f"{common}, shoppers differ", cascade, cascade_em),
    )
    rows = []
    for done, (log, given, method) in enumerate(runs):
        progress("position bias", done, len(runs))
        rows.append(_curve_row(log, given, method, sessions, seed))
    progress("position bias", len(runs), len(runs))
    return tuple(rows)


def _harvest_by_propensity(logs: LoggedLists) -> PositionBias:
    return intervention_harvesting(logs, by_propensity=True)


def _curve_row(
    log: str,
    design: ShopDesign,
    method: Callable[[LoggedLists], PositionBias],
    sessions: int,
    seed: int,
) -> CurveRow:
    shop, rng = SimulatedShop(design, seed=seed), np.random.default_rng(seed)
    policy = shop.policy("taste" if log.startswith("personal") else "common")
    bias = method(shop.visit(policy, sessions // 5, 5, rng).logs)
    if bias.after_click is not None and bias.after_skip is not None:
        estimates = (bias.after_click, bias.after_skip)
        truth: tuple[float, ...] = (design.after_click, design.after_skip)
    else:
        estimates_of_places = bias.examination[1:]
        truth = tuple(place / design.examination[0] for place in design.examination[1:])
        return _against(log, bias.method, sessions, estimates_of_places, truth)
    return _against(log, f"{bias.method}: goes on", sessions, estimates, truth)


def _against(
    log: str,
    method: str,
    sessions: int,
    estimates: tuple[Estimate, ...],
    truth: tuple[float, ...],
) -> CurveRow:
    pairs = list(zip(estimates, truth, strict=True))
    return CurveRow(
        log=log,
        method=method,
        sessions=sessions,
        worst=max(abs(estimate.value - true) for estimate, true in pairs),
        covered=sum(estimate.covers(true) for estimate, true in pairs),
        places=len(pairs),
        half_width=max((estimate.high - estimate.low) / 2 for estimate in estimates),
    )


def measure_real(folder: Path, *, progress: Progress = no_progress) -> tuple[RealRow, ...]:
    """Estimate position bias of the small Open Bandit set, which is fetched into a folder."""
    data = fetch_open_bandit(folder, progress=progress)
    rows = []
    for policy, method in (
        ("random", position_based_em),
        ("random", intervention_harvesting),
        ("bts", position_based_em),
        ("bts", _harvest_by_propensity),
    ):
        logs = read_open_bandit(data, "random" if policy == "random" else "bts")
        clicks = int(logs.reached().sum())
        rows.append(RealRow(log=f"Open Bandit, {policy}", bias=method(logs), clicks=clicks))
    return tuple(rows)


def run_estimator_benchmark(
    folder: Path,
    *,
    repetitions: int = 1000,
    sessions: int = 100_000,
    seed: int = 0,
    progress: Progress = no_progress,
) -> EstimatorBenchmark:
    """Run all of it: 70 seconds on one core at 1,000 repetitions and 100,000 sessions."""
    rows = [
        row
        for scenario in scenarios()
        for row in measure_estimators(scenario, repetitions, seed=seed, progress=progress)
    ]
    return EstimatorBenchmark(
        estimators=tuple(rows),
        curves=measure_curves(sessions, seed=seed, progress=progress),
        real=measure_real(folder, progress=progress),
    )
