"""Evaluations of a problem, each made once: kept in SQLite by the config's signature, for all rows and processes."""

from __future__ import annotations

import sqlite3
import time
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray

from autoprune.cost.energy import estimate_from
from autoprune.search.damage import DAMAGE, DamageTable, damage_table
from autoprune.search.greybox.space import SpaceKnowledge
from autoprune.search.proposals import Proposals, make_proposals
from autoprune.spec.config import PruningConfig
from autoprune.spec.space import SpaceSpec
from autoprune.trial.pruned import pruned_model, recover_pruned
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import score, score_dense
from tests.benchmarks.sampling.problems import OBJECTIVES, WORST_DROP, Problem


@dataclass(frozen=True)
class Evaluated:
    """One config.

    Attributes:
        values: Accuracy drop and the exact costs, in the order of ``OBJECTIVES[4]``.
        seconds: What pruning, recalibration and scoring took when it was first evaluated.
    """

    values: tuple[float, ...]
    seconds: float


class Evaluations:
    """Scores configs of a problem.

    Args:
        problem: What is pruned.
        data: Folder of data and weights.
        work: Where evaluations are kept.

    Attributes:
        runner: The traced network, its scores and costs.
        proposals: Its space.
        reference: Worst corner of the hypervolume, in the order of ``OBJECTIVES[4]``.
    """

    def __init__(self, problem: Problem, data: Path, work: Path) -> None:
        self.problem, self._work = problem, work
        work.mkdir(parents=True, exist_ok=True)
        spec = problem.spec()
        self.runner = TrialRunner(problem.task(data, work), spec)
        assert isinstance(spec.space, SpaceSpec)
        self.proposals: Proposals = make_proposals(
            spec.space, self.runner.graph, self.runner.recovery, spec.search.seed, self.runner.book
        )
        self._database = sqlite3.connect(work / f"{problem.name}.db", timeout=120, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS scores (signature TEXT PRIMARY KEY, score REAL, seconds REAL)"
        )
        self.dense_score = score_dense(self.runner.task.evaluate, self.runner.model, "evaluate")
        self.reference: NDArray[np.float64] = np.array(
            [WORST_DROP[problem.network], *self.costs(self.runner.dense_config)]
        )

    def __call__(self, config: PruningConfig) -> Evaluated:
        """Return the objectives of a config, from disk where it was evaluated before."""
        found = self._database.execute(
            "SELECT score, seconds FROM scores WHERE signature = ?", (config.signature,)
        ).fetchone()
        if found is None:
            found = self._score(config)
            self._database.execute("INSERT OR IGNORE INTO scores VALUES (?, ?, ?)", (config.signature, *found))
        value, seconds = found
        drop = self.dense_score - value if self.runner.task.higher_is_better else value - self.dense_score
        return Evaluated((drop, *self.costs(config)), seconds)

    @cached_property
    def table(self) -> DamageTable:
        """The damage table of the problem: measured once, kept with the evaluations."""
        storage = optuna.storages.RDBStorage(f"sqlite:///{self._work / 'probes.db'}")
        study = optuna.create_study(storage=storage, study_name=self.problem.name, load_if_exists=True)
        started, known = time.process_time(), len(study.user_attrs.get(DAMAGE, {}).get("probes", ()))
        table = damage_table(study, self.runner, self.proposals)
        if len(table.records) > known:
            study.set_user_attr("seconds", study.user_attrs.get("seconds", 0.0) + time.process_time() - started)
        self.table_s = float(study.user_attrs["seconds"])
        return table

    def knowledge(self, objectives: int, damage: bool = False) -> SpaceKnowledge:
        """Return what a greybox sampler may know of the problem, with or without the damage table."""
        devices = self.runner.costs.devices
        assert devices, "costs of these networks follow from counts"
        return SpaceKnowledge(
            self.proposals,
            devices,
            OBJECTIVES[objectives],
            WORST_DROP[self.problem.network],
            self.dense_score,
            table=self.table.arrays(self.proposals) if damage else None,
            higher_is_better=self.runner.task.higher_is_better,
        )

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM scores").fetchone()[0])

    def _score(self, config: PruningConfig) -> tuple[float, float]:
        started = time.process_time()
        if config.layers:
            pruned = pruned_model(self.runner.model, self.runner.graph, self.runner.book, config)
            recover_pruned(pruned, config, self.runner.data)
            value = score(self.runner.task.evaluate, pruned.model, "evaluate")
        else:
            value = self.dense_score
        return value, time.process_time() - started

    def costs(self, config: PruningConfig) -> tuple[float, ...]:
        """Return the exact costs of a config, in the order of ``OBJECTIVES[4]`` without the drop; nothing is scored."""
        costs = self.runner.costs.of_config(config)
        if costs is None:
            built = pruned_model(self.runner.model, self.runner.graph, self.runner.book, config)
            costs = self.runner.costs.of_built(built.model, built.plan)
        seconds = costs.prediction.seconds
        energy = estimate_from(self.runner.profile, seconds, costs.executed, costs.level_bytes, costs.macs, None)
        values = {**costs.values, "latency_ms": seconds * 1e3, "energy_mj": energy.to_record().mj}
        return tuple(values[name] for name in OBJECTIVES[4][1:])
