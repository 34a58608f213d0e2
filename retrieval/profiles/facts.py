"""Which facts of a profile are worth saying, in which order, and what is said of each.

Titles and queries are hostile text: they come on one line, without control characters, and short.
Nothing that identifies the shopper is said. Ages are in days.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from reranker.schema import (
    CATEGORY_SEPARATOR,
    Affinity,
    AffinityKind,
    EventKind,
    Language,
    PriceSense,
    PromotionUse,
    RecentItem,
    RepeatPurchase,
    SessionIntent,
    UserProfile,
)
from retrieval.profiles.wording import clean_text
from retrieval.user_ids import Secret

_MOST: Mapping[str, int] = {"bought": 10, "repeats": 6}
_MOST_ENTRIES = 4
_REMEMBERED = 1 << 16
_LONGEST_SIZE = 12
_TELLING_SHARE = 0.45
_TELLING_PERCENT = 15
_FEWEST_PURCHASES = 5
"""Of which it must be known whether they were discounted, before it is said how many were."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a fact, and what is known of it; the template words the rest.

    Attributes:
        count: how often.
        every: days between purchases.
        ago: days since the latest one.
        due: whether the next one is due.
    """

    text: str
    count: int | None = None
    every: int | None = None
    ago: int | None = None
    due: bool = False

    def lasting(self) -> "Entry":
        """Return what does not change from day to day: the name and its rhythm."""
        return Entry(self.text, every=self.every)


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of the summary."""

    about: str
    entries: tuple[Entry, ...]

    @property
    def of_visit(self) -> bool:
        """Whether it tells of the present visit."""
        return self.about.startswith("visit_")


@dataclass(frozen=True)
class Findings:
    """What a summary is made of: the typed parts of a profile, up to the present visit."""

    as_of: datetime
    affinities: Sequence[Affinity]
    recent_items: Sequence[RecentItem]
    returned_items: Sequence[RecentItem]
    repeat_purchases: Sequence[RepeatPurchase]
    recent_queries: Sequence[str]
    price: PriceSense | None = None
    promotions: PromotionUse | None = None
    query_language: Language | None = None
    session: SessionIntent | None = None
    timed: bool = True


def findings_of(profile: UserProfile) -> Findings:
    """Return what a profile has found, its present visit told apart and told with the rest."""
    return Findings(
        as_of=profile.as_of,
        affinities=profile.affinities,
        recent_items=profile.recent_items,
        returned_items=profile.returned_items,
        repeat_purchases=profile.repeat_purchases,
        recent_queries=profile.recent_queries,
        price=profile.price,
        promotions=profile.promotions,
        query_language=profile.query_language,
        session=profile.session,
        timed=profile.timed,
    )


def telling_facts(findings: Findings, language: Language, user_id: str) -> list[Fact]:
    """Return what is worth saying, the most telling first and the present visit last.

    Args:
        findings: the typed parts of the profile.
        language: of the summary.
        user_id: names that hold it as a word of its own are left out.
    """
    secret = Secret(user_id)
    return [fact for fact in _facts(findings, language, secret) if fact.entries]


def _facts(findings: Findings, language: Language, secret: Secret) -> Iterator[Fact]:
    for about, entries in (
        *_past(findings),
        *_tastes(findings, language),
        *_visit(findings.session),
    ):
        yield Fact(about, _allowed(entries, secret, _MOST.get(about, _MOST_ENTRIES)))


_Told = tuple[str, Iterable[Entry]]


def _past(findings: Findings) -> Iterator[_Told]:
    repeats = _telling_repeats(findings)[: _MOST["repeats"]]
    # Without ages the order of the bought is all that tells when: then it stays whole.
    named = {repeat.product_id for repeat in repeats if findings.timed}
    once = [item for item in findings.recent_items if item.product_id not in named]
    yield "bought", _titles(once, EventKind.PURCHASE)
    yield "repeats", [_repeat(repeat, findings) for repeat in repeats]
    yield "wanted", _titles(once, EventKind.CART, EventKind.FAVOURITE)
    yield "viewed", _titles(once, EventKind.CLICK, EventKind.VIEW)
    yield "returned", _titles(findings.returned_items, "return")


def _tastes(findings: Findings, language: Language) -> Iterator[_Told]:
    yield "categories", _named(_narrow(findings.affinities), "category")
    yield "brands", _named(findings.affinities, "brand")
    bands = [each for each in findings.affinities if each.kind == "price_band"][:1]
    yield "price", _named([band for band in bands if band.weight >= _TELLING_SHARE], "price_band")
    yield from _prices(findings)
    yield "searches", [Entry(clean_text(query)) for query in findings.recent_queries]
    if findings.query_language not in (None, language):
        yield "searches_in", [Entry(str(findings.query_language))]


def _prices(findings: Findings) -> Iterator[_Told]:
    if findings.price is not None:
        percent = 5 * round(20 * (findings.price.relative - 1))
        if abs(percent) >= _TELLING_PERCENT:
            yield "cheaper" if percent < 0 else "dearer", [Entry(str(abs(percent)))]
    use = findings.promotions
    if use is not None and use.purchases >= _FEWEST_PURCHASES:
        yield "promotions", [Entry(str(10 * round(10 * use.discounted / use.purchases)))]


def _visit(session: SessionIntent | None) -> Iterator[_Told]:
    if session is None:
        return
    yield "visit_bought", _titles(session.items, EventKind.PURCHASE)
    yield "visit_wanted", _titles(session.items, EventKind.CART, EventKind.FAVOURITE)
    yield "visit_viewed", _titles(session.items, EventKind.CLICK, EventKind.VIEW)
    yield "visit_searches", [Entry(clean_text(query)) for query in session.queries]


def _titles(items: Iterable[RecentItem], *kinds: str) -> list[Entry]:
    """Return titles, of several sizes of one thing only the first."""
    said: dict[str, str] = {}
    for item in items:
        if item.kind in kinds:
            text = _said(item.title)
            said.setdefault(_stem(text), text)
    return [Entry(text) for text in said.values()]


@lru_cache(maxsize=_REMEMBERED)
def _said(title: str) -> str:
    return clean_text(title)


def _stem(text: str) -> str:
    stem, comma, size = text.rpartition(",")
    return (stem if comma and len(size) <= _LONGEST_SIZE else text).casefold()


def _telling_repeats(findings: Findings) -> list[RepeatPurchase]:
    """Return those that are still bought before the others, else in their order."""
    return sorted(
        findings.repeat_purchases,
        key=lambda repeat: findings.timed and repeat.has_ended(findings.as_of),
    )


def _repeat(repeat: RepeatPurchase, findings: Findings) -> Entry:
    """Say the rhythm while it lasts, and when it was bought last unless it is due again."""
    entry = Entry(_said(repeat.title), count=repeat.count)
    if not findings.timed:
        return entry
    if repeat.rhythm is None or repeat.has_ended(findings.as_of):
        return replace(entry, ago=repeat.days_since(findings.as_of))
    every = max(1, round(repeat.rhythm))
    if repeat.is_due(findings.as_of):
        return replace(entry, every=every, due=True)
    return replace(entry, every=every, ago=repeat.days_since(findings.as_of))


def _named(affinities: Iterable[Affinity], kind: AffinityKind) -> list[Entry]:
    """Return the last part of each name: of a category, the shopper's word for it."""
    found = [each for each in affinities if each.kind == kind]
    return [
        Entry(clean_text(each.name.rpartition(CATEGORY_SEPARATOR)[2]), count=each.evidence)
        for each in found
    ]


def _narrow(affinities: Iterable[Affinity]) -> list[Affinity]:
    """Leave a category out whose children say it better."""
    found = [each for each in affinities if each.kind == "category"]
    return [
        each
        for each in found
        if not any(other.name.startswith(each.name + CATEGORY_SEPARATOR) for other in found)
    ]


def _allowed(entries: Iterable[Entry], secret: Secret, most: int) -> tuple[Entry, ...]:
    """Return the first entries that say something, no two alike, none naming the shopper."""
    distinct: dict[str, Entry] = {}
    for entry in entries:
        if entry.text and not secret.is_in(entry.text):
            distinct.setdefault(entry.text.casefold(), entry)
    return tuple(distinct.values())[:most]
