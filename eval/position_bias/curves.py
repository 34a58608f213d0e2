"""How much a place alone changes what is clicked, estimated from logged lists.

Two click models by expectation-maximisation, and one estimator without a model of relevance:

- `position_based_em`: a click needs examination of the place, theta_k, and attraction by the
  product for the query, gamma_qd (Richardson et al. 2007; Chuklin et al. 2015, section 3.2).
- `cascade_em`: from the top down, with a chance to go on after a click and one after a skip (the
  cascade model of Craswell et al. 2008 where these are 0 and 1).
- `intervention_harvesting`: the same product for the same query in two places; AllPairs of Agarwal
  et al. (2019), "Estimating Position Bias without Intrusive Interventions".

Each needs products that were shown in several places. Examination is relative to the first place.
A log whose policy is personalised confounds place with taste: then harvest by propensity.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from eval.logs import LoggedLists
from eval.position_bias.all_pairs import all_pairs
from eval.position_bias.click_cells import ClickCells, Sessions
from eval.statistics.estimates import Estimate, Floats, Integers, RefusedEstimate
from reranker.schema import Value

_MOST_ROUNDS = 5000
_GROUPS = 25
_START_ROUNDS = 100


class PositionBias(Value):
    """A position-bias curve.

    Attributes:
        method: how it was estimated.
        examination: of each place from the first, relative to the first, with intervals; n is the
            number of impressions in the place.
        rounds: of expectation-maximisation; 0 for harvesting.
        pairs: products of a query that were shown in at least two places.
        after_click: probability to go on after a click (cascade).
        after_skip: probability to go on after a skip (cascade).
    """

    method: str
    examination: tuple[Estimate, ...]
    rounds: int = 0
    pairs: int = 0
    after_click: Estimate | None = None
    after_skip: Estimate | None = None


@dataclass(frozen=True)
class _Curve:
    examination: Floats
    attraction: Floats
    rounds: int

    def relative_to_first(self) -> "_Curve":
        scale = float(self.examination[0])
        return _Curve(self.examination / scale, self.attraction * scale, self.rounds)


def position_based_em(logs: LoggedLists, *, tolerance: float = 1e-7) -> PositionBias:
    """Estimate examination under the position-based model by expectation-maximisation.

    The errors are the model's, made robust to what one shopper's requests share (a sandwich with
    the attractions profiled out).

    Raises:
        RefusedEstimate: no product was shown in two places, or a place got no click.
    """
    cells = ClickCells.of(logs)
    _check(cells)
    curve = _fit_position_based(cells.shown, cells.clicks, tolerance)
    curve = curve.relative_to_first()
    errors = _sandwich(logs, cells, curve)
    return PositionBias(
        method="position-based model (EM)",
        examination=_curve(curve.examination, errors, cells, logs),
        rounds=curve.rounds,
        pairs=cells.pairs_in_several_places,
    )


def _start(shown: Floats, clicks: Floats) -> tuple[Floats, Floats]:
    """Fit the margins of clicks: near the likelihood's maximum, above all for rare clicks.

    With clicks as rare as 1 in 250 a step of expectation-maximisation moves by about that share
    of the way, so that from elsewhere it would hardly arrive.
    """
    examination = np.ones(shown.shape[1])
    attraction = np.ones(len(shown))
    for _ in range(_START_ROUNDS):
        attraction = clicks.sum(axis=1) / (shown @ examination)
        examination = clicks.sum(axis=0) / np.maximum(attraction @ shown, 1e-300)
        examination /= examination.max()
    return np.clip(examination, 1e-6, 1.0), np.clip(attraction, 1e-9, 0.999)


def _fit_position_based(shown: Floats, clicks: Floats, tolerance: float) -> _Curve:
    examination, attraction = _start(shown, clicks)
    certain = int(examination.argmax())
    skips, rounds, moved = shown - clicks, 0, np.inf
    while moved >= tolerance and rounds < _MOST_ROUNDS:
        rounds += 1
        both = np.outer(attraction, examination)
        unclicked = np.maximum(1 - both, 1e-12)
        # A skip leaves a chance of attraction without examination, and of the opposite.
        attracted = clicks + skips * (attraction[:, None] - both) / unclicked
        examined = clicks + skips * (examination[None, :] - both) / unclicked
        attraction = attracted.sum(axis=1) / shown.sum(axis=1)
        new = examined.sum(axis=0) / shown.sum(axis=0)
        new[certain] = 1.0  # the scale of examination and attraction is not in the data
        moved = float(np.abs(new - examination).max())
        examination = new
    return _Curve(examination, attraction, rounds)


def _sandwich(logs: LoggedLists, cells: ClickCells, curve: _Curve) -> Floats:
    """Return standard errors of examination; 0 in the first place, which is 1 by definition.

    In logarithms both parameters of a row have the score (click - p) / (1 - p) and the information
    p / (1 - p), so that the attractions' block is diagonal and drops out exactly.
    """
    both = np.clip(np.outer(curve.attraction, curve.examination), 1e-12, 1 - 1e-9)
    information = cells.shown * both / (1 - both)
    by_pair = np.maximum(information.sum(axis=1), 1e-300)
    bread = np.diag(information.sum(axis=0)) - information.T @ (information / by_pair[:, None])
    place = logs.position - 1
    chance = both[cells.pair, place]
    score = (logs.reached() - chance) / (1 - chance)
    share = information / by_pair[:, None]
    clusters, shopper = np.unique(logs.shoppers, return_inverse=True)
    shopper, places = shopper[logs.request], cells.shown.shape[1]
    influence = np.zeros((len(clusters), places))
    for k in range(places):
        values = score * ((place == k) - share[cells.pair, k])
        influence[:, k] = np.bincount(shopper, weights=values, minlength=len(clusters))
    inverse = np.linalg.pinv(bread[1:, 1:])
    meat = influence[:, 1:].T @ influence[:, 1:] * (len(clusters) / (len(clusters) - 1))
    logarithmic = np.sqrt(np.diag(inverse @ meat @ inverse))
    return np.concatenate([[0.0], curve.examination[1:] * logarithmic])


def cascade_em(logs: LoggedLists, *, tolerance: float = 1e-6) -> PositionBias:
    """Estimate a cascade by expectation-maximisation, with errors from a grouped jackknife.

    How far a shopper read below the last click is not logged: the expectation step infers it. The
    examination curve is the average chance that a list was read down to a place.

    Raises:
        RefusedEstimate: there are fewer than 25 shoppers or no clicks, lists have gaps, or no
            product was shown in two places.
    """
    sessions, cells = Sessions.of(logs), ClickCells.of(logs)
    if sessions.clicks.sum() == 0:
        raise RefusedEstimate("cascade: the log holds no click")
    _check_places(cells)
    start = np.array([0.5, 0.5])
    whole = sessions.fit(np.ones(len(logs)), start, None, tolerance)
    groups = _groups(logs)

    def without(group: int) -> Floats:
        weights = (groups != group).astype(np.float64)
        fit = sessions.fit(weights, whole.goes_on, whole.attraction, tolerance)
        return np.concatenate([fit.goes_on, fit.examination])

    errors = _jackknife(without, _GROUPS)
    goes_on = [
        _estimate(name, value, error, len(logs), logs)
        for name, value, error in zip(
            ("after click", "after skip"), whole.goes_on, errors[:2], strict=True
        )
    ]
    return PositionBias(
        method="cascade model (EM)",
        examination=_curve(whole.examination, errors[2:], cells, logs),
        rounds=whole.rounds,
        pairs=cells.pairs_in_several_places,
        after_click=goes_on[0],
        after_skip=goes_on[1],
    )


def intervention_harvesting(logs: LoggedLists, *, by_propensity: bool = False) -> PositionBias:
    """Estimate examination from products that stood in two places for the same query (AllPairs).

    For each two places only products seen in both are compared, each with the same weight in both
    (the harmonic mean of its impressions, which is the weight of least variance), so that relevance
    cancels. All pairs of places are then reconciled by the paper's likelihood. The errors are from
    a jackknife over 25 groups of shoppers.

    Args:
        logs: lists of a policy that varies the places.
        by_propensity: weigh impressions by 1 / propensity, which a personalised policy needs.

    Raises:
        RefusedEstimate: a place shares no product with others, no clicks, too few shoppers, or
            propensities are missing.
    """
    if by_propensity and not (logs.propensity > 0).all():
        raise RefusedEstimate("harvesting by propensity: some shown items have no propensity")
    groups = _groups(logs)
    cells = ClickCells.of(logs, by_propensity=by_propensity, groups=groups)
    _check(cells)
    value = all_pairs(cells.shown, cells.mass, cells.clicks)

    def without(group: int) -> Floats:
        shown, mass, clicks = cells.without(group)
        return all_pairs(shown, mass, clicks, start=value)

    return PositionBias(
        method="intervention harvesting (AllPairs)",
        examination=_curve(value, _jackknife(without, _GROUPS), cells, logs),
        pairs=cells.pairs_in_several_places,
    )


def _check_places(cells: ClickCells) -> None:
    if cells.pairs_in_several_places == 0:
        message = (
            "no product was shown in two places for the same query, so that place and relevance "
            "cannot be told apart: log a policy that swaps places (reranker.impressions)"
        )
        raise RefusedEstimate(message)


def _check(cells: ClickCells) -> None:
    _check_places(cells)
    empty = np.flatnonzero(cells.clicks.sum(axis=0) == 0)
    if len(empty):
        raise RefusedEstimate(
            f"place {empty[0] + 1} got no click at all: log more, or fewer places"
        )


def _groups(logs: LoggedLists) -> Integers:
    clusters, shopper = np.unique(logs.shoppers, return_inverse=True)
    if len(clusters) < _GROUPS:
        message = f"{len(clusters)} shoppers: the errors need at least {_GROUPS}"
        raise RefusedEstimate(message)
    order = np.random.default_rng(0).permutation(len(clusters))
    result: Integers = (order % _GROUPS)[shopper]
    return result


def _jackknife(without: Callable[[int], Floats], groups: int) -> Floats:
    values = np.stack([without(group) for group in range(groups)])
    deviation = values - values.mean(axis=0)
    errors: Floats = np.sqrt((groups - 1) / groups * (deviation**2).sum(axis=0))
    return errors


def _curve(
    values: Floats, errors: Floats, cells: ClickCells, logs: LoggedLists
) -> tuple[Estimate, ...]:
    shown = np.bincount(logs.position - 1, minlength=cells.shown.shape[1])
    return tuple(
        _estimate(f"examination of place {place}", value, error, int(count), logs)
        for place, (value, error, count) in enumerate(zip(values, errors, shown, strict=True), 1)
    )


def _estimate(name: str, value: float, error: float, n: int, logs: LoggedLists) -> Estimate:
    from scipy.stats import t as student

    reach = float(student.ppf(0.975, _GROUPS - 1)) * float(error)
    return Estimate(
        measure=name,
        value=float(value),
        low=max(0.0, float(value) - reach),
        high=float(value) + reach,
        n=n,
        effective_n=float(n),
        clusters=len(np.unique(logs.shoppers)),
    )
