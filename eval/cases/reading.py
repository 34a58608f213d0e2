"""Read a cases file and check every row of it; write one."""

from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from eval.cases.defects import DEFECTS, Defect
from eval.cases.fields import RowReader
from eval.cases.values import Case
from reranker.errors import DataError
from reranker.schema import Value
from retrieval.catalogue_files import Record, header, records
from retrieval.files import expand, is_zipped, kind, replacing
from retrieval.imports import Writable

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
COLUMNS = frozenset({*Case.model_fields, "target"})
_REPORT_EVERY = 2000


class CaseFile(Value):
    """A cases file as it was read.

    Attributes:
        rows: in the file; each is a case or was rejected.
        rejected: rows with an error, which are in no figure.
        defects: the first errors and notes, by row.
        counts: of each kind of defect, the number of rows that have it.
        ignored_columns: that no field takes.
        fingerprint: of the content of the file.
    """

    file: Writable
    cases: tuple[Case, ...]
    rows: int
    rejected: int
    defects: tuple[Defect, ...]
    counts: Mapping[str, int]
    ignored_columns: tuple[Writable, ...]
    fingerprint: str

    def described(self, most: int = 5) -> str:
        """Return the first errors in words, one a line."""
        errors = [defect for defect in self.defects if defect.severity == "error"]
        lines = [f"row {d.row}, {d.field}: {d.reason}" for d in errors[:most]]
        return "\n".join(lines)


class RejectedCases(DataError):  # noqa: N818 - it says what happened
    """More rows of a cases file are unusable than was allowed.

    Attributes:
        report: on the file, with the defects of its rows.
    """

    def __init__(self, message: str, report: CaseFile) -> None:
        super().__init__(message)
        self.report = report


def read_cases(
    path: Path,
    known: Container[str] | None = None,
    *,
    max_rejected: float = 0.0,
    most_defects: int = 1000,
    progress: Callable[[int], None] | None = None,
) -> CaseFile:
    """Read and check a cases file; see `eval.cases.values` for its form.

    Args:
        path: Parquet, JSONL or JSONL.gz.
        known: ids of the products file, to check against; None checks nothing.
        max_rejected: share of rows, 0 to 1, with an error that is tolerated; they are left out and
            counted. Leaving rows out changes what is measured, so that none is the default.
        most_defects: that are kept with their row; all are counted.
        progress: called with the number of rows read.

    Raises:
        DataError: the file cannot be read, or it has neither rows nor the column case_id.
        RejectedCases: more rows than allowed have an error.
    """
    (path,) = expand([path], SUFFIXES)
    ignored = _unused_columns(path)
    reading = _Reading(path, known, most_defects)
    for record in _records(path):
        reading.take(record)
        ignored.update(dict.fromkeys(name for name in record.values if name not in COLUMNS))
        if progress is not None and reading.rows % _REPORT_EVERY == 0:
            progress(reading.rows)
    if progress is not None:
        progress(reading.rows)
    if not reading.rows:
        raise DataError(f"{path}: no rows; write one case a row")
    report = CaseFile(
        file=path.name,
        cases=tuple(reading.cases),
        rows=reading.rows,
        rejected=reading.rejected,
        defects=tuple(reading.defects),
        counts=dict(sorted(reading.counts.items())),
        ignored_columns=tuple(map(str, ignored)),
        fingerprint=fingerprint(path),
    )
    if not report.cases or reading.rejected / reading.rows > max_rejected:
        raise RejectedCases(
            f"{path}: {reading.rejected} of {reading.rows} rows cannot be used; correct them, or "
            f"leave them out by --max-rejected; the first:\n{report.described()}",
            report,
        )
    return report


def write_cases(path: Path, cases: Iterable[Case]) -> int:
    """Write cases in the form that `read_cases` reads, whole or not at all; return their number.

    Raises:
        DataError: the file's ending is not .jsonl or .parquet.
    """
    if kind(path, SUFFIXES) not in (".jsonl", ".parquet") or is_zipped(path):
        raise DataError(f"{path}: cases are written as .jsonl or .parquet")
    rows = [case.model_dump(mode="json") for case in cases]
    with replacing(path, private=True) as temporary:
        if kind(path, SUFFIXES) == ".parquet":
            _write_parquet(temporary, rows)
        else:
            _write_jsonl(temporary, rows)
    return len(rows)


def fingerprint(path: Path) -> str:
    """Return a hash of a file's content."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


class _Reading:
    """The rows of a file as cases, and the account of them."""

    def __init__(self, path: Path, known: Container[str] | None, most_defects: int) -> None:
        self._file = path.name
        self._known = known
        self._most = most_defects
        self._first_row: dict[str, int] = {}
        self.rows = 0
        self.rejected = 0
        self.cases: list[Case] = []
        self.defects: list[Defect] = []
        self.counts: Counter[str] = Counter()

    def take(self, record: Record) -> None:
        self.rows += 1
        row = RowReader(record.values)
        case = self._case(row, record)
        found = row.findings
        case_id = record.values.get("case_id")
        self.counts.update({finding.kind for finding in found})
        for finding in found[: max(self._most - len(self.defects), 0)]:
            self.defects.append(
                Defect(
                    file=self._file,
                    row=record.row,
                    field=finding.field,
                    reason=f"{finding.what}; {DEFECTS[finding.kind].remedy}",
                    kind=finding.kind,
                    case_id=case_id if isinstance(case_id, str) else None,
                )
            )
        if case is None or any(DEFECTS[finding.kind].severity == "error" for finding in found):
            self.rejected += 1
        else:
            self.cases.append(case)

    def _case(self, row: RowReader, record: Record) -> Case | None:
        if record.fault is not None:
            row.fault("unreadable", "row", record.fault)
            return None
        history = row.history()
        fields: dict[str, Any] = {
            "case_id": row.case_id(),
            "user_id": row.user_id(),
            "query": row.query(),
            "at": row.at(),
            "history": history,
            "history_at": row.history_at(history),
            "candidates": row.candidates(),
            "targets": row.targets(),
            "segments": row.segments(),
        }
        self._check_once(row, record, fields["case_id"])
        if any(DEFECTS[finding.kind].severity == "error" for finding in row.findings):
            return None
        case = Case(**fields)
        self._look_up(row, case)
        return case

    def _check_once(self, row: RowReader, record: Record, case_id: str | None) -> None:
        if case_id is None:
            return
        first = self._first_row.setdefault(case_id, record.row)
        if first != record.row:
            row.fault("case-id-twice", "case_id", f"{case_id[:60]!r} is the id of row {first}")

    def _look_up(self, row: RowReader, case: Case) -> None:
        """Compare the parts of a case with each other and with the products."""
        targets = sorted(case.relevant)
        if case.candidates is not None:
            given = set(case.candidates)
            for target in (each for each in targets if each not in given):
                row.fault("target-not-candidate", "targets", f"{target!r} is no candidate")
        if case.at is not None and case.history_at is not None:
            late = sum(moment >= case.at for moment in case.history_at)
            if late:
                row.fault("history-at-late", "history_at", f"{late} entries at or after the case")
        for kind_of_defect, field, ids in (
            ("candidates-unknown", "candidates", case.candidates or ()),
            ("history-unknown", "history", case.history),
            ("target-unknown", "targets", targets),
        ):
            strangers = [] if self._known is None else [i for i in ids if i not in self._known]
            if strangers:
                what = f"{len(strangers)} not in the products file, such as {strangers[0][:60]!r}"
                row.fault(kind_of_defect, field, what)


def _records(path: Path) -> Iterator[Record]:
    try:
        yield from records(path, COLUMNS)
    except (ValueError, OverflowError) as error:  # a column of values that Python cannot hold
        raise DataError(f"{path}: holds a value that cannot be read: {error}") from error


def _unused_columns(path: Path) -> dict[str, None]:
    names = header(path)
    if names is None:
        return {}
    if "case_id" not in names:
        found = ", ".join(names)
        raise DataError(f"{path}: no column case_id; the columns are {found}")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DataError(f"{path}: column {twice[0]!r} comes twice; rename or remove one of them")
    return dict.fromkeys(name for name in names if name not in COLUMNS)


def _write_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    import json

    with path.open("w", encoding="utf-8") as target:
        target.writelines(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows)


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.list_(pa.string())
    schema = pa.schema(
        {
            "case_id": pa.string(),
            "user_id": pa.string(),
            "query": pa.string(),
            "at": pa.string(),
            "history": texts,
            "history_at": texts,
            "candidates": texts,
            "targets": pa.list_(pa.struct({"product_id": pa.string(), "grade": pa.int32()})),
            "segments": texts,
        }
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
