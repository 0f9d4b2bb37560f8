"""autoprune: hardware-aware automated pruning search for PyTorch.

Names are loaded when they are first used (PEP 562): ``import autoprune`` is fast, and a production trainer never pulls
in what only a search needs. ``__init__.pyi`` tells type checkers the same.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOME = {
    "AutopruneError": "autoprune.errors",
    "ConstantSchedule": "autoprune.training.schedules",
    "CubicSchedule": "autoprune.training.schedules",
    "Distillation": "autoprune.training.distillation",
    "DriftMonitor": "autoprune.deploy.monitor",
    "ExponentialSchedule": "autoprune.training.schedules",
    "GradualPruning": "autoprune.training.methods.gradual",
    "GroupLasso": "autoprune.training.methods.group_lasso",
    "IterativeSchedule": "autoprune.training.schedules",
    "L0": "autoprune.training.methods.l0",
    "L1": "autoprune.training.methods.l1",
    "LightningSparsifier": "autoprune.deploy.lightning",
    "LotteryTicket": "autoprune.training.methods.lottery",
    "MovementPruning": "autoprune.training.methods.movement",
    "NetworkSlimming": "autoprune.training.methods.slimming",
    "OneCycleSchedule": "autoprune.training.schedules",
    "OneShotSchedule": "autoprune.training.schedules",
    "PolynomialSchedule": "autoprune.training.schedules",
    "ProfileRecord": "autoprune.spec.profile",
    "PruningConfig": "autoprune.spec.config",
    "RigL": "autoprune.training.methods.rigl",
    "RunRecords": "autoprune.spec.record",
    "SET": "autoprune.training.methods.set",
    "Sparsifier": "autoprune.deploy.sparsifier",
    "Study": "autoprune.search.study",
    "StudySpec": "autoprune.spec.study",
    "Task": "autoprune.trial.task",
    "TransformersSparsifier": "autoprune.deploy.transformers",
    "TrialRecord": "autoprune.spec.record",
    "VariationalDropout": "autoprune.training.methods.variational",
    "apply": "autoprune.deploy.apply",
    "expand_pruned": "autoprune.deploy.save",
    "export": "autoprune.deploy.export",
    "load_config": "autoprune.spec.config",
    "load_pruned": "autoprune.deploy.save",
    "load_study": "autoprune.spec.study",
    "load_task": "autoprune.trial.task",
    "profile_study": "autoprune.trial.profile.run",
    "prune_like": "autoprune.deploy.save",
    "quantize": "autoprune.deploy.quantize",
    "read_pruned": "autoprune.deploy.pruned_file",
    "read_records": "autoprune.spec.record",
    "save_pruned": "autoprune.deploy.save",
    "to_semi_structured": "autoprune.deploy.semi_structured",
    "trials_frame": "autoprune.results.frames",
    "verify": "autoprune.deploy.achieved",
    "write_profile": "autoprune.results.profile_report",
    "write_report": "autoprune.results.report",
}

__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("autoprune")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'autoprune' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
