"""What can be wrong with a row of a cases file: every kind with its weight and its remedy."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from eval.cases.values import HIGHEST_GRADE, LONGEST_QUERY
from retrieval.imports import RejectedRow, Writable

Severity = Literal["error", "note"]


class DefectKind(NamedTuple):
    """One kind of defect: an error makes its row unusable, a note is counted and reported."""

    severity: Severity
    remedy: str


class Defect(RejectedRow):
    """One defect of one row.

    Attributes:
        kind: see `DEFECTS`.
        case_id: where the row tells it.
        reason: what is wrong, with the remedy.
    """

    kind: str
    case_id: Writable | None = None

    @property
    def severity(self) -> Severity:
        """Tell whether the row can be used."""
        return DEFECTS[self.kind].severity


def _error(remedy: str) -> DefectKind:
    return DefectKind("error", remedy)


def _note(remedy: str) -> DefectKind:
    return DefectKind("note", remedy)


_ID = "write it as text of 1 to 256 characters"
_LIST = "write a list, or leave it out"
_TIME = "write ISO 8601 with a zone, such as 2026-03-05T10:00:00Z, or epoch seconds"
_TARGET = 'write a product id, or {"product_id": "...", "grade": 1}'
_ABSENT = "the ranker is told less than there was; complete the products file if that is not meant"

DEFECTS: Mapping[str, DefectKind] = {
    "unreadable": _error("write one JSON object a line, in UTF-8, or Parquet"),
    "case-id-missing": _error("give each case an id of its own"),
    "case-id-type": _error(_ID),
    "case-id-long": _error(_ID),
    "case-id-twice": _error("give each case an id of its own, or remove the repetition"),
    "user-id-type": _error(_ID),
    "user-id-long": _error(_ID),
    "query-type": _error("write text, or null where there is none"),
    "query-blank": _error("write null where there is no query"),
    "query-long": _error(f"cut it to {LONGEST_QUERY} characters"),
    "at-type": _error(_TIME),
    "at-unreadable": _error(_TIME),
    "at-out-of-range": _error("check its unit: years 1990 to 2100 are taken"),
    "at-no-zone": _note("it is taken as UTC; write the zone"),
    "history-type": _error(_LIST),
    "history-entry": _error(_ID),
    "history-unknown": _note(_ABSENT),
    "history-at-type": _error("write a list of times as long as history, or leave it out"),
    "history-at-length": _error("write one time for each entry of history"),
    "history-at-order": _error("write history oldest first"),
    "history-at-late": _note("what did not happen before the case is not looked at"),
    "candidates-type": _error("write a list, or null for the whole catalogue"),
    "candidates-empty": _error("write null for the whole catalogue, or remove the case"),
    "candidates-entry": _error(_ID),
    "candidates-twice": _error("name each candidate once"),
    "candidates-unknown": _error("add it to the products file, or leave the candidate out"),
    "candidates-one": _note("there is nothing to rank: every ranker gets it right"),
    "targets-type": _error("write a list of targets"),
    "targets-entry": _error(_TARGET),
    "targets-both": _error("give target or targets, not both"),
    "target-id-missing": _error(_TARGET),
    "target-field-unknown": _error(_TARGET),
    "target-twice": _error("name each target once, with its highest grade"),
    "grade-type": _error("grades are whole numbers from 0 on"),
    "grade-negative": _error("grades are whole numbers from 0 on"),
    "grade-high": _error(f"grades end at {HIGHEST_GRADE}"),
    "targets-none": _note("the case is ranked and counted, and in no mean"),
    "target-unknown": _note("no ranker can find it: it counts as missed"),
    "target-not-candidate": _note("no ranker can find it: it counts as missed"),
    "segments-type": _error("write a list of names, or leave it out"),
    "segments-entry": _error("a segment is a name of 1 to 100 characters"),
}
