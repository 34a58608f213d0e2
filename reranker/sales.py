"""How much a product sells beside the shop's best seller: what cards say and people can read.

Counts are of distinct shoppers: one who buys a product weekly counts once.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

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
    return [int(level) for level in np.rint(BEST * np.log1p(counts) / whole)]
