"""From one shopper's events to a `UserProfile`, without looking anywhere but into the catalogue.

Serving, training and evaluation build profiles with this and nothing else, so that what is measured
is what is served.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from reranker.ports import Tokenizer
from reranker.schema import Language, SessionIntent, UserProfile
from reranker.settings import ProfileSettings
from retrieval.behaviour import PastEvent
from retrieval.product_facts import ProductFacts
from retrieval.product_table import ProductTable
from retrieval.profiles.affinities import affinities, price_sense, promotion_use
from retrieval.profiles.facts import Findings
from retrieval.profiles.history import History, microseconds, moment_of
from retrieval.profiles.items import (
    purchases,
    query_language,
    recent_items,
    recent_queries,
    repeat_purchases,
    returned_items,
)
from retrieval.profiles.summary import Summariser


class ProfileBuilder:
    """Builds profiles over one version of the catalogue. Thread-safe."""

    def __init__(
        self, products: ProductTable, settings: ProfileSettings, tokenizer: Tokenizer
    ) -> None:
        """Prepare the catalogue's facts, which takes about a second for a million products.

        Args:
            products: names, categories and prices; what it does not have is not named.
            settings: what is kept, and how long the text may become.
            tokenizer: of the model that will read the text.
        """
        self._facts = ProductFacts(products)
        self._lookup = products.lookup
        self._settings = settings
        self.summariser = Summariser(tokenizer, settings.max_tokens)

    def prepare(self, histories: Iterable[Sequence[PastEvent]]) -> None:
        """Look up the products of many shoppers at once, which is faster than one by one."""
        self._lookup.rows([event.product_id for events in histories for event in events])

    def build(
        self,
        user_id: str,
        events: Sequence[PastEvent],
        as_of: datetime,
        language: Language = "en",
        *,
        timed: bool = True,
    ) -> UserProfile | None:
        """Return what events tell of a shopper; None without any.

        Args:
            user_id: of the shopper; text that holds it is left out of the summary.
            events: newest first, all strictly before ``as_of``, no impressions.
            as_of: the moment that the profile is of.
            language: of the summary.
            timed: whether the times of the events mean anything, or only their order: then
                rhythms, ages, what is due, and the present visit are left out.

        Raises:
            ValueError: an event is not before ``as_of``, or they are not newest first.
        """
        if not events:
            return None
        if events[0].at_us >= microseconds(as_of):
            raise ValueError(f"an event of a profile as of {as_of.isoformat()} is not before it")
        history = History.of(events, self._lookup)
        fresh = history.visit(as_of, self._settings.session_minutes) if timed else 0
        session = self._session(history.latest(fresh)) if fresh else None
        findings = self._findings(history, as_of, session, timed=timed)
        # The text keeps the visit apart: what is older reads the same until the visit ends.
        told = findings if not fresh else self._findings(history.older(fresh), as_of, session)
        return UserProfile(
            user_id=user_id,
            as_of=as_of,
            affinities=tuple(findings.affinities),
            recent_items=tuple(findings.recent_items),
            returned_items=tuple(findings.returned_items),
            repeat_purchases=tuple(findings.repeat_purchases),
            purchases=purchases(history),
            recent_queries=tuple(findings.recent_queries),
            price=findings.price,
            promotions=findings.promotions,
            query_language=findings.query_language,
            session=session,
            event_count=len(events),
            timed=timed,
            summary=self.summariser.summarise(told, language, user_id),
            language=language,
        )

    def _findings(
        self,
        history: History,
        as_of: datetime,
        session: SessionIntent | None,
        *,
        timed: bool = True,
    ) -> Findings:
        settings, lookup = self._settings, self._lookup
        weights = history.weights(settings.half_life_days)
        queries = recent_queries(history)
        return Findings(
            as_of=as_of,
            affinities=affinities(
                history, weights, self._facts, min_evidence=settings.min_evidence
            ),
            recent_items=recent_items(history, lookup, settings.recent_items),
            returned_items=returned_items(history, lookup),
            repeat_purchases=repeat_purchases(history, lookup, timed=timed),
            recent_queries=queries,
            price=price_sense(history, weights, self._facts),
            promotions=promotion_use(history),
            query_language=query_language(queries),
            session=session,
            timed=timed,
        )

    def _session(self, visit: History) -> SessionIntent:
        return SessionIntent(
            started_at=moment_of(int(visit.at_us[-1])),
            queries=tuple(recent_queries(visit)),
            items=tuple(recent_items(visit, self._lookup, self._settings.recent_items)),
        )
