"""What logged lists of the shop say: of place, and of what the rankers would have earned."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from eval.counterfactual.estimators import Estimator, PolicyValue, evaluate_policy
from eval.counterfactual.reward_model import fit
from eval.counterfactual.target_policy import TargetPolicy
from eval.logs import LoggedLists, read_impressions
from eval.measures.lists import click_through, conversion
from eval.position_bias.curves import (
    PositionBias,
    cascade_em,
    intervention_harvesting,
    position_based_em,
)
from eval.run.results import LoggedReport, PolicyRow
from eval.run.work_file import RankedCase
from eval.statistics.estimates import Estimate, RefusedEstimate, mean
from reranker.errors import ConfigError

_ESTIMATORS: tuple[Estimator, ...] = ("snips", "item-position", "doubly-robust")
_HEAVIEST = 0.02
_AS_LOGGED = "as-given"


def logged_report(
    file: Path, lines: Mapping[str, Mapping[str, RankedCase]], k: int
) -> LoggedReport:
    """Read logged lists, and evaluate the rankers on those that were cases.

    Raises:
        DataError: the file cannot be read.
    """
    logs = LoggedLists.from_impressions(read_impressions(file))
    curves: list[PositionBias] = []
    refused: list[str] = []
    methods: tuple[tuple[str, Callable[[LoggedLists], PositionBias]], ...] = (
        ("position-based model", position_based_em),
        ("intervention harvesting", intervention_harvesting),
        ("cascade model", cascade_em),
    )
    for name, method in methods:
        try:
            curves.append(method(logs))
        except RefusedEstimate as error:
            refused.append(f"{name}: {error}")
    return LoggedReport(
        lists=len(logs),
        click_through=_or_none(lambda: click_through(logs, k)),
        conversion=_or_none(lambda: conversion(logs, k)),
        curves=tuple(curves),
        refused=tuple(refused),
        policies=tuple(_policies(logs, lines, refused)),
    )


def _policies(
    logs: LoggedLists, lines: Mapping[str, Mapping[str, RankedCase]], refused: list[str]
) -> list[PolicyRow]:
    answered = set(next(iter(lines.values()), {}))
    kept = [row for row, name in enumerate(logs.request_ids) if name in answered]
    if not kept:
        refused.append(
            "what the rankers would have earned: no case_id is the request_id of a logged list"
        )
        return []
    part = logs.select(np.array(kept, np.int64))
    rows = []
    for ranker, answers in lines.items():
        orders = {name: answers[name].ranked.product_ids for name in part.request_ids}
        if ranker == _AS_LOGGED and _agree(part, orders):
            rows.append(_as_logged(part))
            continue
        target = TargetPolicy.from_lists(part, orders)
        rows += [_policy_row(part, target, ranker, estimator) for estimator in _ESTIMATORS]
    return rows


def _agree(logs: LoggedLists, orders: Mapping[str, Sequence[str]]) -> bool:
    """Tell whether all orders begin with what was shown, in its order."""
    shown: dict[str, list[str]] = {name: [] for name in logs.request_ids}
    for request, product in zip(logs.request.tolist(), logs.product.tolist(), strict=True):
        shown[logs.request_ids[request]].append(logs.products[product])
    return all(list(orders[name][: len(each)]) == each for name, each in shown.items())


def _as_logged(logs: LoggedLists) -> PolicyRow:
    """Return what the lists earned: reweighing is for policies that do not look at the log."""
    clicks = np.bincount(logs.request, logs.reached(), len(logs))
    estimate = _or_none(lambda: mean("clicks a list (as logged)", clicks, logs.shoppers))
    if estimate is None:
        return PolicyRow(ranker=_AS_LOGGED, estimator="as logged", refused="too few shoppers")
    value = PolicyValue(estimator="replay", estimate=estimate, support=1.0, largest_weight=1.0)
    return PolicyRow(ranker=_AS_LOGGED, estimator="as logged", value=value)


def _policy_row(
    logs: LoggedLists, target: TargetPolicy, ranker: str, estimator: Estimator
) -> PolicyRow:
    try:
        model = fit(logs) if estimator == "doubly-robust" else None
        value = evaluate_policy(logs, target, estimator, model=model)
    except (RefusedEstimate, ConfigError) as error:
        return PolicyRow(ranker=ranker, estimator=estimator, refused=str(error))
    warning = None
    if value.heaviest_share > _HEAVIEST:
        warning = (
            f"one list carries {value.heaviest_share:.0%} of all weight: the interval tends to be "
            "too short"
        )
    return PolicyRow(ranker=ranker, estimator=estimator, value=value, warning=warning)


def _or_none(estimate: Callable[[], Estimate]) -> Estimate | None:
    try:
        return estimate()
    except RefusedEstimate:
        return None
