"""Trials in MLflow: one run for the study, one run inside it for each trial."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from autoprune.search.loggers import LoggedRun, Standing, needed
from autoprune.spec.record import RunRecords, TrialRecord

_PARENT = "mlflow.parentRunId"
_NAME = "mlflow.runName"
_RUN = "autoprune.run"
_TRIAL = "autoprune.trial"
_TEST = "test_score"
_BATCH = 100  # parameters that one request may hold
_LONGEST = 500  # characters of a value that every MLflow store takes
_FORBIDDEN = re.compile(r"[^\w\-./: ]", re.ASCII)


class MlflowLogger:
    """An experiment of the task's name in a tracking store or server.

    The study's run is found again by its directory, so a search that goes on adds to it. A trial's run holds its values
    as metrics and its config as parameters; the study's run has hypervolume and front size over the trials.

    Args:
        uri: Tracking URI: ``sqlite:///file.db``, a folder, ``http://...``.
        run: The run.

    Raises:
        UsageError: MLflow is not installed.
    """

    def __init__(self, uri: str, run: LoggedRun) -> None:
        mlflow = needed("mlflow", "mlflow")
        self._client: Any = mlflow.MlflowClient(tracking_uri=uri)
        name = f"autoprune {run.spec.task}"
        found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found is not None else self._client.create_experiment(name)
        self._parent = self._study_run(run)
        self._runs: dict[int, str] = {}
        self._tested: set[int] = set()
        for child in self._search(f"tags.`{_PARENT}` = '{self._parent}'"):
            if child.info.status == "RUNNING":  # its process died before it was whole
                self._client.delete_run(child.info.run_id)
                continue
            number = int(child.data.tags[_TRIAL])
            self._runs[number] = child.info.run_id
            if _TEST in child.data.metrics:
                self._tested.add(number)

    def known(self) -> frozenset[int]:
        """Return the trials whose runs are whole."""
        return frozenset(self._runs)

    def log(self, trial: TrialRecord, standing: Standing | None) -> None:
        """Make a run for the trial, and add to the study's."""
        tags = {_PARENT: self._parent, _TRIAL: str(trial.number), _NAME: f"trial {trial.number}"}
        tags |= {"autoprune.state": trial.state, "autoprune.origin": trial.origin}
        tags["autoprune.feasible"] = str(trial.feasible).lower()
        if trial.error:
            tags["autoprune.error"] = trial.error.strip().splitlines()[-1][:_LONGEST]
        child = self._client.create_run(self._experiment, tags=tags).info.run_id
        self._parameters(child, _choices(trial))
        metrics = dict(trial.values) | {"seconds": trial.timings.total_s}
        if trial.score is not None:
            metrics["score"] = trial.score
        if trial.latency is not None:
            metrics["latency_ratio"] = trial.latency.ratio
        for name, value in metrics.items():
            self._client.log_metric(child, name, value, step=trial.number)
        self._client.set_terminated(child, "FAILED" if trial.state == "failed" else "FINISHED")
        self._runs[trial.number] = child
        if standing is not None:
            self._client.log_metric(self._parent, "front_size", standing.front_size, step=trial.number)
            if standing.hypervolume is not None:
                self._client.log_metric(self._parent, "hypervolume", standing.hypervolume, step=trial.number)

    def close(self, records: RunRecords | None) -> None:
        """Add the test scores of the front, and end the study's run."""
        for trial in records.trials if records is not None else ():
            if trial.test_score is not None and trial.number in self._runs and trial.number not in self._tested:
                self._client.log_metric(self._runs[trial.number], _TEST, trial.test_score, step=trial.number)
        self._client.set_terminated(self._parent, "FAILED" if records is None else "FINISHED")

    def _study_run(self, run: LoggedRun) -> str:
        place = str(run.directory.resolve())
        quoted = place.replace("'", "\\'")
        for found in self._search(f"tags.`{_RUN}` = '{quoted}'"):
            self._client.update_run(found.info.run_id, status="RUNNING")
            return str(found.info.run_id)
        made = self._client.create_run(self._experiment, tags={_RUN: place, _NAME: run.directory.name or place})
        spec = run.spec
        space = spec.space if isinstance(spec.space, str) else spec.space.name
        about = {"task": spec.task, "device": spec.device, "space": space, "objectives": ", ".join(spec.objectives)}
        about |= {"constraints": ", ".join(str(bound) for bound in spec.bounds) or "none"}
        about |= {"sampler": spec.search.sampler, "seed": str(spec.search.seed), "runtime": spec.latency.runtime}
        self._parameters(made.info.run_id, about)
        return str(made.info.run_id)

    def _parameters(self, run_id: str, parameters: Mapping[str, str]) -> None:
        entity = needed("mlflow.entities", "mlflow").Param
        clean = {_FORBIDDEN.sub("_", key)[:250]: value[:_LONGEST] for key, value in parameters.items()}
        listed = [entity(key, value) for key, value in clean.items()]
        for start in range(0, len(listed), _BATCH):
            self._client.log_batch(run_id, params=listed[start : start + _BATCH])

    def _search(self, text: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs([self._experiment], text, max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return


def _choices(trial: TrialRecord) -> dict[str, str]:
    """What a config does to each group or layer, as text."""
    if trial.config is None:
        return {}
    out: dict[str, str] = {}
    for name, choice in trial.config.choices():
        if choice.fraction > 0:
            text = f"{choice.granularity} {choice.criterion} {choice.fraction:g}"
            out[name] = f"{out[name]}; {text}" if name in out else text
    return out
