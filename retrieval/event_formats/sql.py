"""Pieces of SQL that all event formats are built from."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from retrieval.files import is_zipped

EVENT_SUFFIXES = (
    *(".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz", ".parquet"),
    *(".ndjson", ".ndjson.gz", ".json", ".json.gz"),
)
"""Endings of event files, in any case. JSON holds one document, a list, or a search response."""
FLOATS = frozenset({"FLOAT", "DOUBLE"})
"""DuckDB's types of numbers with a fraction."""
SPACES = " \t\n\r"
"""What is trimmed from the texts of an import."""
_UNIT_SEPARATOR = "\x1f"
_BASIC_FORMS = (
    (r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)", r"\1-\2-\3T\4:\5:\6"),
    (r"^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)", r"\1-\2-\3T\4:\5"),
)
"""The forms of ISO 8601 that DuckDB does not read, and the form of each that it does."""
_MAGIC = re.compile(r"[*?\[]")


def literal(text: str | Path) -> str:
    """Return a text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def source(path: Path) -> str:
    """Return a path as an SQL literal for DuckDB's readers, which take every path for a pattern."""
    return literal(_MAGIC.sub(r"[\g<0>]", str(path)))


def quoted(name: str) -> str:
    """Return a name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def trimmed(text: str) -> str:
    """Return the SQL of a text without the white space around it; NULL where nothing is left."""
    # Trimming all is slower than the sort: only what begins or ends with white space is.
    ragged = f"{text} < '!' OR {text}[-1] <= ' '"
    return f"CASE WHEN {ragged} THEN nullif(trim({text}, {literal(SPACES)}), '') ELSE {text} END"


def as_text(column: str, kind: str) -> str:
    """Return the SQL of a value as trimmed text; NULL where there is none.

    Args:
        column: SQL of the value.
        kind: its DuckDB type.
    """
    if kind == "VARCHAR":
        return trimmed(column)
    if kind in FLOATS:
        # pandas makes floats of whole numbers as soon as one is missing, and NaN of the missing.
        whole = f"TRY_CAST(TRY_CAST({column} AS BIGINT) AS VARCHAR)"
        return f"""CASE WHEN isnan({column}) THEN NULL WHEN {column} = trunc({column})
            THEN coalesce({whole}, {column}::VARCHAR) ELSE {column}::VARCHAR END"""
    return f"CAST({column} AS VARCHAR)"


def timestamp(text: str) -> str:
    """Return the SQL of a time in ISO 8601, with a zone or in UTC; NULL where a text is none."""
    extended = text
    for form, written in _BASIC_FORMS:
        extended = f"regexp_replace({extended}, {literal(form)}, {literal(written)})"
    return f"coalesce(TRY_CAST({text} AS TIMESTAMPTZ), TRY_CAST({extended} AS TIMESTAMPTZ))"


def text_source(path: Path) -> str:
    """Return the first arguments of ``read_csv``, which would go by the suffix in lower case."""
    compression = "gzip" if is_zipped(path) else "none"
    return f"{source(path)}, compression = '{compression}', auto_detect = false"


def lines(path: Path) -> str:
    """Return the relation of the lines of a text file, one column ``line``, in their order."""
    # One column split by a character that JSON never holds as it is: a line comes whole.
    return f"""read_csv({text_source(path)}, columns = {{'line': 'VARCHAR'}},
        header = false, delim = {literal(_UNIT_SEPARATOR)}, quote = '', escape = '')"""


LINE_FAULT = """CASE WHEN coalesce(trim(line), '') = '' THEN 'blank'
    WHEN NOT json_valid(line) THEN 'not JSON' END"""
"""What is wrong with a line as such; a blank one is no row."""


class JsonFields:
    """Looks values up in a JSON column ``document``, all of them in two parses of it.

    Paths are names with dots between: ``a.b`` is b inside a, or else a key that is written a.b, as
    exports to CSV have it.
    """

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def text(self, *paths: str) -> str:
        """Return the SQL of the first of some paths that holds text, a number or a flag."""
        found = [
            f"CASE WHEN NOT {self._nested(at)} THEN {trimmed(f'v[{at}]')} END"
            for at in self._all(paths)
        ]
        return found[0] if len(found) == 1 else f"coalesce({', '.join(found)})"

    def is_nested(self, *paths: str) -> str:
        """Return the SQL that tells whether any of some paths holds an object or a list."""
        return "(" + " OR ".join(self._nested(at) for at in self._all(paths)) + ")"

    def type_of(self, path: str) -> str:
        """Return the SQL of the JSON type at a path; NULL where there is nothing."""
        return "coalesce(" + ", ".join(f"t[{at}]" for at in self._all([path])) + ")"

    def select(self, relation: str) -> str:
        """Return the relation with what was looked up; call it after the look-ups."""
        pointers = ", ".join(literal(pointer) for pointer in self._places)
        return f"""(SELECT *, json_extract_string(document, [{pointers}]) AS v,
            json_type(document, [{pointers}]) AS t FROM {relation})"""

    def _all(self, paths: Sequence[str]) -> list[int]:
        return [self._place(pointer) for path in paths for pointer in pointers_of(path)]

    def _place(self, pointer: str) -> int:
        return self._places.setdefault(pointer, len(self._places) + 1)

    @staticmethod
    def _nested(at: int) -> str:
        return f"coalesce(t[{at}] IN ('OBJECT', 'ARRAY'), false)"


def pointers_of(path: str) -> list[str]:
    """Return the JSON paths that a dotted path may mean."""
    inside = "$" + "".join(map(_step, path.split(".")))
    return [inside, pointer(path)] if "." in path else [inside]


def pointer(name: str) -> str:
    """Return the JSON path of a key, whatever characters it has."""
    return f"${_step(name)}"


def _step(name: str) -> str:
    escaped = name.replace("\\", "\\\\").replace('"', '\\"')
    return f'."{escaped}"'


def first_fault(faults: Sequence[tuple[str, str, str]]) -> str:
    """Return the SQL of two columns, ``fault_field`` and ``fault``, of (field, when, reason)."""
    field = " ".join(f"WHEN {when} THEN {literal(name)}" for name, when, _ in faults)
    reason = " ".join(f"WHEN {when} THEN {text}" for _, when, text in faults)
    return f"CASE {field} END AS fault_field, CASE {reason} END AS fault"


def entry(values: Mapping[str, str], names: Sequence[str]) -> str:
    """Return the SQL of a struct of texts with all the names, NULL where there is no value."""
    parts = ", ".join(f"{name} := CAST({values.get(name, 'NULL')} AS VARCHAR)" for name in names)
    return f"struct_pack({parts})"
