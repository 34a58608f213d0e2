"""Plots as inline SVG: no script, no font, no picture from elsewhere; colours follow the page.

Rows of intervals are drawn in percent of their width, so that their text keeps its size on a narrow
screen; the two square plots scale as a whole.
"""

from collections.abc import Sequence
from math import log
from typing import Literal, NamedTuple

from markupsafe import Markup, escape

from eval.run.results import Figure, RankChange
from eval.statistics.estimates import Estimate

Role = Literal["focus", "baseline", "other"]

_MARGIN = 0.04
_TICKS = 5
_SIZE = 400
_PAD = 46
_LONG = 30


class IntervalRow(NamedTuple):
    """One line of an interval plot; without an interval only its value is drawn."""

    name: str
    value: float
    low: float
    high: float
    role: Role = "other"
    note: str = ""


class Scale(NamedTuple):
    """What the width of a plot stands for."""

    low: float
    high: float

    @classmethod
    def around(cls, rows: Sequence[IntervalRow], *include: float) -> "Scale":
        """Return a scale that holds all rows and some values, with a margin."""
        values = [*include, *(v for row in rows for v in (row.low, row.high, row.value))]
        low, high = min(values), max(values)
        room = (high - low) * _MARGIN or 0.01
        return cls(low - room, high + room)

    def percent(self, value: float) -> float:
        """Return where a value lies, 0 to 100."""
        return 100 * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Return round values along the scale."""
        step = _round_step((self.high - self.low) / _TICKS)
        first = -(-self.low // step) * step
        count = int((self.high - first) / step) + 1
        return [first + number * step for number in range(count)]


def row_of(name: str, figure: Figure, role: Role = "other", note: str = "") -> IntervalRow | None:
    """Return the line of a figure; None where it has no value."""
    if figure.value is None:
        return None
    found = figure.estimate
    low, high = (figure.value, figure.value) if found is None else (found.low, found.high)
    return IntervalRow(name, figure.value, low, high, role, note)


def interval_plot(
    rows: Sequence[IntervalRow],
    *,
    zero: bool = False,
    digits: int = 3,
    scale: Scale | None = None,
) -> Markup:
    """Draw values with their intervals, one a line.

    Args:
        rows: from above to below.
        zero: for differences: 0 is in sight and marked.
        digits: behind the point.
        scale: of several plots that are compared; None takes that of the rows.
    """
    if not rows:
        return Markup("")
    if scale is None:
        scale = Scale.around(rows, 0.0) if zero else Scale.around(rows)
    lines = [_interval_line(row, scale, zero=zero, digits=digits) for row in rows]
    return Markup('<div class="plot" role="list">{}{}</div>').format(
        Markup("").join(lines), _axis(scale)
    )


def scatter_plot(changes: Sequence[RankChange], baseline: str, focus: str) -> Markup:
    """Draw where the answer stands for two rankers; a disc's area is the number of cases."""
    if not changes:
        return Markup("")
    most = max(max(change.baseline, change.focus) for change in changes)
    largest = max(change.cases for change in changes)
    radius = max(min(0.5 * (_SIZE - 2 * _PAD) / max(most, 2), 16.0), 6.0)
    discs = []
    for change in changes:
        x, y = _place(change.baseline, most), _place(change.focus, most)
        better = "up" if change.focus < change.baseline else "down"
        kind = "same" if change.focus == change.baseline else better
        size = max(radius * (change.cases / largest) ** 0.5, 2.0)
        title = f"{change.cases} cases: {baseline} {change.baseline}, {focus} {change.focus}"
        discs.append(
            Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:.1f}"><title>{}</title>'
                   "</circle>").format(kind, x, y, size, title)
        )  # fmt: skip
    far = _place(most, most)
    diagonal = Markup('<line class="mark" x1="{0}" y1="{0}" x2="{1}" y2="{1}"/>').format(
        _PAD, f"{far:.1f}"
    )
    label = f"Place of the answer by {baseline} and by {focus}"
    marks = [(str(n), _place(n, most)) for n in _marked(most)]
    parts = [_frame(marks, marks, f"place by {baseline}", f"place by {focus}"), diagonal, *discs]
    return _square(label, Markup("").join(parts))


def curve_plot(points: Sequence[Estimate], label: str) -> Markup:
    """Draw a curve over places from 1, with intervals."""
    high = max([1.0, *(point.high for point in points)])
    last = max(len(points), 2)
    spots = [(_place(place, last), _height(point.value, high), point)
             for place, point in enumerate(points, 1)]  # fmt: skip
    whiskers = [
        Markup('<line class="whisker focus" x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}"/>'
               '<circle class="dot focus" cx="{0:.1f}" cy="{3:.1f}" r="4"><title>{4}</title>'
               "</circle>").format(
            x, _height(max(point.low, 0.0), high), _height(point.high, high), y,
            f"{point.measure}: {point.value:.3f} ({point.low:.3f} to {point.high:.3f})",
        )
        for x, y, point in spots
    ]  # fmt: skip
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in spots)
    line = Markup('<polyline class="curve" points="{}"/>').format(path)
    named = _marked(last) if last > _LONG else range(1, len(points) + 1)
    across = [(str(n), _place(n, last)) for n in named]
    up = [(f"{value:.1f}", _height(value, high)) for value in (0.0, 0.5, 1.0)]
    frame = _frame(across, up, "place", "examination, first place = 1")
    return _square(label, Markup("").join([frame, line, *whiskers]))


def _interval_line(row: IntervalRow, scale: Scale, *, zero: bool, digits: int) -> Markup:
    low, high = scale.percent(row.low), scale.percent(row.high)
    mark = Markup("")
    if zero:
        mark = Markup('<line class="mark" x1="{0:.2f}%" x2="{0:.2f}%" y1="0" y2="100%"/>').format(
            scale.percent(0.0)
        )
    sign = "+" if zero else ""
    value = f"{row.value:{sign}.{digits}f}"
    interval = f"{row.low:{sign}.{digits}f} to {row.high:{sign}.{digits}f}"
    return Markup(
        '<div class="line {role}" role="listitem"><span class="name">{name}</span>'
        '<svg aria-hidden="true">{mark}'
        '<line class="whisker" x1="{low:.2f}%" x2="{high:.2f}%" y1="50%" y2="50%"/>'
        '<circle class="dot" cx="{at:.2f}%" cy="50%" r="5"/></svg>'
        '<span class="value"><b>{value}</b> <small>{interval}</small>{note}</span></div>'
    ).format(
        role=row.role,
        name=row.name,
        mark=mark,
        low=low,
        high=high,
        at=scale.percent(row.value),
        value=value,
        interval=interval,
        note=Markup(' <small class="note">{}</small>').format(row.note) if row.note else "",
    )


def _axis(scale: Scale) -> Markup:
    ticks = scale.ticks()
    step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
    digits = 0 if step >= 1 else 1 if step >= 0.1 else 2 if step >= 0.01 else 3
    texts = [
        Markup('<text x="{:.2f}%" y="12">{:.{digits}f}</text>').format(
            scale.percent(tick), tick, digits=digits
        )
        for tick in ticks
        if 4 < scale.percent(tick) < 96
    ]
    return Markup(
        '<div class="line axis"><span class="name"></span><svg aria-hidden="true">{}</svg>'
        '<span class="value"></span></div>'
    ).format(Markup("").join(texts))


def _frame(
    across: Sequence[tuple[str, float]],
    up: Sequence[tuple[str, float]],
    x_label: str,
    y_label: str,
) -> Markup:
    end = _SIZE - _PAD
    texts = [
        Markup('<text x="{:.1f}" y="{}" class="tick">{}</text>').format(x, end + 18, name)
        for name, x in across
    ]
    texts += [
        Markup('<text x="{}" y="{:.1f}" class="tick end">{}</text>').format(_PAD - 8, y + 4, name)
        for name, y in up
    ]
    return Markup(
        '<rect class="frame" x="{pad}" y="{pad}" width="{side}" height="{side}"/>{texts}'
        '<text class="tick" x="{half}" y="{below}">{x_label}</text>'
        '<text class="tick" transform="translate(13 {half}) rotate(-90)">{y_label}</text>'
    ).format(
        pad=_PAD,
        side=_SIZE - 2 * _PAD,
        texts=Markup("").join(texts),
        half=_SIZE // 2,
        below=_SIZE - 8,
        x_label=x_label,
        y_label=y_label,
    )


def _square(label: str, inside: Markup) -> Markup:
    return Markup(
        '<svg class="square" viewBox="0 0 {size} {size}" role="img" aria-label="{label}">'
        "{inside}</svg>"
    ).format(size=_SIZE, label=escape(label), inside=inside)


def _place(place: int, last: int) -> float:
    """Return where a place lies; of long lists in logarithms, for the first places matter most."""
    far = log(place) / log(last) if last > _LONG else (place - 1) / max(last - 1, 1)
    return _PAD + (_SIZE - 2 * _PAD) * far


def _marked(last: int) -> list[int]:
    """Return the places that an axis names."""
    if last <= _LONG:
        return sorted({1, (last + 1) // 2, last})
    tens = [10**power for power in range(len(str(last)))]
    return [*(ten for ten in tens if ten < 0.7 * last), last]


def _height(value: float, high: float) -> float:
    return _SIZE - _PAD - (_SIZE - 2 * _PAD) * value / high


def _round_step(step: float) -> float:
    """Return the nearest of 1, 2 and 5 times a power of ten that is not below a step."""
    power = 10.0**-20
    while power * 10 <= step:
        power *= 10
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= step * 0.999)
