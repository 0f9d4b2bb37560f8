"""The study as a searcher of Ray Tune, for people who run Tune already.

Tune decides where and when trials run; the study proposes, and its storage stays the only truth: Tune's own snapshots
lag behind and are not asked. A trial of Tune's gets ``config["pruning"]``, the data of a
:class:`~autoprune.spec.config.PruningConfig`, and reports metrics by their names in a study.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

from autoprune.errors import UsageError
from autoprune.search.executors import Job
from autoprune.search.ledger import Ledger
from autoprune.search.local import failed
from autoprune.search.study import Study
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import TrialRecord

try:
    from ray.tune.search import Searcher
except ImportError as error:
    raise UsageError("StudySearcher needs Ray Tune; pip install 'autoprune[ray]'") from error


class StudySearcher(Searcher):  # type: ignore[misc]
    """Ask and tell of one study, as Tune calls them.

    A trial that raises, or does not report every objective as a finite number, is a failed one; repeats of a known
    config never reach Tune. Close the searcher when Tune has ended: until then no other search can use the directory.

    Args:
        study: The study; its dense model has been measured ("autoprune search ... --trials 1").

    Raises:
        UsageError: The dense model was not measured yet.
    """

    def __init__(self, study: Study) -> None:
        super().__init__(metric=study.spec.objectives[0], mode="min")
        self._objectives, self._wanted = study.spec.objectives, study.spec.search.trials
        self._jobs: dict[str, Job] = {}
        self._opened = ExitStack()
        self._ledger: Ledger = self._opened.enter_context(study.books())
        self._ledger.resume()
        if self._ledger.dense is None:
            self.close()
            raise UsageError(
                "the dense model of this study was not measured yet; run 'autoprune search' with --trials 1 first"
            )

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Propose a config; Tune ends when as many trials as the study asks for are finished or in flight."""
        while self._ledger.finished + self._ledger.in_flight < self._wanted:
            job = self._ledger.propose()
            repeat = self._ledger.repeat(job)
            if repeat is None:
                self._jobs[trial_id] = job
                return {"pruning": job.config.to_data(), "number": job.number}
            self._ledger.settle(job, repeat)
        return str(Searcher.FINISHED)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Settle a trial."""
        job = self._jobs.pop(trial_id, None)
        if job is not None:
            self._ledger.settle(job, self._record(job, result or {}, error))

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing: the study's storage holds it."""

    def restore(self, checkpoint_path: str) -> None:
        """Take nothing: the study's storage holds it."""

    def close(self) -> None:
        """Free what is in flight, and the run directory."""
        self._ledger.abandon()
        self._opened.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return what Tune may keep of it: nothing of the study. To go on, make a searcher anew."""
        return {"_metric": self._metric, "_mode": self._mode}

    def _record(self, job: Job, result: dict[str, Any], error: bool) -> TrialRecord:
        if error:
            return failed(job, "the trial raised in Ray Tune; its traceback is in Tune's own log")
        values = {
            name: float(result[name])
            for name in METRICS
            if isinstance(result.get(name), int | float) and math.isfinite(result[name])
        }
        missing = [name for name in self._objectives if name not in values]
        if missing:
            said = ", ".join(f"{name} {result.get(name, 'not at all')}" for name in missing)
            return failed(job, f"the trial reported {said} to Ray Tune, where a finite number is needed")
        score = result.get("score")
        return TrialRecord(
            number=job.number,
            state="complete",
            origin=job.origin,
            config=job.config,
            values=values,
            score=float(score) if isinstance(score, int | float) and math.isfinite(score) else None,
        )
