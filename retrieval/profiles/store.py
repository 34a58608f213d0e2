"""Profiles of the shoppers of a behaviour store, made when they are asked for."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.errors import ConfigError
from reranker.ports import Tokenizer
from reranker.schema import Language, UserProfile
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
        if self._written is None:
            raise ConfigError("written summaries need a store folder: give the profiles theirs")
        events = self._behaviour.history(user_id, as_of, limit=self._settings.max_events)
        profile = self._builder.build(user_id, events, as_of, language)
        if profile is None:
            return None
        shopper = self._behaviour.pseudonym(user_id).hex
        earlier = self._written.read(shopper, language)
        summary = await writer.write(profile, earlier=earlier)
        if summary != earlier:
            self._written.save(shopper, summary)
        return summary

    def all_profiles(self, as_of: datetime, language: Language = "en") -> Iterator[UserProfile]:
        """Yield the profile of every shopper with consent, by pseudonym, in one pass.

        Each is the one that `profile` makes of the template, except that its shopper is called by
        the pseudonym: the store knows no other name. The events of 200 shoppers are in
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
