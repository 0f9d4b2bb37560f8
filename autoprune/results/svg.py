"""Static plots as SVG text: linear axes, points, lines, bars and a legend; the same input gives the same bytes.

A picture carries its own ground and colours for light and dark (``prefers-color-scheme``), so it can be read on any
page. Colours are those of Okabe and Ito 2008, and each kind of point has a shape of its own. Numbers are written with
at most two decimals; every text is escaped, and text of users has no control characters left.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Literal

from autoprune.results.formats import number, plain

Shape = Literal["circle", "ring", "cross", "diamond", "square", "triangle"]
Tone = Literal["blue", "orange", "green", "vermilion", "sky", "grey"]

_LIGHT = {"blue": "#0072b2", "orange": "#b87700", "green": "#007a5a", "vermilion": "#c44f00", "sky": "#2f86b8"}
_DARK = {"blue": "#56b4e9", "orange": "#e69f00", "green": "#2fc79a", "vermilion": "#ff8a45", "sky": "#9bd3f5"}
_CHAR = 6.3  # mean width of a character at 11 px, a little on the safe side
_MARGIN = {"left": 58.0, "right": 18.0, "top": 44.0, "bottom": 44.0}


@dataclass(frozen=True)
class Points:
    """A group of points that the legend names.

    Attributes:
        name: In the legend; empty: not there.
        xs: Horizontal values.
        ys: Vertical values.
        tone: Colour.
        shape: Of each point.
        titles: What a pointer that rests on a point is told; empty or one each.
        low: Left ends of horizontal error bars; empty or one each.
        high: Right ends.
    """

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    tone: Tone
    shape: Shape
    titles: Sequence[str] = ()
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Line:
    """A line through values; ``step`` draws a staircase: across, then up or down."""

    xs: Sequence[float]
    ys: Sequence[float]
    tone: Tone
    step: bool = False
    name: str = ""
    dashed: bool = False


@dataclass(frozen=True)
class Label:
    """A text beside a place."""

    x: float
    y: float
    text: str
    above: bool = False


@dataclass(frozen=True)
class Chart:
    """A plot with two linear axes.

    Attributes:
        title: What it shows, for those who do not see it.
        x_title: Under the horizontal axis.
        y_title: Over the vertical axis.
        points: Groups of points, drawn in order, the last on top.
        lines: Under the points.
        labels: On top.
        width: Pixels.
        height: Pixels.
        from_zero: Whether the vertical axis starts at 0.
    """

    title: str
    x_title: str
    y_title: str
    points: Sequence[Points] = ()
    lines: Sequence[Line] = ()
    labels: Sequence[Label] = ()
    width: int = 640
    height: int = 380
    from_zero: bool = False


@dataclass(frozen=True)
class Bars:
    """Horizontal bars in groups, one group a row, each bar a share from 0 to 1.

    Attributes:
        title: What it shows.
        rows: Name of each row.
        series: Name and one value per row, None where there is none.
        width: Pixels.
    """

    title: str
    rows: Sequence[str]
    series: Sequence[tuple[str, Tone, Sequence[float | None]]]
    width: int = 640


@dataclass(frozen=True)
class _Scale:
    """From values to pixels along one axis."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...] = field(default=())

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def draw(chart: Chart) -> str:
    """Return the chart as an SVG document."""
    xs = [*_finite(group.xs for group in chart.points), *_finite(line.xs for line in chart.lines)]
    xs += [*_finite(group.low for group in chart.points), *_finite(group.high for group in chart.points)]
    ys = [*_finite(group.ys for group in chart.points), *_finite(line.ys for line in chart.lines)]
    right, bottom = chart.width - _MARGIN["right"], chart.height - _MARGIN["bottom"]
    legend, top = _legend(
        [(p.name, p.tone, p.shape) for p in chart.points if p.name]
        + [(line.name, line.tone, "line") for line in chart.lines if line.name],
        chart.width,
    )
    y = _scale([0.0, *ys] if chart.from_zero else ys, bottom, top, 6)
    left = max(_MARGIN["left"], 22 + _CHAR * max(len(_tick(value, y.ticks)) for value in y.ticks))
    x = _scale(xs, left, right, max(3, int((right - left) // 80)))
    body = [legend, _axes(chart, x, y)]
    body += [_line(line, x, y) for line in chart.lines]
    body += [_points(group, x, y) for group in chart.points]
    body += [_label(label, x, y, chart.width) for label in chart.labels]
    return _document(chart.title, chart.width, chart.height, "\n".join(part for part in body if part))


def draw_bars(bars: Bars) -> str:
    """Return horizontal bars as an SVG document."""
    legend, top = _legend([(name, tone, "square") for name, tone, _ in bars.series if name], bars.width)
    thick = 7.0
    pitch = thick * len(bars.series) + 7
    left = min(230.0, 16 + _CHAR * max((len(plain(name, 34)) for name in bars.rows), default=0))
    right, bottom = bars.width - 24.0, top + pitch * len(bars.rows)
    x = _Scale(0.0, 1.0, left, right, (0.0, 0.25, 0.5, 0.75, 1.0))
    out = [legend]
    for tick in x.ticks:
        at = _n(x(tick))
        out.append(f'<path class="grid" d="M{at} {_n(top - 4)}V{_n(bottom)}"/>')
        out.append(f'<text x="{at}" y="{_n(bottom + 16)}" text-anchor="middle">{tick:.0%}</text>')
    for i, name in enumerate(bars.rows):
        start = top + i * pitch
        middle = start + thick * len(bars.series) / 2 + 4
        out.append(f'<text x="{_n(left - 8)}" y="{_n(middle)}" text-anchor="end">{_text(name, 34)}</text>')
        for j, (_, tone, values) in enumerate(bars.series):
            value = values[i]
            if value is not None:
                width = max(x(min(max(value, 0.0), 1.0)) - left, 0.5)
                where = f'x="{_n(left)}" y="{_n(start + j * thick)}" width="{_n(width)}" height="{_n(thick - 1)}"'
                out.append(f'<rect class="{tone} fill" {where}><title>{_text(name)}: {value:.0%}</title></rect>')
    return _document(bars.title, bars.width, math.ceil(bottom + 28), "\n".join(part for part in out if part))


def _document(title: str, width: int, height: int, body: str) -> str:
    light = "".join(f".{tone}{{--c:{color}}}" for tone, color in _LIGHT.items())
    dark = "".join(f".{tone}{{--c:{color}}}" for tone, color in _DARK.items())
    style = (
        "text{font:11px system-ui,sans-serif;fill:var(--t)}.ground{fill:var(--g)}.grid{stroke:var(--l);fill:none}"
        ".axis{stroke:var(--m);fill:none}.strong{font-weight:600}.line{stroke:var(--c);stroke-width:1.8;fill:none}"
        ".fill{fill:var(--c)}.open{fill:none;stroke:var(--c);stroke-width:1.4}.halo{stroke:var(--g);stroke-width:3;"
        "paint-order:stroke;stroke-linejoin:round}"
        f"svg{{--g:#fff;--t:#1b1f24;--m:#5b6570;--l:#e3e6ea}}{light}.grey{{--c:#767f89}}"
        f"@media(prefers-color-scheme:dark){{svg{{--g:#15181c;--t:#e6e8eb;--m:#9aa3ad;--l:#2f363e}}{dark}"
        ".grey{--c:#98a1ab}}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-label="{_text(title)}">\n<title>{_text(title)}</title>\n<style>{style}</style>\n'
        f'<rect class="ground" width="{width}" height="{height}" rx="6"/>\n{body}\n</svg>\n'
    )


def _axes(chart: Chart, x: _Scale, y: _Scale) -> str:
    out = []
    for tick in y.ticks:
        at = _n(y(tick))
        out.append(f'<path class="grid" d="M{_n(x.start)} {at}H{_n(x.end)}"/>')
        label = _tick(tick, y.ticks)
        out.append(f'<text x="{_n(x.start - 7)}" y="{_n(y(tick) + 4)}" text-anchor="end">{label}</text>')
    for tick in x.ticks:
        at = _n(x(tick))
        out.append(f'<path class="grid" d="M{at} {_n(y.end)}V{_n(y.start)}"/>')
        out.append(f'<text x="{at}" y="{_n(y.start + 16)}" text-anchor="middle">{_tick(tick, x.ticks)}</text>')
    out.append(f'<path class="axis" d="M{_n(x.start)} {_n(y.end)}V{_n(y.start)}H{_n(x.end)}"/>')
    middle, height = (x.start + x.end) / 2, chart.height
    out.append(f'<text x="{_n(middle)}" y="{height - 9}" text-anchor="middle">{_text(chart.x_title)}</text>')
    along = (y.start + y.end) / 2
    turned = f'transform="translate(14 {_n(along)})rotate(-90)"'
    out.append(f'<text {turned} text-anchor="middle">{_text(chart.y_title)}</text>')
    return "\n".join(out)


def _line(line: Line, x: _Scale, y: _Scale) -> str:
    places = [(x(a), y(b)) for a, b in zip(line.xs, line.ys, strict=True) if math.isfinite(a) and math.isfinite(b)]
    if len(places) < 2:
        return ""
    path = f"M{_n(places[0][0])} {_n(places[0][1])}"
    for across, up in places[1:]:
        path += f"H{_n(across)}V{_n(up)}" if line.step else f"L{_n(across)} {_n(up)}"
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    return f'<path class="{line.tone} line" d="{path}"{dash}/>'


def _points(group: Points, x: _Scale, y: _Scale) -> str:
    out = []
    for i, (a, b) in enumerate(zip(group.xs, group.ys, strict=True)):
        if not (math.isfinite(a) and math.isfinite(b)):
            continue
        if group.low and group.high and group.high[i] > group.low[i]:
            bar = f"M{_n(x(group.low[i]))} {_n(y(b))}H{_n(x(group.high[i]))}"
            out.append(f'<path class="{group.tone} line" style="stroke-width:1" d="{bar}"/>')
        title = f"<title>{_text(group.titles[i], 300)}</title>" if group.titles else ""
        out.append(_mark(x(a), y(b), group.tone, group.shape, title))
    return "\n".join(out)


def _mark(x: float, y: float, tone: Tone, shape: str, title: str = "") -> str:
    if shape in ("circle", "ring"):
        kind, radius = ("fill", 4) if shape == "circle" else ("open", 3.2)
        body = f'circle class="{tone} {kind}" cx="{_n(x)}" cy="{_n(y)}" r="{radius}"'
        return f"<{body}>{title}</circle>" if title else f"<{body}/>"
    paths = {
        "cross": f"M{_n(x - 3.2)} {_n(y - 3.2)}l6.4 6.4m0-6.4l-6.4 6.4",
        "diamond": f"M{_n(x)} {_n(y - 6.5)}l6.5 6.5l-6.5 6.5l-6.5-6.5z",
        "square": f"M{_n(x - 4)} {_n(y - 4)}h8v8h-8z",
        "triangle": f"M{_n(x)} {_n(y - 5)}l5 9h-10z",
        "line": f"M{_n(x - 7)} {_n(y)}h14",
    }
    kind = "open" if shape == "cross" else "line" if shape == "line" else "fill"
    body = f'path class="{tone} {kind}" d="{paths[shape]}"'
    return f"<{body}>{title}</path>" if title else f"<{body}/>"


def _label(label: Label, x: _Scale, y: _Scale, width: int) -> str:
    across, up = x(label.x), y(label.y)
    room = _CHAR * len(plain(label.text, 40))
    right = across + 8 + room < width - 4 and (label.above or across - 8 - room < x.start)
    anchor, shift = ("start", 8) if right else ("end", -8)
    height = -8 if label.above else 16
    return (
        f'<text class="strong halo" x="{_n(across + shift)}" y="{_n(up + height)}" text-anchor="{anchor}">'
        f"{_text(label.text, 40)}</text>"
    )


def _legend(entries: Sequence[tuple[str, Tone, str]], width: int) -> tuple[str, float]:
    """Return the legend and where the plot may begin under it."""
    out, x, y = [], 22.0, 20.0
    for name, tone, shape in entries:
        text = plain(name, 48)
        room = 24 + _CHAR * len(text)
        if x > 22 and x + room > width:
            x, y = 22.0, y + 18
        out.append(_mark(x, y - 4, tone, shape))
        out.append(f'<text x="{_n(x + 11)}" y="{_n(y)}">{_text(text)}</text>')
        x += room + 8
    return "\n".join(out), (y + 18 if entries else 20.0)


def _scale(values: Sequence[float], start: float, end: float, wanted: int) -> _Scale:
    """An axis that holds the values, between round numbers."""
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        room = abs(low) * 0.1 or 1.0
        low, high = low - room, high + room
    raw = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    return _Scale(ticks[0], ticks[-1], start, end, ticks)


def _tick(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0]
    if max(abs(t) for t in ticks) >= 1e6 or step < 1e-4:
        return number(value, 3)
    decimals = max(0, math.ceil(-math.log10(step) - 1e-9))
    decimals += round(step, decimals) != round(step, 12) and decimals < 4
    return f"{value:.{decimals}f}".replace("-", "−")


def _finite(groups: Iterable[Sequence[float]]) -> list[float]:
    return [float(value) for group in groups for value in group if math.isfinite(value)]


def _text(text: str, limit: int | None = None) -> str:
    return escape(" ".join(plain(text, limit).split()))


def _n(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
