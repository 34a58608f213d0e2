"""Purchases inside the cases themselves, for want of a file of them."""

from collections.abc import Sequence

from eval.cases.values import Case
from eval.past.guard import to_microseconds
from eval.past.purchases import UNTIMED, Purchases, ShopperSequence


def purchases_of_cases(cases: Sequence[Case]) -> Purchases:
    """Return the histories of the cases as purchases, of each shopper that of one case.

    It is the case with the shortest history, the first of several: a shopper's later histories may
    hold the answers of the earlier cases.
    """
    chosen: dict[object, Case] = {}
    for case in cases:
        known = chosen.get(case.shopper)
        if case.history and (known is None or len(case.history) < len(known.history)):
            chosen[case.shopper] = case
    return Purchases.of(_sequence(case) for case in chosen.values())


def _sequence(case: Case) -> ShopperSequence:
    times = tuple(map(to_microseconds, case.history_at or ()))
    return ShopperSequence(case.user_id, case.history, times or (UNTIMED,) * len(case.history))
