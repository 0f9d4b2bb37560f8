"""Batch-norm statistics after pruning: estimated anew, or the trained ones shifted by what pruning changed.

Estimating anew on little or other data than the network was trained on costs accuracy by itself. The shift takes from
the calibration data only the *difference* between the pruned and the dense network, on the same samples: means move by
the difference of means, variances by the ratio of variances. What was not changed by pruning stays as it was trained.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from autoprune.pruning.surgery import prune
from autoprune.trial.pruned import PrunedModel
from autoprune.trial.recovery import norms_of, recalibrate_batchnorm
from autoprune.trial.task import Calibration


def recalibrated(model: nn.Module, data: Calibration, samples: int) -> nn.Module:
    """Return a copy of a model whose batch-norm statistics are estimated anew."""
    copied = copy.deepcopy(model)
    recalibrate_batchnorm(copied, data, samples)
    return copied


def shift_batchnorm(pruned: PrunedModel, data: Calibration, samples: int) -> int:
    """Shift the trained statistics of a pruned model in place.

    Returns:
        The samples seen; 0 where nothing was pruned, and nothing is to be shifted.
    """
    if pruned.book is None:
        return 0
    dense, book = pruned.book.evidence.model, pruned.book
    on_same = book.keep(("recalibrated", samples), lambda: recalibrated(dense, data, samples))
    seen = recalibrate_batchnorm(pruned.model, data, samples)
    trained, before = (norms_of(prune(model, pruned.plan)) for model in (dense, on_same))
    with torch.no_grad():
        for name, norm in norms_of(pruned.model).items():
            if name not in trained:
                continue  # not of the dense model
            old, same = trained[name], before[name]
            norm.running_mean += old.running_mean - same.running_mean
            ratio = (norm.running_var + norm.eps) / (same.running_var + norm.eps)
            norm.running_var.copy_(ratio * (old.running_var + norm.eps) - norm.eps)
    return seen
