"""What a policy under evaluation does with logged requests, in the form that estimators need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.logs import LoggedLists
from eval.statistics.estimates import Floats, Integers
from reranker.errors import DataError


@dataclass(frozen=True)
class TargetPolicy:
    """What the policy under evaluation does with the logged requests. N logged rows, M of its own.

    Attributes:
        propensity: N, probability that it puts the logged item in the logged place.
        prefix_propensity: N, probability that it shows the logged list down to that place.
        request, product, position, probability: M rows, its own items by place, for estimators
            with a reward model; a product that was never logged has the number -1.
    """

    propensity: Floats
    prefix_propensity: Floats
    request: Integers
    product: Integers
    position: Integers
    probability: Floats

    @classmethod
    def from_lists(cls, logs: LoggedLists, lists: Mapping[str, Sequence[str]]) -> "TargetPolicy":
        """Make it of one fixed list of product ids for each logged request_id.

        Only as many places as were logged are looked at.

        Raises:
            DataError: a logged request has no list.
        """
        if missing := [name for name in logs.request_ids if name not in lists]:
            message = (
                f"{len(missing)} logged requests have no list, such as {missing[0]!r}: "
                "rank every logged request, or select those that are ranked"
            )
            raise DataError(message)
        number = {name: code for code, name in enumerate(logs.products)}
        depth = int(logs.position.max())
        shown = np.full((len(logs), depth), -2, np.int64)
        for row, name in enumerate(logs.request_ids):
            chosen = [number.get(product, -1) for product in lists[name][:depth]]
            shown[row, : len(chosen)] = chosen
        same = (shown[logs.request, logs.position - 1] == logs.product).astype(np.float64)
        request, place = np.nonzero(shown != -2)
        kept = place < _depths(logs)[request]
        request, place = request[kept], place[kept]
        return cls(
            propensity=same,
            prefix_propensity=_running_minimum(logs, same),
            request=request.astype(np.int64),
            product=shown[request, place],
            position=place.astype(np.int64) + 1,
            probability=np.ones(len(request)),
        )


def _depths(logs: LoggedLists) -> Integers:
    return logs.position[logs.last_rows]


def _running_minimum(logs: LoggedLists, same: Floats) -> Floats:
    """Of each row: 1 if it and all rows above it in its list are 1."""
    wrong = np.cumsum(1 - same)
    before = np.concatenate([[0.0], wrong[logs.last_rows][:-1]])
    result: Floats = (wrong - before[logs.request] < 0.5).astype(np.float64)
    return result
