"""Profiles of the shoppers of cases, by the code that serves."""

from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from eval.cases.values import Case
from eval.past.guard import to_microseconds
from reranker.ports import Tokenizer
from reranker.schema import Language, UserProfile
from reranker.settings import Settings
from retrieval.product_table import ProductTable
from retrieval.profiles import PastEvent, ProfileBuilder, untimed_purchases
from retrieval.profiles.summary import Summariser
from retrieval.profiles.writing import SummaryWriter
from retrieval.profiles.written import WrittenSummaries

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortal

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

    @property
    def summariser(self) -> Summariser:
        """What holds the text to its length."""
        return self._builder.summariser

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


class WrittenCaseProfiles:
    """The same profiles with the text that a language model writes on them, held to their facts."""

    def __init__(
        self,
        profiles: CaseProfiles,
        writer: SummaryWriter,
        folder: Path,
        portal: "BlockingPortal",
    ) -> None:
        """Take the writer.

        Args:
            profiles: with the template's text.
            writer: of the other text.
            folder: what was written is kept there for the next run.
            portal: the writer is asked in its event loop.
        """
        self._profiles = profiles
        self._writer = writer
        self._written = WrittenSummaries(folder, profiles.summariser)
        self._portal = portal

    def of(self, case: Case, language: Language = "en") -> UserProfile | None:
        """Return the profile, with the template's text where nothing that was written holds.

        Raises:
            ModelError: the model does not write.
        """
        profile = self._profiles.of(case, language)
        if profile is None:
            return None
        name = blake2b(case.case_id.encode(), digest_size=16).hexdigest()
        earlier = self._written.read(name, language)
        write = partial(self._writer.write, profile, earlier=earlier)
        summary = self._portal.call(write)
        if summary != earlier:
            self._written.save(name, summary)
        return self._written.tell(profile, name)
