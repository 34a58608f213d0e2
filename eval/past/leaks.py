"""Answers of cases that stand among what is learnt from: a leak that no cut can mend."""

from collections.abc import Sequence

import numpy as np

from eval.cases.values import Case
from eval.past.purchases import Purchases


def leaked_cases(cases: Sequence[Case], purchases: Purchases) -> tuple[str, ...]:
    """Return the ids of cases whose shopper's known purchases hold a target that is new to them.

    A target that the case's own history holds is a repeat purchase, which gives nothing away.
    Purchases that are known to be from before the cut are not to be passed: they give nothing away
    either, though a history that was cut to its latest part may lack them.
    """
    named = {name: code for code, name in enumerate(purchases.users)}
    order = np.argsort(purchases.user, kind="stable")
    users = purchases.user[order]
    leaked = []
    for case in cases:
        code = named.get(f"user {case.user_id}")
        if code is None or case.user_id is None:
            continue
        start, end = np.searchsorted(users, [code, code + 1])
        bought = {purchases.products[p] for p in purchases.product[order[start:end]]}
        if (case.relevant - set(case.history)) & bought:
            leaked.append(case.case_id)
    return tuple(leaked)
