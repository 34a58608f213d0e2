"""Segments: the groups of cases that are reported apart."""

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from eval.cases.values import Case
from eval.past.counts import Past
from eval.run.figures import Measured, figure
from eval.run.results import SegmentFigure
from retrieval.product_table import ProductTable

Name = TypeVar("Name", bound=Hashable)

_FEW = 4
_LEAST_REPEATED = 2

Segments = Mapping[str, Mapping[str, Sequence[int]]]
"""Group of segments to segment to the numbers of its cases."""


def segments_of(cases: Sequence[Case], past: Past, table: ProductTable) -> Segments:
    """Divide cases by shopper, by whether the answer is a repeat, by query, and by the file.

    A group that does not divide the cases is left out. Head queries (and head products) are the
    most frequent (most bought) that make up half of all; queries are divided only where some come
    more than once.
    """
    groups: dict[str, dict[str, list[int]]] = {}
    for number, case in enumerate(cases):
        for group, segment in _of_one(case):
            groups.setdefault(group, {}).setdefault(segment, []).append(number)
    groups["query"] = _by_query(cases)
    groups["product"] = _by_product(cases, past, table)
    filled = {
        group: {segment: rows for segment, rows in sorted(segments.items()) if rows}
        for group, segments in groups.items()
    }
    return {
        group: segments
        for group, segments in filled.items()
        if len(segments) > 1 or (segments and group == "file")
    }


def segment_figures(
    measured: Measured, ranker: str, segments: Segments
) -> tuple[SegmentFigure, ...]:
    """Return the deciding measure of a ranker on every segment."""
    values = measured.values[measured.deciding][ranker]
    return tuple(
        SegmentFigure(
            group=group,
            segment=segment,
            figure=figure(measured.deciding, values[rows], measured.units[rows]),
        )
        for group, named in segments.items()
        for segment, rows in ((name, np.asarray(numbers)) for name, numbers in named.items())
    )


def _of_one(case: Case) -> Iterator[tuple[str, str]]:
    count = len(case.history)
    if not count:
        yield "shopper", "new: no history"
    elif count <= _FEW:
        yield "shopper", f"returning: 1 to {_FEW} choices"
    else:
        yield "shopper", f"returning: {_FEW + 1} or more choices"
    if case.relevant:
        repeat = not case.relevant.isdisjoint(case.history)
        yield "answer", "in the shopper's history" if repeat else "new to the shopper"
    for segment in case.segments:
        yield "file", segment


def _by_query(cases: Sequence[Case]) -> dict[str, list[int]]:
    asked = {n: case.query.casefold() for n, case in enumerate(cases) if case.query is not None}
    counts = Counter(asked.values())
    if not counts or counts.most_common(1)[0][1] < _LEAST_REPEATED:
        return {}
    head = _head(dict(counts))
    return {
        "head queries": [n for n, query in asked.items() if query in head],
        "tail queries": [n for n, query in asked.items() if query not in head],
    }


def _by_product(cases: Sequence[Case], past: Past, table: ProductTable) -> dict[str, list[int]]:
    """Divide by whether a target is among the products that make up half of all purchases."""
    popular = past.popularity
    head = _head({row: float(popular[row]) for row in np.flatnonzero(popular).tolist()})
    found: dict[str, list[int]] = {"head products": [], "tail products": []}
    for number, case in enumerate(cases):
        if case.relevant:
            rows = table.rows_of_ids(sorted(case.relevant)).tolist()
            name = "head products" if any(row in head for row in rows) else "tail products"
            found[name].append(number)
    return {name: numbers for name, numbers in found.items() if numbers}


def _head(counts: Mapping[Name, float]) -> set[Name]:
    """Return the most frequent names that make up half of all."""
    half, total, head = sum(counts.values()) / 2, 0.0, set()
    # Of equally frequent ones the name decides, so that the parts are the same in every run.
    for name, count in sorted(counts.items(), key=lambda entry: (-entry[1], str(entry[0]))):
        if total >= half:
            break
        total += count
        head.add(name)
    return head
