"""Learning curves: how well runs ranked their held-back lists, by the lists that they had seen."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from reranker.errors import DataError
from reranker.schema import Value
from reranker.training.record import RECORD_FILE, read_record

_WIDTH, _HEIGHT, _PAD = 640, 360, 48
_COLOURS = ("#1f6feb", "#d1242f", "#1a7f37", "#8250df", "#bf8700", "#57606a")
_GRID = 4
_STEP = 0.2
"""Between the lines of the values, which lie between 0 and 1."""


class Point(Value):
    """One validation.

    Attributes:
        seen: lists seen before it.
        value: of the measure.
        seconds: of computing until then.
    """

    seen: int
    value: float
    seconds: float


def read_curve(run: Path, measure: str = "nDCG@10") -> tuple[Point, ...]:
    """Return the validations of a run, the earliest first.

    Args:
        run: folder of the run.
        measure: ``nDCG@1``, ``nDCG@5`` or ``nDCG@10``.

    Raises:
        DataError: it is no folder of a run, or has none with this measure.
    """
    events = [line for line in read_record(run) if line["kind"] == "validation"]
    found = [line for line in events if measure in line]
    if not found:
        raise DataError(f"{run / RECORD_FILE}: there is no validation with {measure} in it")
    try:
        return tuple(
            Point(seen=line["seen"], value=line[measure], seconds=line["seconds"]) for line in found
        )
    except (KeyError, ValueError) as error:
        message = f"{run / RECORD_FILE}: a validation without lists seen, seconds or value: {error}"
        raise DataError(message) from error


def draw(curves: Mapping[str, Sequence[Point]], measure: str) -> str:
    """Return an SVG picture of curves by name, with a legend."""
    points = [point for curve in curves.values() for point in curve]
    most = max(point.seen for point in points) or 1
    lines = max(math.ceil(max(point.value for point in points) / _STEP), 1)
    high = lines * _STEP

    def x(seen: float) -> float:
        return _PAD + (_WIDTH - 2 * _PAD) * seen / most

    def y(value: float) -> float:
        return _HEIGHT - _PAD - (_HEIGHT - 2 * _PAD) * value / high

    parts = []
    for value in (_STEP * number for number in range(lines + 1)):
        parts += [
            f'<line x1="{_PAD}" x2="{_WIDTH - _PAD}" y1="{y(value):.1f}" y2="{y(value):.1f}" '
            'stroke="#d0d7de"/>',
            f'<text x="{_PAD - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:.1f}</text>',
        ]
    for seen in (most * number / _GRID for number in range(_GRID + 1)):
        parts.append(
            f'<text x="{x(seen):.1f}" y="{_HEIGHT - _PAD + 18}" text-anchor="middle">'
            f"{seen:,.0f}</text>"
        )
    for number, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x(point.seen):.1f},{y(point.value):.1f}" for point in curve)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{x(point.seen):.1f}" cy="{y(point.value):.1f}" r="3" fill="{colour}">'
            f"<title>{escape(name)}, {point.seen:,} lists: {point.value:.3f}</title></circle>"
            for point in curve
        ]
        height = _PAD + 8 + 18 * number
        parts.append(
            f'<text x="{_PAD + 12}" y="{height}" fill="{colour}" font-weight="bold">'
            f"{escape(name)}</text>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12" fill="#57606a" role="img">'
        f"<title>{escape(measure)} on held-back lists</title>"
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>{"".join(parts)}'
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 8}" text-anchor="middle">lists seen</text>'
        f'<text transform="translate(14 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(measure)}</text></svg>\n"
    )
