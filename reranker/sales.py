"""How much a product sells beside the shop's best seller: what cards say and people can read.

Counts are of distinct shoppers: one who buys a product weekly counts once.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from reranker.schema import Candidate, ProductInterest

BEST = 9


def sales_levels(shoppers: Sequence[float] | npt.NDArray[np.float64], most: float) -> list[int]:
    """Return levels of sale, 0 to 9: ``9 * log(1 + n) / log(1 + most)``, rounded.

    On a logarithmic scale, for a few products sell most, and relative, so that it means the same in
    shops of all sizes.

    Args:
        shoppers: of each product the number of shoppers who bought it.
        most: of the product that most shoppers bought; more counts as that.
    """
    counts = np.clip(np.asarray(shoppers, np.float64), 0.0, max(most, 0.0))
    whole = np.log1p(max(most, 1.0))
    levels: list[int] = np.rint(BEST * np.log1p(counts) / whole).astype(np.int64).tolist()
    return levels


def with_sales(
    candidates: Sequence[Candidate], interest: Sequence[ProductInterest | None] | None
) -> tuple[Candidate, ...]:
    """Return candidates that tell how much they sell, as prompts say it.

    Args:
        candidates: some products.
        interest: one a candidate; None, where nothing has been learnt, leaves it as it is.
    """
    if interest is None:
        return tuple(candidates)
    return tuple(
        one if known is None else one.model_copy(update={"sales": known.sales})
        for one, known in zip(candidates, interest, strict=True)
    )
