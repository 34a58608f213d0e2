"""Whose history a case gets when it is told of another shopper."""

from collections.abc import Sequence

import numpy as np

from eval.cases.values import Case


def other_shoppers(cases: Sequence[Case], seed: int) -> dict[str, Case]:
    """Return for each case one of another shopper with a history; none where there is none.

    The cases with a history stand in a seeded random circle, and each looks to the next one in it
    that is of another shopper, so that each history is lent about as often.
    """
    known = [case for case in cases if case.history]
    order = np.random.default_rng(seed).permutation(len(known)).tolist()
    place = {known[number].case_id: at for at, number in enumerate(order)}
    found = {}
    for number, case in enumerate(cases):
        start = place.get(case.case_id, number % max(len(known), 1) - 1)
        for step in range(1, len(known) + 1):
            other = known[order[(start + step) % len(known)]]
            if other.shopper != case.shopper:
                found[case.case_id] = other
                break
    return found
