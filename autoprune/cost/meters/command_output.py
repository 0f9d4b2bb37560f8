"""What a benchmark command prints, read as milliseconds, and refused where it cannot be a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

_KEYS = ("ms", "samples_ms", "latency_ms", "median_ms", "mean_ms")
_SHOWN = 120
_CLOCK = 1.2  # the sum of the runs over the wall time of the call, which holds them and more


@dataclass(frozen=True)
class Reading:
    """One call of a command.

    Attributes:
        samples_ms: Of single runs; one number where the command gave a summary.
        p90_ms: As the command told it.
        p99_ms: As the command told it.
    """

    samples_ms: tuple[float, ...]
    p90_ms: float | None = None
    p99_ms: float | None = None

    @property
    def median_ms(self) -> float:
        """Median of the samples."""
        return float(np.median(self.samples_ms))


def read_output(text: str, wall_s: float, runs: int) -> Reading:
    """Read what a command printed.

    Args:
        text: Its standard output: JSON, alone or on the last line that is.
        wall_s: How long the call took.
        runs: Runs that it was asked for.

    Raises:
        ValueError: It is no time in milliseconds; the text is a part of a sentence about the command ("printed ...").
    """
    value = _last_json(text)
    p90 = p99 = None
    if isinstance(value, Mapping):
        key = next((key for key in _KEYS if key in value), None)
        if key is None:
            keys = ", ".join(map(str, list(value)[:6])) or "none"
            raise ValueError(
                f"printed JSON with keys {keys} where one of {', '.join(_KEYS)} is needed, in milliseconds"
            )
        p90, p99 = (_time(value[name], name) if name in value else None for name in ("p90_ms", "p99_ms"))
        value = value[key]
    samples = tuple(_time(item, "a run") for item in (value if isinstance(value, list) else [value]))
    if not samples:
        raise ValueError("printed an empty list where the milliseconds of its runs are needed")
    # One number stands for all the runs that were asked for; they cannot have taken longer than the call.
    total = sum(samples) if len(samples) > 1 else samples[0] * (1 if isinstance(value, list) else runs)
    if total * 1e-3 > _CLOCK * wall_s:
        raise ValueError(
            f"took {wall_s:.3g} s and says that its runs took {total:.4g} ms together, which is longer; is it printing "
            "another unit than milliseconds, or running less often than {runs}"
        )
    return Reading(samples, p90, p99)


def _last_json(text: str) -> Any:
    stripped = text.strip()
    for part in (stripped, *reversed(stripped.splitlines())):
        try:
            value = json.loads(part)
        except ValueError:
            continue
        if isinstance(value, (Mapping, list, int, float)):
            return value
    shown = " ".join(stripped.split())
    shown = repr(shown if len(shown) <= _SHOWN else shown[-_SHOWN:]) if shown else "nothing"
    raise ValueError(f"printed {shown} where milliseconds as JSON are needed, alone or on the last line")


def _time(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"says that {what} took {value!r} where a number of milliseconds is needed")
    if not (isfinite(value) and value > 0):
        raise ValueError(f"says that {what} took {value!r} ms where a positive number is needed")
    return float(value)
