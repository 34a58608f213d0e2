"""Profiles of the shoppers of cases, by the code that serves."""

from datetime import UTC, datetime, timedelta

from eval.cases.values import Case
from eval.past.guard import to_microseconds
from reranker.ports import Tokenizer
from reranker.schema import Language, UserProfile
from reranker.settings import Settings
from retrieval.product_table import ProductTable
from retrieval.profiles import PastEvent, ProfileBuilder, untimed_purchases

_NO_MOMENT = datetime(2000, 1, 1, tzinfo=UTC)
_MOMENT = timedelta(seconds=1)
_NOBODY = "\x00nobody"


class CaseProfiles:
    """Makes the profile of a case's shopper from the case's own history."""

    def __init__(
        self,
        table: ProductTable,
        settings: Settings,
        tokenizer: Tokenizer,
        *,
        as_of: datetime | None = None,
    ) -> None:
        """Prepare the catalogue's facts.

        Args:
            table: all products.
            settings: of the profile.
            tokenizer: of the model that will read it.
            as_of: moment of all profiles; None takes each case's own.
        """
        self._builder = ProfileBuilder(table, settings.profile, tokenizer)
        self._most = settings.profile.max_events
        self._as_of = as_of

    def of(self, case: Case, language: Language = "en") -> UserProfile | None:
        """Return the profile; None for a shopper without a history."""
        moments = [moment for moment in (self._as_of, case.at) if moment is not None]
        newest = case.history_at[-1] + _MOMENT if case.history_at else _NO_MOMENT
        as_of = min(moments, default=newest)
        if case.history_at is None:
            events = untimed_purchases(case.history[-self._most :], as_of)
        else:
            events = [
                PastEvent("purchase", to_microseconds(at), product_id, None)
                for product_id, at in zip(case.history, case.history_at, strict=True)
            ][::-1]
        return self._builder.build(
            case.user_id or _NOBODY,
            events[: self._most],
            as_of,
            language,
            timed=case.history_at is not None,
        )
