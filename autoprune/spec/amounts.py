"""Times and sizes as people write them: "30m", "4GB"."""

from __future__ import annotations

import re

_DURATION = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(s|m|h)\s*$")
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_SIZE = re.compile(r"^\s*([0-9]+(?:\.[0-9]+)?)\s*(MB|GB|TB)\s*$")
_BYTES = {"MB": 10**6, "GB": 10**9, "TB": 10**12}


def duration_s(text: str) -> float:
    """Return the seconds of "90s", "30m" or "2h".

    Raises:
        ValueError: It is none.
    """
    match = _DURATION.match(text)
    if match is None:
        raise ValueError("a time is a number with s, m or h, as in 90s, 30m or 2h")
    return float(match.group(1)) * _SECONDS[match.group(2)]


def size_in_bytes(text: str) -> int:
    """Return the bytes of "800MB" or "4GB".

    Raises:
        ValueError: It is none.
    """
    match = _SIZE.match(text)
    if match is None:
        raise ValueError("a size is a number with MB, GB or TB, as in 800MB or 4GB")
    return int(float(match.group(1)) * _BYTES[match.group(2)])
