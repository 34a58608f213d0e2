"""What makes an event bad, told in SQL from its own fields alone."""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from reranker.schema import EventKind

_KINDS = ", ".join(EventKind)


class Rule(NamedTuple):
    """One thing that makes a row bad.

    Attributes:
        check: what kind of thing it is, as reports sum them up.
        field: at fault, or ``row``.
        when: SQL of the condition; NULL counts as false.
        reason: SQL of the text for people.
    """

    check: str
    field: str
    when: str
    reason: str


@dataclass(frozen=True)
class Clock:
    """Between which times (UTC, without a zone) events are believed, and whether others are mended.

    Attributes:
        kept_from: older events are left out; None keeps all.
        repair: take milliseconds read as seconds, and seconds read as milliseconds, for what they
            were meant to be, where that falls between the two.
    """

    earliest: datetime
    latest: datetime
    repair: bool = True
    kept_from: datetime | None = None


def _long(field: str) -> str:
    # Bytes are counted at once, characters one by one.
    return f"strlen({field}) > 256 AND length({field}) > 256"


def rules(clock: Clock) -> tuple[Rule, ...]:
    """Return what a row is judged by; the first rule that holds is reported."""
    return (
        Rule("unreadable", "row", "fault IS NOT NULL", "fault"),
        Rule("incomplete", "user_id", "shopper IS NULL", "coalesce(user_fault, 'missing')"),
        Rule("impossible", "user_id", _long("user_id"), "'longer than 256 characters'"),
        Rule("incomplete", "kind", "NOT given_kind", "'missing'"),
        Rule(
            "unknown kind",
            "kind",
            "kind IS NULL",
            "'unknown kind ' || raw_kind || '; write --map-kind ' || raw_kind || '=KIND or "
            f"=ignore; the kinds are {_KINDS}'",
        ),
        Rule("incomplete", "at", "NOT given_at", "'missing'"),
        Rule(
            "clock",
            "at",
            '"at" IS NULL',
            "'not a time: ' || raw_at || '; write ISO 8601 or epoch seconds'",
        ),
        Rule(
            "clock",
            "at",
            f"\"at\" > TIMESTAMP '{clock.latest}'",
            "'in the future: ' || raw_at || '; see the setting cleaning.clock_tolerance_hours'",
        ),
        Rule(
            "clock",
            "at",
            f"\"at\" < TIMESTAMP '{clock.earliest}'",
            "'too long ago: ' || raw_at || '; see the setting cleaning.earliest'",
        ),
        Rule(
            "incomplete",
            "product_id",
            "product_id IS NULL AND kind <> 'search'",
            "'missing; ' || kind || ' needs one'",
        ),
        Rule("impossible", "product_id", _long("product_id"), "'longer than 256 characters'"),
        Rule(
            "incomplete",
            "query",
            "query IS NULL AND kind = 'search'",
            "'missing; search needs one'",
        ),
        Rule(
            "impossible", "position", "given_position AND position IS NULL", "'not a whole number'"
        ),
        Rule("impossible", "position", "position < 1", "'below 1'"),
        Rule(
            "impossible", "dwell_ms", "given_dwell_ms AND dwell_ms IS NULL", "'not a whole number'"
        ),
        Rule("impossible", "dwell_ms", "dwell_ms < 0", "'negative'"),
        Rule("impossible", "quantity", "given_quantity AND quantity IS NULL", "'not a number'"),
        Rule("impossible", "quantity", "quantity <= 0", "'not above 0'"),
        Rule("impossible", "value", "given_value AND value IS NULL", "'not a number'"),
        Rule("impossible", "value", "value < 0", "'negative'"),
        Rule("impossible", "discount", "given_discount AND discount IS NULL", "'not a number'"),
        Rule("impossible", "discount", "discount < 0", "'negative'"),
    )
