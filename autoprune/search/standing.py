"""Where a study stands, read from its storage while others work on it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from autoprune.errors import RunDirectoryError
from autoprune.search import storage
from autoprune.search.lock import is_held
from autoprune.search.stored import counts, read_study
from autoprune.spec.front import front, hypervolume_of
from autoprune.spec.study import StudySpec, load_study


@dataclass(frozen=True)
class Standing:
    """Where a study stands.

    Attributes:
        finished: Trials that count.
        wanted: Trials asked for.
        states: State to number of settled trials, repeats left out.
        in_flight: Trials that are running, or were when their driver died.
        queued: Trials that wait.
        searching: Whether a search runs from this directory now.
        front_size: Trials on the front.
        hypervolume: Dominated volume, 0 to 1; None before the dense model was measured.
        lost: Events on the way (a worker, node or meter that was lost), one sentence each, the last ones.
        last: When the last trial was finished (UTC, ISO 8601); empty before.
    """

    finished: int
    wanted: int
    states: dict[str, int]
    in_flight: int
    queued: int
    searching: bool
    front_size: int
    hypervolume: float | None
    lost: tuple[str, ...]
    last: str


def standing_of(directory: Path) -> Standing:
    """Read where the study of a run directory stands.

    Raises:
        RunDirectoryError: No search was started there.
        StorageError: The storage cannot be reached.
    """
    path = directory / "study.yaml"
    if not path.is_file():
        raise RunDirectoryError(f"{directory} holds no study.yaml; give the directory of a run of 'autoprune search'")
    spec: StudySpec = load_study(path)
    study = storage.load_existing(spec.storage, directory)
    if study is None:
        raise RunDirectoryError(f"{directory} holds no study yet; run 'autoprune search' with it, or wait a moment")
    trials = study.get_trials(deepcopy=False)
    records = read_study(study)
    settled = [] if records is None else [record for record in records.trials if counts(record)]
    events = [
        f"trial {record.number}: {event}" for record in settled if record.worker for event in record.worker.events
    ]
    return Standing(
        finished=len(settled),
        wanted=spec.search.trials,
        states=dict(Counter(record.state for record in settled)),
        in_flight=sum(trial.state == TrialState.RUNNING for trial in trials),
        queued=sum(trial.state == TrialState.WAITING for trial in trials),
        searching=is_held(directory),
        front_size=0 if records is None else len(front(records)),
        hypervolume=None if records is None else hypervolume_of(records),
        lost=tuple(events[-5:]),
        last=max((record.finished_at for record in settled), default=""),
    )
