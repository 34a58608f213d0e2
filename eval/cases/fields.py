"""From the values of one row to the fields of a `Case`, with everything that is wrong with them.

All defects of a row are found, not only the first.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, time
from typing import Any, NamedTuple

from eval.cases.values import HIGHEST_GRADE, LONGEST_QUERY, Target
from reranker.schema import is_blank

_LONGEST_ID = 256
_LONGEST_SEGMENT = 100
_YEARS = range(1990, 2101)
_MILLISECONDS_FROM = 1e11
_SHOWN = 60


class Finding(NamedTuple):
    """One defect of a row; see `eval.cases.defects.DEFECTS`."""

    kind: str
    field: str
    what: str


class RowReader:
    """Reads the fields of one row and keeps the account of what is wrong."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = values
        self.findings: list[Finding] = []

    def fault(self, kind: str, field: str, what: str) -> None:
        """Note a defect."""
        self.findings.append(Finding(kind, field, what))

    def case_id(self) -> str | None:
        """Return the id of the case; None if it has none that can be used."""
        if self._values.get("case_id") in (None, ""):
            self.fault("case-id-missing", "case_id", "missing")
            return None
        return self._identifier("case_id", self._values["case_id"], "case-id-type", "case-id-long")

    def user_id(self) -> str | None:
        """Return the shopper's id; blank counts as none."""
        value = self._values.get("user_id")
        if value in (None, ""):
            return None
        return self._identifier("user_id", value, "user-id-type", "user-id-long")

    def query(self) -> str | None:
        """Return the query."""
        value = self._values.get("query")
        if value is None:
            return None
        if not isinstance(value, str) or not _storable(value):
            self.fault("query-type", "query", f"not text: {_shown(value)}")
            return None
        text = value.strip()
        if is_blank(text):
            self.fault("query-blank", "query", "blank")
        if len(text) > LONGEST_QUERY:
            self.fault("query-long", "query", f"{len(text)} characters")
        return text

    def at(self) -> datetime | None:
        """Return the moment of the case."""
        value = self._values.get("at")
        return None if value is None else self._moment("at", value, note_zone=True)

    def history(self) -> tuple[str, ...]:
        """Return what was chosen before."""
        return self._identifiers("history", "history-type", "history-entry") or ()

    def history_at(self, history: tuple[str, ...]) -> tuple[datetime, ...] | None:
        """Return the times of the history; None without any."""
        values = self._values.get("history_at")
        if values is None:
            return None
        if not isinstance(values, list | tuple):
            self.fault("history-at-type", "history_at", f"not a list: {_shown(values)}")
            return None
        before = len(self.findings)
        times = [self._moment(f"history_at[{n}]", v) for n, v in enumerate(values)]
        moments = tuple(moment for moment in times if moment is not None)
        if len(self.findings) > before:
            return None
        if len(moments) != len(history):
            what = f"{len(moments)} times for {len(history)} entries of history"
            self.fault("history-at-length", "history_at", what)
        elif list(moments) != sorted(moments):
            self.fault("history-at-order", "history_at", "a time is before the one in front of it")
        return moments

    def candidates(self) -> tuple[str, ...] | None:
        """Return the candidates; None for the whole catalogue."""
        ids = self._identifiers("candidates", "candidates-type", "candidates-entry")
        if ids is None:
            return None
        if not self._values["candidates"]:
            self.fault("candidates-empty", "candidates", "an empty list")
        seen: set[str] = set()
        for number, product_id in enumerate(ids):
            if product_id in seen:
                what = f"{_shown(product_id)} comes twice"
                self.fault("candidates-twice", f"candidates[{number}]", what)
            seen.add(product_id)
        if len(ids) == 1:
            self.fault("candidates-one", "candidates", "only one candidate")
        return ids

    def targets(self) -> tuple[Target, ...]:
        """Return the targets of ``targets`` or ``target``."""
        one, several = self._values.get("target"), self._values.get("targets")
        if one is not None and several is not None:
            self.fault("targets-both", "target", "target and targets are both given")
            return ()
        field = "target" if several is None else "targets"
        values = several if several is not None else [] if one in (None, "") else [one]
        if not isinstance(values, list | tuple):
            self.fault("targets-type", "targets", f"not a list: {_shown(values)}")
            return ()
        before = len(self.findings)
        found = [
            self._target(field if field == "target" else f"targets[{number}]", value)
            for number, value in enumerate(values)
        ]
        targets = tuple(target for target in found if target is not None)
        seen: set[str] = set()
        for target in targets:
            if target.product_id in seen:
                self.fault("target-twice", field, f"{_shown(target.product_id)} comes twice")
            seen.add(target.product_id)
        if len(self.findings) == before and not any(target.grade for target in targets):
            self.fault("targets-none", field, "no target with a grade above 0")
        return targets

    def segments(self) -> tuple[str, ...]:
        """Return the segments, each once."""
        values = self._values.get("segments")
        if values is None:
            return ()
        if not isinstance(values, list | tuple):
            self.fault("segments-type", "segments", f"not a list: {_shown(values)}")
            return ()
        names = []
        for number, value in enumerate(values):
            name = value.strip() if isinstance(value, str) and _storable(value) else ""
            if not 1 <= len(name) <= _LONGEST_SEGMENT:
                self.fault("segments-entry", f"segments[{number}]", f"{_shown(value)}")
            names.append(name)
        return tuple(dict.fromkeys(names))

    def _target(self, field: str, value: Any) -> Target | None:
        if isinstance(value, list):  # a map of Parquet comes as pairs
            value = _pairs(value)
        if not isinstance(value, Mapping):
            product_id = self._identifier(field, value, "targets-entry", "targets-entry")
            return Target(product_id=product_id) if product_id else None
        if strangers := [name for name in value if name not in ("product_id", "grade")]:
            self.fault("target-field-unknown", field, f"unknown field {_shown(strangers[0])}")
            return None
        if value.get("product_id") in (None, ""):
            self.fault("target-id-missing", field, "no product_id")
            return None
        product_id = self._identifier(field, value["product_id"], "targets-entry", "targets-entry")
        grade = self._grade(field, value.get("grade", 1))
        if product_id is None or grade is None:
            return None
        return Target(product_id=product_id, grade=grade)

    def _grade(self, field: str, value: Any) -> int | None:
        whole = isinstance(value, int | float) and not isinstance(value, bool)
        if not whole or value != value or value in (float("inf"), float("-inf")):
            self.fault("grade-type", field, f"grade {_shown(value)}")
        elif value != int(value):
            self.fault("grade-type", field, f"grade {_shown(value)} is not whole")
        elif value < 0:
            self.fault("grade-negative", field, f"grade {_shown(value)}")
        elif value > HIGHEST_GRADE:
            self.fault("grade-high", field, f"grade {_shown(value)}")
        else:
            return int(value)
        return None

    def _identifiers(self, field: str, type_kind: str, entry_kind: str) -> tuple[str, ...] | None:
        values = self._values.get(field)
        if values is None:
            return None
        if not isinstance(values, list | tuple):
            self.fault(type_kind, field, f"not a list: {_shown(values)}")
            return None
        found = [
            self._identifier(f"{field}[{number}]", value, entry_kind, entry_kind)
            for number, value in enumerate(values)
        ]
        return tuple(each for each in found if each is not None)

    def _identifier(self, field: str, value: Any, type_kind: str, long_kind: str) -> str | None:
        if isinstance(value, bool) or not isinstance(value, str | int):
            self.fault(type_kind, field, f"neither text nor a whole number: {_shown(value)}")
            return None
        try:
            text = str(value).strip()
        except ValueError:  # a whole number of thousands of digits
            text = "9" * (_LONGEST_ID + 1)
        if not text or not _storable(text):
            self.fault(type_kind, field, f"blank, or not unicode text: {_shown(value)}")
            return None
        if len(text) > _LONGEST_ID:
            self.fault(long_kind, field, f"{len(text)} characters")
            return None
        return text

    def _moment(self, field: str, value: Any, *, note_zone: bool = False) -> datetime | None:
        """Read a time; all faults of times have the same kinds, whatever the field."""
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime.combine(value, time())
        if isinstance(value, bool) or not isinstance(value, str | int | float | datetime):
            self.fault("at-type", field, f"not a time: {_shown(value)}")
            return None
        try:
            moment = _parsed(value)
        except (ValueError, OverflowError, OSError):
            self.fault("at-unreadable", field, f"not a time: {_shown(value)}")
            return None
        if moment.year not in _YEARS:
            self.fault("at-out-of-range", field, f"year {moment.year}")
            return None
        if moment.tzinfo is None:
            if note_zone:
                self.fault("at-no-zone", field, "a time without a zone")
            return moment.replace(tzinfo=UTC)
        return moment


def moment_of(epoch: float) -> datetime:
    """Return the moment of epoch seconds, or milliseconds where they are that many.

    Raises:
        ValueError, OverflowError, OSError: the number is no time.
    """
    seconds = epoch / 1000 if abs(epoch) >= _MILLISECONDS_FROM else epoch
    return datetime.fromtimestamp(seconds, UTC)


def _parsed(value: str | float | datetime) -> datetime:
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        return datetime.fromisoformat(value.strip())
    return moment_of(value)


def _pairs(value: list[Any]) -> Any:
    try:
        return dict(value)
    except (TypeError, ValueError):
        return value


def _storable(text: str) -> bool:
    """Tell whether a text can be written: JSON can spell half a character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
