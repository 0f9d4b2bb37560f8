"""Several drivers on one study: whose trial is whose, and which driver is still there.

Each driver has a directory of its own and the storage in common. It writes a number that grows every few seconds into
the study, and takes another driver for lost when the other's number has not grown for a minute by its own clock: no two
clocks need to agree. The lock of a run directory proves at once that whoever held it before is gone.
"""

from __future__ import annotations

import contextlib
import platform
import threading
import time
import uuid
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, Trial, TrialState

OWNER = "autoprune:owner"
CONFIRMED = "autoprune:confirmed"
BEAT = "autoprune:beat:"
BEAT_S = 5.0
LOST_AFTER_S = 60.0


class Drivers:
    """This driver among those of a study.

    Args:
        study: The Optuna study.
        directory: The run directory, whose lock this process holds.
        shared: Whether another driver may be at work on the study: its storage is not the directory's own.
    """

    def __init__(self, study: optuna.Study, directory: Path, shared: bool) -> None:
        self._study, self.shared = study, shared
        self._place = f"{platform.node()}|{directory.resolve()}"
        self._name = f"{self._place}|{uuid.uuid4().hex[:8]}"
        self._seen: dict[str, tuple[int, float]] = {}
        self._looked = -BEAT_S
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to show that this driver is there; :meth:`close` ends it."""
        if self.shared:
            self._study.set_user_attr(BEAT + self._name, 0)
            self._thread = threading.Thread(target=self._beat, name="autoprune-beat", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Be gone."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def claim(self, trial: Trial) -> None:
        """Note that a trial is this driver's."""
        if self.shared:
            trial.set_user_attr(OWNER, self._name)

    def confirm(self, trial: Trial) -> None:
        """Note that a trial of this driver is wanted, and will be run."""
        if self.shared:
            trial.set_user_attr(CONFIRMED, True)

    def confirmed(self, trial: FrozenTrial) -> bool:
        """Whether a trial is noted as wanted."""
        return CONFIRMED in trial.user_attrs

    def is_lost(self, trial: FrozenTrial) -> bool:
        """Whether nobody works on a running trial any more."""
        if not self.shared:
            return True
        owner = trial.user_attrs.get(OWNER)
        if owner == self._name:
            return False
        if owner is not None and str(owner).rpartition("|")[0] == self._place:
            return True
        self._look()
        # Without an owner the driver died, or is just now, between asking for the trial and claiming it.
        key, now = str(owner or f"trial {trial.number}"), time.monotonic()
        return now - self._seen.setdefault(key, (-1, now))[1] > LOST_AFTER_S

    def others(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """Return the trials that other drivers work on, or did until they were lost: those are still to be taken over.

        Were one that is lost left out before it is taken over, its place would go to something else.
        """
        if not self.shared:
            return []
        return [t for t in trials if t.state == TrialState.RUNNING and t.user_attrs.get(OWNER) != self._name]

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked < BEAT_S:
            return
        self._looked = now
        for key, beat in self._study.user_attrs.items():
            name = key.removeprefix(BEAT)
            if key.startswith(BEAT) and self._seen.get(name, (None, 0.0))[0] != beat:
                self._seen[name] = (beat, now)

    def _beat(self) -> None:
        beat = 0
        while not self._ended.wait(BEAT_S):
            beat += 1
            with contextlib.suppress(Exception):  # the loop meets the same storage and tells what is wrong with it
                self._study.set_user_attr(BEAT + self._name, beat)
