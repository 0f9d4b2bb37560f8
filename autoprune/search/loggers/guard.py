"""Loggers that cannot end a search: what one raises is told once, and it is left alone from then on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from autoprune.errors import UsageError, one_line
from autoprune.search.loggers import LOGGERS, LoggedRun, Logger, LoggerEntry, Standing
from autoprune.spec.record import RunRecords, TrialRecord


class Loggers:
    """All loggers of a search.

    Args:
        places: ``KEY:WHERE`` each, as in ``mlflow:sqlite:///mlflow.db``.
        run: The run that is logged.
        warn: Is told one sentence when a logger fails.

    Raises:
        UsageError: A text is not of that form, or the logger's package is not installed.
        UnknownNameError: No logger has that key.
    """

    def __init__(self, places: Sequence[str], run: LoggedRun, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._open: dict[str, Logger] = {}
        self._seen: dict[str, frozenset[int]] = {}
        for place, entry, where in [(place, *parsed_place(place)) for place in places]:

            def opened(place: str = place, entry: LoggerEntry = entry, where: str = where) -> None:
                self._open[place] = entry.make(where, run)
                self._seen[place] = self._open[place].known()

            self._guarded(place, opened)

    def catch_up(self, trials: Iterable[TrialRecord]) -> None:
        """Tell trials of earlier runs of the command to the places that do not hold them."""
        for trial in sorted(trials, key=lambda trial: trial.number):
            self.log(trial, None)

    def log(self, trial: TrialRecord, standing: Standing | None) -> None:
        """Tell a trial to every place that does not hold it."""
        for place, logger in list(self._open.items()):
            if trial.number not in self._seen[place]:
                self._seen[place] |= {trial.number}
                self._guarded(place, lambda logger=logger: logger.log(trial, standing))  # type: ignore[misc]

    def close(self, records: RunRecords | None) -> None:
        """End all logs."""
        for place, logger in list(self._open.items()):
            self._guarded(place, lambda logger=logger: logger.close(records))  # type: ignore[misc]
        self._open.clear()

    def _guarded(self, place: str, act: Callable[[], None]) -> None:
        try:
            act()
        except UsageError:
            raise
        except Exception as error:
            self._open.pop(place, None)
            self._warn(f"--log {place} failed ({one_line(error)}) and is left out from here on; the search goes on")


def parsed_place(place: str) -> tuple[LoggerEntry, str]:
    """Return the logger that ``KEY:WHERE`` names, and where it writes.

    Raises:
        UsageError: The text is not of that form.
        UnknownNameError: No logger has that key.
    """
    key, colon, where = place.partition(":")
    entry = LOGGERS.get(key)
    if not colon or not where:
        raise UsageError(f"--log is {place!r}; give KEY:WHERE, as in --log tensorboard:runs/log")
    return entry, where
