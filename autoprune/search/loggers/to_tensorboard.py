"""Trials as TensorBoard scalars: every metric over the trial number, and the course of the study."""

from __future__ import annotations

from pathlib import Path

from autoprune.search.loggers import LoggedRun, Standing, needed
from autoprune.spec.record import RunRecords, TrialRecord

_DONE = "trial/seconds"
"""Written last for each trial: a trial that has it was logged whole."""
_TEST = "trial/test_score"


class TensorboardLogger:
    """Event files in a folder; a search that goes on adds a file there.

    Args:
        folder: Where event files go; made if it is missing.
        run: The run.

    Raises:
        UsageError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, run: LoggedRun) -> None:
        needed("tensorboard", "tensorboard")
        self._folder = folder
        self._known = self._steps(_DONE)
        self._tested = self._steps(_TEST)
        self._writer = needed("torch.utils.tensorboard", "tensorboard").SummaryWriter(str(folder))
        if not self._known:
            text = "\n".join(f"    {line}" for line in run.spec.to_yaml().splitlines())
            self._writer.add_text("study.yaml", text, 0)

    def known(self) -> frozenset[int]:
        """Return the trials that the event files hold."""
        return self._known

    def log(self, trial: TrialRecord, standing: Standing | None) -> None:
        """Write the trial's values at the step of its number."""
        scalars = {f"values/{name}": value for name, value in trial.values.items()}
        if trial.score is not None:
            scalars["trial/score"] = trial.score
        if trial.latency is not None:
            scalars["trial/latency_ratio"] = trial.latency.ratio
        scalars["trial/feasible"] = float(trial.feasible)
        if standing is not None:
            scalars["study/front_size"] = float(standing.front_size)
            if standing.hypervolume is not None:
                scalars["study/hypervolume"] = standing.hypervolume
        scalars[_DONE] = trial.timings.total_s
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, trial.number)
        self._writer.flush()

    def close(self, records: RunRecords | None) -> None:
        """Write the test scores of the front and close the file."""
        for trial in records.trials if records is not None else ():
            if trial.test_score is not None and trial.number not in self._tested:
                self._writer.add_scalar(_TEST, trial.test_score, trial.number)
        self._writer.close()

    def _steps(self, tag: str) -> frozenset[int]:
        if not self._folder.is_dir() or not any(self._folder.glob("events.out.tfevents.*")):
            return frozenset()
        module = needed("tensorboard.backend.event_processing.event_accumulator", "tensorboard")
        events = module.EventAccumulator(str(self._folder), size_guidance={"scalars": 0})
        events.Reload()
        if tag not in events.Tags()["scalars"]:
            return frozenset()
        return frozenset(int(event.step) for event in events.Scalars(tag))
