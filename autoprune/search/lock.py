"""One search at a time in a run directory: a lock that the system drops when the process dies."""

from __future__ import annotations

import contextlib
import time
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
            for more in (True, False):  # 'autoprune status' touches the lock for a moment
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if more:
                        time.sleep(0.1)
                        continue
                    raise RunDirectoryError(
                        f"another search is running in {directory}; wait for it, or use another directory"
                    ) from None
        try:
            yield
        finally:
            if fcntl is not None:
                with contextlib.suppress(OSError):
                    fcntl.flock(handle, fcntl.LOCK_UN)


def is_held(directory: Path) -> bool:
    """Whether a search runs in a directory now; False where the system cannot tell."""
    if fcntl is None or not (directory / ".lock").is_file():
        return False
    with (directory / ".lock").open() as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False
