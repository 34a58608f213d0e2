"""What is shown of an answer, and the impression to log of it.

With exploration the first places are drawn (`reranker.exploration`), so that the log can later
tell what other rankers would have earned (`eval.counterfactual`) and how much a place alone does
(`eval.position_bias`). Without it every propensity is 1, and a log says little of other rankers.
"""

import numpy as np

from reranker.exploration import ExploredList, explore
from reranker.schema import Impression, RankedItem, RerankResult, SearchRequest, ShownItem, Value

AS_RANKED = "as-ranked"


class ShownList(Value):
    """The first places of an answer.

    Attributes:
        items: as they are to be shown; each keeps the rank and the evidence that the ranker gave.
        impression: to be logged, with the pool that was drawn from; events join it by its
            request_id.
    """

    items: tuple[RankedItem, ...]
    impression: Impression


def show(
    request: SearchRequest,
    result: RerankResult,
    *,
    temperature: float | None = None,
    among: int = 50,
    rng: np.random.Generator | None = None,
) -> ShownList:
    """Choose what is shown in the first ``request.k`` places, with exact propensities.

    Args:
        request: that was answered. Hundreds of places take a draw a while; see `explore`.
        result: the answer, with at least one item.
        temperature: of the draw (Plackett-Luce), in units of the scores' standard deviation over
            the items that may be drawn: .1 keeps close to the order, 1 mixes freely. None shows
            the list as ranked.
        among: best items that may be drawn, if these fill the places; others are never shown.
        rng: seed it to draw the same list again.

    Raises:
        ConfigError: the temperature is not above 0, or too small for any draw to differ.
    """
    places = min(request.k, len(result.items))
    pool: tuple[RankedItem, ...] = ()
    if temperature is None:
        drawn = _as_ranked(places)
    else:
        pool = result.items[: max(among, places)]
        scores = np.array([item.score for item in pool], np.float64)
        # The unit of a score differs by readout and blend; that of a spread does not.
        scores /= scores.std() or 1.0
        generator = rng if rng is not None else np.random.default_rng()
        drawn = explore(scores, places, temperature=temperature, rng=generator)
    items = tuple(result.items[number] for number in drawn.order)
    policy = AS_RANKED if temperature is None else f"plackett-luce-{temperature:g}"
    impression = Impression(
        request_id=request.request_id,
        user_id=request.user_id,
        query=request.query,
        at=request.at,
        policy=policy,
        pool=tuple(item.product.product_id for item in pool),
        items=tuple(
            ShownItem(
                product_id=item.product.product_id,
                position=place,
                propensity=drawn.propensity[place - 1],
                prefix_propensity=drawn.prefix_propensity[place - 1],
            )
            for place, item in enumerate(items, 1)
        ),
    )
    return ShownList(items=items, impression=impression)


def _as_ranked(places: int) -> ExploredList:
    certain = (1.0,) * places
    return ExploredList(order=tuple(range(places)), propensity=certain, prefix_propensity=certain)
