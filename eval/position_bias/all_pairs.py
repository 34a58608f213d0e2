"""The AllPairs likelihood of intervention harvesting.

Source: Agarwal, Zaitsev, Wang, Li, Najork & Joachims (2019), "Estimating Position Bias without
Intrusive Interventions", WSDM, section 4.2.
"""

import numpy as np

from eval.statistics.estimates import Floats, Integers, RefusedEstimate


def all_pairs(shown: Floats, mass: Floats, clicks: Floats, start: Floats | None = None) -> Floats:
    """Maximise the AllPairs likelihood; shapes (pairs, places), mass the summed weights.

    For two places k and j: with v the weight of a product, c_k = sum of v * rate in k over sum of
    v; the likelihood has p_k * r_kj for c_k and p_j * r_kj for c_j.
    """
    from scipy.optimize import minimize

    places = shown.shape[1]
    first, second = np.triu_indices(places, 1)
    volume, hits = _compared(shown, clicks / np.where(mass > 0, mass, 1.0))
    used = (volume > 0) & (hits.sum(axis=0) > 0)
    first, second, volume, hits = first[used], second[used], volume[used], hits[:, used]
    _check_connected(places, first, second)
    scale = float(volume.sum())

    def loss(parameters: Floats) -> tuple[float, Floats]:
        place = np.concatenate([[0.0], parameters[: places - 1]])
        log_chance = np.stack([place[first], place[second]]) + parameters[None, places - 1 :]
        chance = np.exp(np.minimum(log_chance, -1e-9))
        value = hits * log_chance + (volume - hits) * np.log1p(-chance)
        slope = hits - (volume - hits) * chance / (1 - chance)
        gradient = np.bincount(first, slope[0], places) + np.bincount(second, slope[1], places)
        return -float(value.sum()) / scale, -np.concatenate(
            [gradient[1:], slope.sum(axis=0)]
        ) / scale

    ratio = np.zeros(places) if start is None else np.log(np.maximum(start, 1e-6))
    relevance = np.log(np.maximum(hits.sum(axis=0), 1e-12) / (2 * volume))
    # Room below certainty on both sides keeps every chance inside (0, 1) at the start.
    relevance -= np.maximum(ratio[first], ratio[second])
    begin = np.concatenate([ratio[1:], np.minimum(relevance, -0.01)])
    bounds = [(-12.0, 5.0)] * (places - 1) + [(-25.0, -1e-6)] * len(volume)
    options = {"maxiter": 2000, "ftol": 1e-14, "gtol": 1e-10}
    found = minimize(loss, begin, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    result: Floats = np.exp(np.concatenate([[0.0], found.x[: places - 1]]))
    return result


def _compared(shown: Floats, rate: Floats) -> tuple[Floats, Floats]:
    """Return the weight of every two places, and the clicks in each by weight, (2, two places).

    One place after the other: all at once would hold every product for every two places.
    """
    volumes, hits = [], []
    for place in range(shown.shape[1] - 1):
        here, below = shown[:, [place]], shown[:, place + 1 :]
        total = here + below
        weight = here * below / np.where(total > 0, total, 1.0)
        volumes.append(weight.sum(axis=0))
        first = (weight * rate[:, [place]]).sum(axis=0)
        hits.append(np.stack([first, (weight * rate[:, place + 1 :]).sum(axis=0)]))
    if not volumes:
        return np.zeros(0), np.zeros((2, 0))
    return np.concatenate(volumes), np.concatenate(hits, axis=1)


def _check_connected(places: int, first: Integers, second: Integers) -> None:
    reached = {0}
    for _ in range(places):
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            if a in reached or b in reached:
                reached |= {a, b}
    if len(reached) < places:
        missing = min(set(range(places)) - reached) + 1
        message = (
            f"place {missing} shares no clicked product of a query with the first places: "
            "log a policy that swaps places (reranker.impressions)"
        )
        raise RefusedEstimate(message)
