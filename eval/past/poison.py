"""Poison: purchases and histories after the cut that would give every answer away if they leaked.

They stand for what a leak would bring: the targets themselves, bought by the shopper of the case
and by a crowd of others after everything in the shopper's history. An evaluation that looks at any
of it ranks otherwise than without it.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from eval.cases.values import Case
from eval.past.guard import TimeGuard, to_microseconds
from eval.past.purchases import Purchases, ShopperSequence
from reranker.errors import DataError

_CROWD = 25


def poisoned_purchases(
    purchases: Purchases, cases: Sequence[Case], guard: TimeGuard
) -> tuple[Purchases, int]:
    """Return purchases with poison from the cut on, and how many were added.

    Raises:
        DataError: there is no cut.
    """
    moment = to_microseconds(_first_unknown(guard))
    added = []
    for case in cases:
        given = case.relevant or frozenset(case.candidates or ())
        products = (*case.history[-1:], *sorted(given))
        times = tuple(moment + place for place in range(len(products)))
        added.append(ShopperSequence(case.user_id, products, times))
        added += [
            ShopperSequence(f"poison {number} of {case.case_id}", products, times)
            for number in range(_CROWD)
        ]
    whole = Purchases.of([*purchases.sequences(), *added])
    return whole, len(whole) - len(purchases)


def poisoned_case(case: Case, guard: TimeGuard) -> Case:
    """Return a case whose history goes on with its targets from the cut on, where it has times."""
    if case.history and case.history_at is None:
        return case
    moment: datetime = _first_unknown(guard)
    targets = tuple(sorted(case.relevant)) * 3
    times = tuple(moment + timedelta(seconds=place) for place in range(len(targets)))
    later = {"history": (*case.history, *targets), "history_at": (*(case.history_at or ()), *times)}
    return case.model_copy(update=later)


def _first_unknown(guard: TimeGuard) -> datetime:
    if guard.end is None:
        raise DataError("there is no cut: no case has a time, so that nothing can be proven")
    return guard.end
