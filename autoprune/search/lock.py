"""One search at a time in a run directory: a lock that the system drops when the process dies."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autoprune.errors import RunDirectoryError

try:
    import fcntl
except ImportError:  # Windows has no flock: two searches at once in one directory are then the user's care
    fcntl = None  # type: ignore[assignment]


@contextmanager
def exclusive(directory: Path) -> Iterator[None]:
    """Hold the directory for this process.

    Raises:
        RunDirectoryError: Another process holds it.
    """
    with (directory / ".lock").open("w") as handle:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RunDirectoryError(
                    f"another search is running in {directory}; wait for it, or use another directory"
                ) from None
        try:
            yield
        finally:
            if fcntl is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(handle, fcntl.LOCK_UN)
