"""One moment after which nothing is known: the guard through which all knowledge of the past goes.

With a cut, everything that rankers learn or look up (popularity, co-occurrence, transitions, the
shopper's own history and the profile made of it) is from strictly before ``cut - embargo``, one
moment for all cases. What carries no time cannot be cut: it is taken as the file's author gave it,
and counted as such.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
from pydantic import AwareDatetime

from eval.cases.values import Case
from eval.past.purchases import UNTIMED, Purchases
from reranker.errors import ConfigError, DataError
from reranker.schema import Value

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class TimeGuard(Value):
    """The global cut of an evaluation.

    Attributes:
        cut: all cases are at or after it; None where no case has a time.
        embargo: how long before the cut knowledge ends: what would not have arrived in time, or
            what would give a coming purchase away.
    """

    cut: AwareDatetime | None = None
    embargo: timedelta = timedelta(0)

    @classmethod
    def of(
        cls, cases: Sequence[Case], *, cut: datetime | None = None, embargo_hours: float = 0.0
    ) -> "TimeGuard":
        """Make the guard of some cases; without a cut it is the moment of the first case.

        Raises:
            DataError: a case is before the cut that was asked for: it could not be told apart
                from what is learnt from.
            ConfigError: the embargo reaches back before the first year.
        """
        moments = [case.at for case in cases if case.at is not None]
        if cut is not None and (early := sum(moment < cut for moment in moments)):
            raise DataError(
                f"{early} of {len(cases)} cases are before the cut {cut.isoformat()}: set an "
                "earlier cut, or leave these cases out"
            )
        chosen = cut if cut is not None else min(moments, default=None)
        try:
            guard = cls(cut=chosen, embargo=timedelta(hours=embargo_hours))
            _ = guard.end
        except OverflowError:
            message = (
                f"setting evaluation.embargo_hours: {embargo_hours:g} hours before the cut is no "
                "date any more; choose fewer"
            )
            raise ConfigError(message) from None
        return guard

    @property
    def end(self) -> datetime | None:
        """Return the moment from which on nothing is known."""
        return None if self.cut is None else self.cut - self.embargo

    def purchases(self, purchases: Purchases) -> Purchases:
        """Return what is known of the purchases."""
        if self.end is None:
            return purchases
        known = (purchases.at_us < to_microseconds(self.end)) | (purchases.at_us == UNTIMED)
        return purchases.select(np.flatnonzero(known).astype(np.int64))

    def case(self, case: Case) -> Case:
        """Return a case with what is known of its shopper's history."""
        ends = [moment for moment in (self.end, case.at) if moment is not None]
        if case.history_at is None or not ends:
            return case
        known = sum(moment < min(ends) for moment in case.history_at)
        if known == len(case.history):
            return case
        kept = {"history": case.history[:known], "history_at": case.history_at[:known]}
        return case.model_copy(update=kept)


def to_microseconds(moment: datetime) -> int:
    """Return a moment in microseconds since 1970 UTC, exactly."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
