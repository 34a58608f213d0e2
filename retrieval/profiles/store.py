"""Profiles of the shoppers of a behaviour store, made when they are asked for."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.errors import ConfigError
from reranker.ports import Progress, Tokenizer, no_progress
from reranker.schema import Language, UserProfile, Value
from reranker.settings import ProfileSettings
from retrieval.behaviour import BehaviourStore
from retrieval.product_table import ProductTable
from retrieval.profiles.builder import ProfileBuilder
from retrieval.profiles.written import WrittenSummaries, WrittenSummary

if TYPE_CHECKING:
    from retrieval.profiles.writing import SummaryWriter

POPULAR_DAYS = 28
_POPULAR_CACHED = 64
_BATCH = 200


class Refreshed(Value):
    """On how many shoppers a model wrote, and on how many it had: their facts are the same."""

    written: int
    unchanged: int


class DuckDBProfileStore:
    """Implements `reranker.ports.ProfileStore` over a behaviour store and a catalogue snapshot."""

    def __init__(
        self,
        behaviour: BehaviourStore,
        products: ProductTable,
        settings: ProfileSettings,
        tokenizer: Tokenizer,
        *,
        folder: Path | None = None,
    ) -> None:
        """Take what profiles are made of.

        Args:
            behaviour: of the shoppers.
            products: the catalogue.
            settings: what is kept, and how long the text may become.
            tokenizer: of the model that will read the text.
            folder: of the store, which keeps what models write; None keeps and reads nothing.
        """
        self._behaviour = behaviour
        self._settings = settings
        self._builder = ProfileBuilder(products, settings, tokenizer)
        self._written = None
        if folder is not None:
            self._written = WrittenSummaries(folder, self._builder.summariser)
        self._popular = lru_cache(maxsize=_POPULAR_CACHED)(self._count_popular)

    def profile(
        self, user_id: str, as_of: datetime, language: Language = "en"
    ) -> UserProfile | None:
        """Return the profile from events strictly before ``as_of``; None without any.

        Impressions alone make no profile. Products that have left the catalogue are not named. With
        the setting ``profile.summary = "llm"`` the text is what a model has written on the
        shopper, where there is such a text and its facts still hold.
        """
        events = self._behaviour.history(user_id, as_of, limit=self._settings.max_events)
        profile = self._builder.build(user_id, events, as_of, language)
        if profile is None or self._written is None or self._settings.summary == "template":
            return profile
        return self._written.tell(profile, self._behaviour.pseudonym(user_id).hex)

    async def write(
        self, user_id: str, as_of: datetime, writer: "SummaryWriter", language: Language = "en"
    ) -> WrittenSummary | None:
        """Have a model write on a shopper, unless it has and the facts are the same.

        Returns:
            What is kept from now on; None of a shopper of whom nothing is known.

        Raises:
            ConfigError: this object was given no folder.
            ModelError: the model does not answer.
        """
        events = self._behaviour.history(user_id, as_of, limit=self._settings.max_events)
        profile = self._builder.build(user_id, events, as_of, language)
        if profile is None:
            return None
        summary, _ = await self._write(profile, self._behaviour.pseudonym(user_id).hex, writer)
        return summary

    async def write_all(
        self,
        as_of: datetime,
        writer: "SummaryWriter",
        language: Language = "en",
        *,
        progress: Progress = no_progress,
    ) -> Refreshed:
        """Have a model write on every shopper with consent of whom the facts have changed since.

        Cut off, it goes on where it was: what is written already is not written again.

        Raises:
            ConfigError: this object was given no folder.
            ModelError: the model does not answer.
        """
        number, written = 0, 0
        total = self.shoppers()
        for profile in self.all_profiles(as_of, language):
            shopper = self._behaviour.pseudonym(profile.user_id).hex
            _, is_new = await self._write(profile, shopper, writer)
            number, written = number + 1, written + is_new
            progress("writing profiles", number, max(number, total))
        progress("writing profiles", number, number)
        return Refreshed(written=written, unchanged=number - written)

    async def _write(
        self, profile: UserProfile, shopper: str, writer: "SummaryWriter"
    ) -> tuple[WrittenSummary, bool]:
        """Return what is written on a shopper, and whether it is new."""
        if self._written is None:
            raise ConfigError("written summaries need a store folder: give the profiles theirs")
        earlier = self._written.read(shopper, profile.language)
        summary = await writer.write(profile, earlier=earlier)
        if summary == earlier:
            return summary, False
        self._written.save(shopper, summary)
        return summary, True

    def all_profiles(self, as_of: datetime, language: Language = "en") -> Iterator[UserProfile]:
        """Yield the profile of every shopper with consent, by pseudonym, in one pass.

        Each is the one that `profile` makes of the template, except that its shopper is called by
        the pseudonym, the only name that the store knows: products whose names hold the user id
        are not left out. Queries lose it as they are stored. The events of 200 shoppers are in
        memory at a time.
        """
        rest = self._behaviour.histories(as_of, limit=self._settings.max_events)
        while batch := list(islice(rest, _BATCH)):
            self._builder.prepare(events for _, events in batch)
            for shopper, events in batch:
                profile = self._builder.build(str(shopper), events, as_of, language)
                if profile is not None:
                    yield profile

    def shoppers(self) -> int:
        """Return the number of shoppers that the store knows, with consent or without."""
        return self._behaviour.users()

    def popular(self, as_of: datetime, *, k: int) -> tuple[str, ...]:
        """Return at most k product ids by purchases in the four weeks before the hour of ``as_of``.

        Counted once an hour: what happened since the full hour does not count yet, so that
        nothing from ``as_of`` on ever does. Clicks, then views, fill up what purchases leave.
        """
        hour = as_of.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
        return self._popular(hour, k, self._behaviour.generation)

    def _count_popular(self, hour: datetime, k: int, _generation: int) -> tuple[str, ...]:
        return self._behaviour.popular(hour, days=POPULAR_DAYS, k=k)
