"""What a storage holds of a study, as records."""

from __future__ import annotations

import optuna

from autoprune.search import storage
from autoprune.spec.record import RunRecords, TrialRecord


def read_study(study: optuna.Study) -> RunRecords | None:
    """Return everything a report needs from the storage; None before the dense model was measured."""
    about = storage.study_record(study)
    if about is None:
        return None
    scores, again = storage.test_scores(study), storage.latencies_again(study)
    trials = []
    for trial in study.get_trials(deepcopy=False):
        record = storage.record_of(trial)
        if record is not None and trial.state.is_finished():
            later = {"test_score": scores.get(trial.number), "again": again.get(trial.number)}
            found = {key: value for key, value in later.items() if value is not None}
            trials.append(record.model_copy(update=found) if found else record)
    return RunRecords(study=about, trials=tuple(trials))


def counts(record: TrialRecord) -> bool:
    """Whether a trial counts: complete, failed, or stopped on a rung; no repeat of another one."""
    return record.state != "pruned" or record.rungs is not None
