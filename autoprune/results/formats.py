"""Numbers as people read them; terminal, Markdown and HTML all use these and nothing else.

A space stands between a number and its unit, three significant digits are kept, and a missing number is a dash.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from autoprune.spec.objectives import METRICS
from autoprune.spec.record import LatencyRecord, StudyRecord

MISSING = "–"
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class ScoreFormat:
    """How the scores of one study are written.

    Attributes:
        percent: A score of 0.978 is "97.80 %", and a drop is in percentage points (pp). Held for true where higher is
            better and the dense score lies in (0, 1], as accuracies do; a loss is written as it is.
        higher_is_better: Direction of the score.
    """

    percent: bool
    higher_is_better: bool

    @classmethod
    def of(cls, study: StudyRecord) -> ScoreFormat:
        """Return the format for a study, from its dense score."""
        return cls(study.higher_is_better and 0 < study.dense_score <= 1, study.higher_is_better)

    def score(self, value: float | None) -> str:
        """Format a score."""
        if value is None or not self.percent:
            return number(value, 4)
        return f"{_signed(value * 100, 2)} %"

    def drop(self, value: float | None) -> str:
        """Format an accuracy drop; negative is better than dense."""
        if value is None or not self.percent:
            return number(value, 3)
        return f"{_signed(value * 100, 2)} pp"

    def metric(self, name: str, value: float | None) -> str:
        """Format the value of a metric with its unit."""
        if name == "accuracy_drop":
            return self.drop(value)
        unit = METRICS[name].unit if name in METRICS else ""
        if unit == "B":
            return count(value, "B")
        return f"{number(value)} {unit}" if unit and value is not None else count(value)


def number(value: float | None, digits: int = 3) -> str:
    """Format with ``digits`` significant digits and no exponent between 1e-4 and 1e6: 0.0123, 1.20, 456."""
    if value is None or math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}".replace("-", "−")
    rounded = float(f"{value:.{digits - 1}e}")  # 0.9999 has the decimals of 1.00
    return _signed(value, max(digits - 1 - math.floor(math.log10(abs(rounded))), 0))


def count(value: float | None, unit: str = "") -> str:
    """Format with a decimal prefix: 950, 1.23 M, 4.80 MB."""
    if value is None or not math.isfinite(value):
        return number(value)
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor * 0.9995:
            return f"{number(value / factor)} {prefix}{unit}"
    text = f"{value:.0f}" if float(value).is_integer() else number(value)
    return f"{text} {unit}".strip()


def percent(fraction: float | None) -> str:
    """Format a fraction: 45 %, 0.4 %, 100 %."""
    if fraction is None or not math.isfinite(fraction):
        return number(fraction)
    value = fraction * 100
    small = 0 < abs(value) < 1 or 99 < value < 100
    return f"{_signed(value, 1 if small else 0)} %"


def seconds(value: float | None) -> str:
    """Format wall time: 12 ms, 3.4 s, 2 min 5 s, 1 h 3 min."""
    if value is None or not math.isfinite(value):
        return number(value)
    if value < 1:
        return f"{number(value * 1000)} ms" if value else "0 s"
    if value < 59.95:
        return f"{number(value)} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def speed(latency: LatencyRecord) -> str:
    """Say in words how a trial's latency compares with dense; a ratio whose interval holds 1 is no gain.

    Where the interval did not become as narrow as asked its ends are told, not the middle. That of a modelled latency
    is what the ranges of the device's figures allow.
    """
    loose = latency.pairs > 0 and not latency.converged
    if loose and latency.ratio_high < 1:
        return f"{1 / latency.ratio_high:.2g} to {1 / max(latency.ratio_low, 0.01):.2g}× faster"
    if loose and latency.ratio_low > 1:
        return f"{latency.ratio_low:.2f} to {latency.ratio_high:.2f}× as slow"
    if latency.ratio_high < 1:
        return f"{1 / latency.ratio:.2g}× faster" if latency.ratio > 0.05 else f"{1 / latency.ratio:.0f}× faster"
    if latency.ratio_low > 1:
        return f"{latency.ratio:.2f}× as slow"
    return f"not {'measurably' if latency.pairs else 'surely'} faster (ratio {interval(latency)})"


def interval(latency: LatencyRecord) -> str:
    """Format the interval of the ratio to dense: 0.60–0.63."""
    low, high = f"{latency.ratio_low:.2f}", f"{latency.ratio_high:.2f}"
    return low if low == high else f"{low}–{high}"


def plain(text: object, limit: int | None = None) -> str:
    """Return text without control and direction characters, cut in the middle to ``limit`` characters.

    Names and errors come from foreign code: a direction override would turn the rest of a line around.
    """
    clean = _CONTROL.sub("�", str(text))
    if limit is None or len(clean) <= limit:
        return clean
    head = (limit - 1) * 2 // 3
    return f"{clean[:head]}…{clean[len(clean) - (limit - 1 - head) :]}"


def _signed(value: float, decimals: int) -> str:
    text = f"{value:.{decimals}f}"
    if float(text) == 0:
        text = text.removeprefix("-")
    return text.replace("-", "−")
