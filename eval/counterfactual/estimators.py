"""What another ranking policy would have earned, estimated from logged lists.

The value of a policy is the expected number of clicks (or of items that reach another grade) on
one list. All estimators reweigh what was logged; they differ in what they assume of the shopper:

========================  ========================================================================
replay                    the log is uniformly random; lists that the policy would have shown count
ips, snips, clipped-ips   nothing: a whole list is one action (Horvitz-Thompson; self-normalised,
                          Swaminathan & Joachims 2015; weights cut at sqrt(n), Ionides 2008)
item-position             a click depends on the item and its place only, as in a position-based
                          model (Li et al. 2018)
cascade                   a click depends on the list down to it only (McInerney et al. 2020)
direct                    a reward model is right (no honest interval: its error is not in it)
doubly-robust             item-position weights on what the reward model leaves (Dudik 2011)
========================  ========================================================================
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from eval.counterfactual.reward_model import RewardModel
from eval.counterfactual.target_policy import TargetPolicy
from eval.logs import LoggedLists
from eval.statistics.estimates import (
    Estimate,
    Floats,
    RefusedEstimate,
    cluster_sums,
    kish,
    mean,
    ratio,
)
from reranker.errors import ConfigError, DataError
from reranker.schema import Value

Estimator = Literal[
    "replay",
    "ips",
    "snips",
    "clipped-ips",
    "item-position",
    "cascade",
    "direct",
    "doubly-robust",
]
_OF_LISTS = ("ips", "snips", "clipped-ips")


class PolicyValue(Value):
    """An estimated value of a policy, and what it rests on.

    Attributes:
        estimate: expected number of clicks a list; its ``effective_n`` is that of the weights, for
            weights that differ by place that of the worst place.
        support: the mean weight, which estimates the share of the target policy that the logging
            policy could have shown; about 1 is needed (of the place where it is furthest from 1).
        largest_weight: of one list or item.
        heaviest_share: share of all weight that the heaviest single list or item has; above .02
            the interval tends to be too short (the README's table has such a log).
        clip: where weights were cut.
        clipped: share of lists whose weight was cut.
    """

    estimator: Estimator
    estimate: Estimate
    support: float
    largest_weight: float
    heaviest_share: float = 0.0
    clip: float | None = None
    clipped: float = 0.0


@dataclass(frozen=True)
class _Weighed:
    """Value of each request, or for a ratio its weight beside it, and the weights to judge."""

    value: Floats
    weight: Floats | None
    groups: tuple[Floats, ...]
    clip: float | None = None


def evaluate_policy(
    logs: LoggedLists,
    target: TargetPolicy,
    estimator: Estimator,
    *,
    grade: int = 1,
    model: RewardModel | None = None,
    clip: float | None = None,
    uniform: bool = False,
    min_support: float = 0.9,
    max_support: float = 1.1,
    min_effective_n: float = 30.0,
) -> PolicyValue:
    """Estimate a policy's value with an interval clustered by shopper, or refuse.

    Args:
        logs: what was shown, with propensities.
        target: what the policy would have shown.
        estimator: see the module.
        grade: an item counts from this grade on.
        model: of the reward, cross-fitted (`eval.counterfactual.reward_model.fit`), where the
            estimator needs one.
        clip: largest weight of ``clipped-ips``; None takes the root of the number of lists, with
            which the bias vanishes faster than the interval.
        uniform: for ``replay`` on a log without propensities, that it is known to be random.
        min_support: refuse where the mean weight is surely below this.
        max_support: refuse where the mean weight is surely above this: the target depends on what
            was drawn, as one does that ranks the shown products of a log that drew from more.
        min_effective_n: refuse below this effective sample size.

    Raises:
        RefusedEstimate: propensities or support are missing, or too little carries the estimate.
        ConfigError: the estimator needs a reward model.
    """
    _check_shapes(logs, target)
    if estimator == "replay":
        return _replay(logs, target, grade, uniform, min_effective_n)
    reward = logs.reached(grade)
    if estimator == "direct":
        expected = _expected(logs, target, _needed(model, estimator))
        estimate = mean(_name(grade, estimator), expected, logs.shoppers)
        return PolicyValue(estimator=estimator, estimate=estimate, support=1.0, largest_weight=1.0)
    weighed = _weigh(logs, target, estimator, reward, model, clip)
    support = max((float(w.mean()) for w in weighed.groups), key=lambda mean: abs(mean - 1))
    effective = min(kish(weights) for weights in weighed.groups)
    _check_support(weighed.groups, estimator, (min_support, max_support), support, effective)
    if effective < min_effective_n:
        message = (
            f"{estimator}: the weights leave an effective sample of {effective:.1f} of {len(logs)} "
            f"lists, below {min_effective_n:g}: log more, explore more, or evaluate a policy "
            "that is closer to the logging policy"
        )
        raise RefusedEstimate(message, support=support, effective_n=effective)
    below = np.ones(len(logs)) if weighed.weight is None else weighed.weight
    estimate = ratio(
        _name(grade, estimator), weighed.value, below, logs.shoppers, effective_n=effective
    )
    whole = weighed.groups[0]
    cut = weighed.clip
    return PolicyValue(
        estimator=estimator,
        estimate=estimate,
        support=support,
        largest_weight=max(float(weights.max()) for weights in weighed.groups),
        heaviest_share=max(float(weights.max() / weights.sum()) for weights in weighed.groups),
        clip=cut,
        clipped=float((whole > cut).mean()) if cut is not None else 0.0,
    )


def _name(grade: int, estimator: str) -> str:
    what = "clicks" if grade == 1 else f"items of grade {grade} and above"
    return f"{what} a list ({estimator})"


def _weigh(
    logs: LoggedLists,
    target: TargetPolicy,
    estimator: Estimator,
    reward: Floats,
    model: RewardModel | None,
    clip: float | None,
) -> _Weighed:
    if estimator in _OF_LISTS:
        _check_known(logs.list_propensity, estimator, "prefix_propensity")
        weights = target.prefix_propensity[logs.last_rows] / logs.list_propensity
        earned = _by_list(logs, reward)
        if estimator == "ips":
            return _Weighed(weights * earned, None, (weights,))
        if estimator == "snips":
            return _Weighed(weights * earned, weights, (weights,))
        cut = clip if clip is not None else float(np.sqrt(len(logs)))
        return _Weighed(np.minimum(weights, cut) * earned, None, (weights,), cut)
    if estimator == "cascade":
        _check_known(logs.prefix_propensity, estimator, "prefix_propensity")
        rows = target.prefix_propensity / logs.prefix_propensity
        return _Weighed(_by_list(logs, rows * reward), None, _by_place(logs, rows))
    _check_known(logs.propensity, estimator, "propensity")
    rows = target.propensity / logs.propensity
    if estimator == "item-position":
        return _Weighed(_by_list(logs, rows * reward), None, _by_place(logs, rows))
    needed = _needed(model, estimator)
    expected = _expected(logs, target, needed)
    left = reward - needed.predict(logs.request, logs.product, logs.position)
    return _Weighed(expected + _by_list(logs, rows * left), None, _by_place(logs, rows))


def _by_list(logs: LoggedLists, rows: Floats) -> Floats:
    return cluster_sums(rows, logs.request, len(logs))


def _by_place(logs: LoggedLists, rows: Floats) -> tuple[Floats, ...]:
    return tuple(rows[logs.position == place] for place in np.unique(logs.position))


def _expected(logs: LoggedLists, target: TargetPolicy, model: RewardModel) -> Floats:
    predicted = model.predict(target.request, target.product, target.position)
    return cluster_sums(target.probability * predicted, target.request, len(logs))


def _needed(model: RewardModel | None, estimator: Estimator) -> RewardModel:
    if model is None:
        raise ConfigError(
            f"{estimator} needs a reward model: give model=eval.counterfactual.reward_model.fit(..)"
        )
    return model


def _replay(
    logs: LoggedLists, target: TargetPolicy, grade: int, uniform: bool, least: float
) -> PolicyValue:
    known = logs.list_propensity[~np.isnan(logs.list_propensity)]
    even = len(known) == len(logs) and np.ptp(known) <= 1e-6 * float(known.max())
    if not even and not (uniform and len(known) == 0):
        message = (
            "replay needs a log that was drawn uniformly at random (one propensity for all lists), "
            "and this one was not, or does not say: use ips, or declare uniform=True for a log "
            "without propensities"
        )
        raise RefusedEstimate(message)
    matches = target.prefix_propensity[logs.last_rows] == 1
    if (count := int(matches.sum())) < least:
        message = (
            f"replay: {count} of {len(logs)} logged lists are those of the policy, below {least:g}:"
            " log more, or use item-position"
        )
        raise RefusedEstimate(message, support=count / len(logs), effective_n=float(count))
    estimate = mean(
        _name(grade, "replay"), _by_list(logs, logs.reached(grade))[matches], logs.shoppers[matches]
    )
    return PolicyValue(
        estimator="replay", estimate=estimate, support=count / len(logs), largest_weight=1.0
    )


def _check_shapes(logs: LoggedLists, target: TargetPolicy) -> None:
    if not len(target.propensity) == len(target.prefix_propensity) == len(logs.request):
        raise DataError("the target policy was made of another log: their rows differ in number")


def _check_known(propensities: Floats, estimator: str, field: str) -> None:
    wrong = ~((propensities > 0) & (propensities <= 1 + 1e-9))
    if wrong.any():
        message = (
            f"{estimator} needs {field} of every shown item, above 0 and at most 1; "
            f"{int(wrong.sum())} of {len(wrong)} have none: log with an exploration policy "
            "(reranker.impressions), or use replay on a random log"
        )
        raise RefusedEstimate(message)


def _check_support(
    groups: tuple[Floats, ...],
    estimator: str,
    bounds: tuple[float, float],
    support: float,
    effective: float,
) -> None:
    for place, weights in enumerate(groups, 1):
        average = float(weights.mean())
        reach = 1.96 * float(weights.std()) / np.sqrt(len(weights))
        where = f" in place {place}" if len(groups) > 1 else ""
        if average - reach > bounds[1]:
            message = (
                f"{estimator}: the weights average {average:.2f}{where} where they should average "
                "1: either the policy ranked only what each list shows, and the log drew that from "
                "more products, or the logged propensities are wrong; rank all that was drawn from "
                "(shelfwise evaluate convert impressions --option candidates=pool)"
            )
            raise RefusedEstimate(message, support=support, effective_n=effective)
        if average + reach < bounds[0]:
            message = (
                f"{estimator}: the log speaks for only {weights.mean():.0%} of what the policy "
                f"would show{where} (its weights should average 1): the rest was never shown, and "
                "no reweighing can tell what it would earn; log with exploration"
            )
            raise RefusedEstimate(message, support=support, effective_n=effective)
