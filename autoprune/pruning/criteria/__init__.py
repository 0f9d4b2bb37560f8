"""Criteria: rules that score units; the lowest scores go.

A criterion gives one score per weight of a tensor. One shared rule (``pruning.scores``) adds them up over the weights
of a unit, so a criterion serves every granularity.
"""

from __future__ import annotations

from autoprune.pruning.criteria import activations, curvature, flow, gradients, weights
from autoprune.pruning.criteria.passes import DATA_SAMPLES, batch_size, run_batch
from autoprune.pruning.criteria.rule import CRITERIA, Criterion, Evidence, Role, Rule

__all__ = ["CRITERIA", "DATA_SAMPLES", "Criterion", "Evidence", "Role", "Rule", "batch_size", "run_batch"]

for _module in (weights, gradients, curvature, flow, activations):
    for _key, _rule in _module.RULES.items():
        CRITERIA.add(_key, _rule)
