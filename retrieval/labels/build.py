"""Graded lists from behaviour, in bulk: DuckDB does the work, rows never pass through Python.

The grade of a shown product is that of the strongest thing its shopper did to it:

====== ==========================================================================================
0      shown, and no more; or looked at for a short while; or bought and sent back
1      clicked, or its page viewed for long
2      favourite or cart
3      bought, and at least one piece kept
====== ==========================================================================================

Each deed is put down to one list at most: the one with its request id (and of its visit, where ids
are counted anew in each); else the latest with its query; else the one on which the product was
touched last; else the latest that showed it. The windows are in `reranker.settings.LabelSettings`.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from pydantic import AwareDatetime, Field

from reranker.ports import Progress, no_progress
from reranker.schema import Value
from reranker.settings import LabelSettings, Purpose
from retrieval.behaviour import BehaviourStore
from retrieval.event_formats.sql import literal
from retrieval.files import replacing
from retrieval.labels import statements

_STAGE = "labelling"


class LabelReport(Value):
    """What labels were made of.

    Attributes:
        as_of: the cut: nothing at or after it had any influence.
        lists: number of lists written.
        items: number of products on them.
        grades: number of products by grade.
        attributed: number of deeds by kind and by what they were put down to a list by.
        unattributed: number of deeds by kind that belong to no list.
        returned: number of purchases that were sent back.
        viewed_only: number of products whose page was viewed without a click or more.
        without_position: number of shown products left out, as nothing tells their place.
        unsettled: number of lists left out, as they were shown too shortly before the cut.
        dwell_told: number of clicks and views with a dwell time of their own.
        dwell_derived: number of those whose dwell time follows from the shopper's next event.
    """

    as_of: AwareDatetime
    lists: int = Field(ge=0)
    items: int = Field(ge=0)
    sessions: int = Field(ge=0)
    grades: Mapping[int, int] = Field(default_factory=dict)
    attributed: Mapping[str, Mapping[str, int]] = Field(default_factory=dict)
    unattributed: Mapping[str, int] = Field(default_factory=dict)
    returned: int = Field(0, ge=0)
    viewed_only: int = Field(0, ge=0)
    without_position: int = Field(0, ge=0)
    unsettled: int = Field(0, ge=0)
    dwell_told: int = Field(0, ge=0)
    dwell_derived: int = Field(0, ge=0)


def build_labels(
    store: BehaviourStore,
    target: Path,
    as_of: datetime,
    *,
    settings: LabelSettings | None = None,
    purpose: Purpose = "training",
    progress: Progress = no_progress,
) -> LabelReport:
    """Write the graded lists of all shoppers who consent, as they were known at a moment.

    Args:
        store: of the behaviour.
        target: a Parquet file of `reranker.schema.Impression`, one a row, by time; replaced as a
            whole.
        as_of: nothing at or after it influences a label.
        settings: of sessions, windows and grades; None takes the defaults.
        purpose: that shoppers must consent to.
        progress: told what is being done.
    """
    settings = settings or LabelSettings()
    moment = as_of.astimezone(UTC).replace(tzinfo=None)
    cut = {"as_of": moment}
    steps = (
        (statements.seen(store.past(purpose), settings), cut),
        (statements.SHOWN, {}),
        (statements.deeds(settings), {}),
        (statements.ATTRIBUTED, {}),
        *((statements.attribute(kinds, settings), {}) for kinds in statements.DEEDS),
        (statements.RETURNED, {}),
        (statements.outcomes(settings), {}),
        (statements.places(settings), cut),
    )
    with store.reading() as connection, replacing(target, private=True) as temporary:
        connection.execute("SET TimeZone = 'UTC'")
        for done, (statement, parameters) in enumerate(steps):
            progress(_STAGE, done, len(steps) + 1)
            connection.execute(statement, parameters)
        progress(_STAGE, len(steps), len(steps) + 1)
        # Into the very file: one of DuckDB's own beside it could be read by all meanwhile.
        connection.execute(
            f"""COPY ({statements.LISTS}) TO {literal(temporary)}
            (FORMAT parquet, USE_TMP_FILE false)"""
        )
        report = _report(connection, as_of)
    progress(_STAGE, len(steps) + 1, len(steps) + 1)
    return report


def _report(connection: duckdb.DuckDBPyConnection, as_of: datetime) -> LabelReport:
    def number(query: str) -> int:
        return int(connection.execute(query).fetchall()[0][0])

    def counts(query: str) -> dict[str, int]:
        return dict(connection.execute(query).fetchall())

    attributed: dict[str, dict[str, int]] = {}
    for kind, way, count in connection.execute(
        """SELECT kind::VARCHAR, attribution, count(*) FROM attributed WHERE attribution NOTNULL
        GROUP BY kind, attribution ORDER BY kind, attribution"""
    ).fetchall():
        attributed.setdefault(kind, {})[way] = count
    lists = number("SELECT count(*) FROM (SELECT DISTINCT shopper, list FROM place)")
    shown = "SELECT DISTINCT shopper, list FROM shown WHERE position NOTNULL"
    return LabelReport(
        as_of=as_of,
        lists=lists,
        items=number("SELECT count(*) FROM place"),
        sessions=number("SELECT count(*) FROM (SELECT DISTINCT shopper, session FROM seen)"),
        grades={
            int(grade): count
            for grade, count in counts(
                "SELECT coalesce(grade, 0)::VARCHAR, count(*) FROM place GROUP BY 1 ORDER BY 1"
            ).items()
        },
        attributed=attributed,
        unattributed=counts(
            """SELECT kind::VARCHAR, count(*) FROM attributed WHERE attribution IS NULL
            GROUP BY kind ORDER BY kind"""
        ),
        returned=number("SELECT count(*) FROM returned"),
        viewed_only=number("SELECT count(*) FROM place WHERE only_viewed"),
        without_position=number("SELECT count(*) FROM shown WHERE position IS NULL"),
        unsettled=number(f"SELECT count(*) FROM ({shown})") - lists,
        dwell_told=number("SELECT count(*) FROM deed WHERE told_dwell"),
        dwell_derived=number("SELECT count(*) FROM deed WHERE dwell_ms NOTNULL AND NOT told_dwell"),
    )
