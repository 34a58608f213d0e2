"""No file makes the reader of cases crash: it returns cases, or an error that names the file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eval.cases import Case, CaseFile, RejectedCases, read_cases
from eval.cases.reading import COLUMNS
from eval.past import Purchases, read_purchases
from eval.report import write_json, write_page
from eval.run import Evaluation, EvaluationRequest, evaluate
from evaluation_shop import no_models, write_lines
from reranker.errors import DataError
from reranker.settings import Settings

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**30),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["a", "b", "", " ", "\ud800", "2026-03-05", "9999-12-31T23:59:59+23:59"]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.sampled_from(["product_id", "grade", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)
ROWS = st.dictionaries(st.sampled_from(sorted(COLUMNS)), VALUES, max_size=8)
FEW = Settings.load(None, {"evaluation.permutations": 100})
QUIET = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def caught(read: Callable[[], CaseFile | Purchases]) -> CaseFile | Purchases | DataError:
    try:
        return read()
    except RejectedCases as rejected:
        return rejected.report
    except DataError as error:
        return error


def check(path: Path) -> int | None:
    """Read a file as cases and as purchases; both end well or with a clean error.

    Returns:
        The number of rows that were read as cases, rejected ones included; None after an error.
    """
    cases = caught(lambda: read_cases(path, frozenset({"a", "b"}), max_rejected=1.0))
    for found in (cases, caught(lambda: read_purchases(path))):
        if isinstance(found, DataError):
            assert path.name in str(found)
        if isinstance(found, CaseFile):
            assert found.rejected + len(found.cases) == found.rows
            for case in found.cases:
                assert Case.model_validate_json(case.model_dump_json()) == case
            found.model_dump_json().encode()  # can be written, whatever the file spelt
    return cases.rows if isinstance(cases, CaseFile) else None


@QUIET
@given(rows=st.lists(ROWS, max_size=6))
def test_any_json(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    file = tmp_path / "cases.jsonl"
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    assert check(file) in {None, len(rows)}


@QUIET
@given(content=st.binary(max_size=300))
def test_any_bytes(tmp_path: Path, content: bytes) -> None:
    rows = {}
    for name in ("cases.jsonl", "cases.parquet", "cases.jsonl.gz"):
        (tmp_path / name).write_bytes(content)
        rows[name] = check(tmp_path / name)
    assert (rows["cases.jsonl"] or 0) <= len(content.splitlines()), "no row comes from nowhere"
    assert not rows["cases.parquet"]
    assert not rows["cases.jsonl.gz"]


@QUIET
@given(
    rows=st.lists(ROWS, min_size=1, max_size=3),
    start=st.integers(0, 400),
    noise=st.binary(max_size=20),
)
def test_a_damaged_file(
    tmp_path: Path, rows: list[dict[str, Any]], start: int, noise: bytes
) -> None:
    text = "".join(f"{json.dumps(row)}\n" for row in rows).encode()
    damaged = text[:start] + noise + text[start + len(noise) :]
    (tmp_path / "cases.jsonl").write_bytes(damaged)
    assert (check(tmp_path / "cases.jsonl") or 0) <= len(damaged.splitlines())


SAMPLES = (
    pa.array(["a", "b", "", "2026-03-05T10:00:00Z"]),
    pa.array(["a", "b", "a", None]).dictionary_encode(),
    pa.array([1, 0, -3, 2**62]),
    pa.array([0.5, float("nan"), None, float("inf")]),
    pa.array([True, False, None, True]),
    pa.array([b"a", b"\xff\xfe", b"", None]),
    pa.array([1, 10**18 + 7, None, -1]).cast(pa.timestamp("ns")),
    pa.array([1, 10**11, 10**14, -(10**14)]).cast(pa.timestamp("s", "UTC")),
    pa.array([1, 20_000, None, -1], pa.int32()).cast(pa.date32()),
    pa.array(["1.50", "2.00", None, "3.25"]).cast(pa.decimal128(10, 2)),
    pa.array([["a", "b"], [], None, ["b", None]]),
    pa.array([[1, 2], [3], None, []]),
    pa.array([[10**18 + 7], [10**9], None, []]).cast(pa.list_(pa.timestamp("ns", "UTC"))),
    pa.array([[{"product_id": "a", "grade": 1}], [{"product_id": None, "grade": -1}], None, []]),
    pa.array([{"product_id": "a"}, {"product_id": "b"}, None, {"product_id": ""}]),
    pa.array([[("product_id", 1)], [], None, [("x", 2)]], pa.map_(pa.string(), pa.int32())),
    pa.nulls(4),
)


@QUIET
@given(
    columns=st.dictionaries(
        st.sampled_from(sorted(COLUMNS)), st.integers(0, len(SAMPLES) - 1), min_size=1
    ),
    rows=st.lists(st.integers(0, 3), min_size=1, max_size=4),
)
def test_columns_of_any_type(tmp_path: Path, columns: dict[str, int], rows: list[int]) -> None:
    arrays = {name: SAMPLES[number].take(pa.array(rows)) for name, number in columns.items()}
    arrays.setdefault("case_id", pa.array([str(place) for place, _ in enumerate(rows)]))
    pq.write_table(pa.table(arrays), tmp_path / "cases.parquet")
    assert check(tmp_path / "cases.parquet") in {None, len(rows)}


SANE = st.fixed_dictionaries(
    {},
    optional={
        "user_id": st.sampled_from(["u", "v", "\x00", "shopper of a very long name"]),
        "query": st.text(min_size=1, max_size=12),
        "at": st.sampled_from(["1990-01-01T00:00:00Z", "2026-03-05T10:00:00+14:00", 4e9]),
        "history": st.lists(st.sampled_from(["a", "b", "gone"]), max_size=5),
        "history_at": st.lists(st.integers(10**9, 2 * 10**9), max_size=5).map(sorted),
        "candidates": st.sampled_from([None, ["a"], ["b", "a"], ["a", "b", "c"]]),
        "targets": st.lists(
            st.builds(
                lambda product, grade: {"product_id": product, "grade": grade},
                st.sampled_from(["a", "c", "gone"]),
                st.sampled_from([0, 1, 3, 1000]),
            ),
            max_size=2,
        ),
        "segments": st.lists(st.text(max_size=5), max_size=2),
    },
)


def evaluated(request: EvaluationRequest) -> Evaluation | DataError:
    try:
        return evaluate(request, FEW, no_models(FEW))
    except DataError as error:
        return error


@settings(QUIET, max_examples=40)
@given(rows=st.lists(SANE, min_size=1, max_size=5))
def test_whatever_is_read_is_evaluated_and_reported(
    tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    products = write_lines(
        tmp_path / "p.jsonl", [{"product_id": each, "title": f"Mug {each}"} for each in "abc"]
    )
    cases = write_lines(tmp_path / "c.jsonl", [{"case_id": n, **row} for n, row in enumerate(rows)])
    request = EvaluationRequest(
        products=products,
        cases=cases,
        histories=cases,
        rankers=("own-history", "interest", "cooccurrence", "transitions", "random"),
        max_rejected=1.0,
        proof_cases=2,
        work=tmp_path / "work",
        fresh=True,
    )
    result = evaluated(request)
    if isinstance(result, DataError):
        assert "c.jsonl" in str(result)
        return
    write_page(result, tmp_path / "page.html")
    write_json(result, tmp_path / "result.json")
    assert Evaluation.model_validate_json((tmp_path / "result.json").read_bytes()) == result
