"""One rung of a trial: the pruned network recovered and scored as far as the rung goes."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from autoprune.errors import TaskError
from autoprune.spec.config import PruningConfig
from autoprune.spec.findings import RungRecord
from autoprune.spec.study import RungSpec
from autoprune.trial.pruned import PrunedModel, recover_pruned
from autoprune.trial.shipped import shipped
from autoprune.trial.task import Task, score


@dataclass(frozen=True)
class Reached:
    """What a rung brought.

    Attributes:
        record: The rung.
        recovery: What recovery did, in words.
        seconds: Wall seconds, by the names of ``spec.record.Timings``.
    """

    record: RungRecord
    recovery: str
    seconds: Mapping[str, float]


class RungScorer:
    """Scores networks on the rungs of one study.

    Args:
        task: The user's task.
        dense: The dense model.
        rungs: Those below the whole trial.

    Raises:
        TaskError: A rung names samples, and the task cannot score a sample.
    """

    def __init__(self, task: Task, dense: nn.Module, rungs: Sequence[RungSpec]) -> None:
        self._task, self._dense, self._rungs = task, dense, tuple(rungs)
        self._dense_scores: dict[int | None, float] = {}
        samples = next((rung.samples for rung in rungs if rung.samples is not None), None)
        if samples is not None and task.evaluate_sample is None:
            raise TaskError(
                f"search.rungs asks for {samples} validation samples, and the task has no evaluate_sample; "
                "give Task.evaluate_sample, or leave samples out"
            )

    def __len__(self) -> int:
        return len(self._rungs)

    def reach(self, number: int, pruned: PrunedModel, config: PruningConfig) -> Reached:
        """Recover a pruned network in place as far as a rung goes, and score it there."""
        rung = self._rungs[number]
        steps = rung.finetune_steps
        changes = {"finetune_steps": steps, "distill": config.recovery.distill if steps else None}
        recovery = config.recovery.model_copy(update=changes)
        recovered = recover_pruned(pruned, config.model_copy(update={"recovery": recovery}), self._task.calibration)
        if rung.samples not in self._dense_scores:
            self._dense_scores[rung.samples] = self._score(rung, self._dense)
        started = time.perf_counter()
        value = self._score(rung, shipped(pruned.model, config.precision, self._task.calibration).network)
        seconds = {**recovered.seconds, "evaluate_s": time.perf_counter() - started}
        dense = self._dense_scores[rung.samples]
        drop = dense - value if self._task.higher_is_better else value - dense
        record = RungRecord(name=rung.name, score=value, drop=drop, seconds=sum(seconds.values()))
        return Reached(record, recovered.text, seconds)

    def _score(self, rung: RungSpec, model: nn.Module) -> float:
        if rung.samples is None:
            return score(self._task.evaluate, model, "evaluate")
        evaluate, samples = self._task.evaluate_sample, rung.samples
        assert evaluate is not None, "checked when this was made"
        return score(lambda network: evaluate(network, samples), model, "evaluate_sample")
