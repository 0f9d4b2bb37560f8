"""Batch-norm statistics after pruning: what the shift leaves alone, what it moves and by how much, and the warning."""

import copy

import pytest
import torch
from small_task import task
from torch import nn

from autoprune.errors import TaskError
from autoprune.graph.groups import find_groups
from autoprune.pruning.scores import ScoreBook
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig, RecoverySpec
from autoprune.spec.study import StudySpec, resolve_study
from autoprune.trial.pruned import pruned_model, recover_pruned
from autoprune.trial.recovery import resolve_recovery
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import Calibration

X = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def net():
    """Two batch norms that were trained on other data than the calibration holds."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 6, 3),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )
        for norm in (model[1], model[4]):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)
    return model.eval()


def pruned_and_recovered(how, layer="0"):
    model, data = net(), Calibration(X[:1], batches=[X[:32], X[32:]])
    graph = find_groups(model, (X[:1],))
    book = ScoreBook(data.evidence(model, graph, 0))
    recovery = resolve_recovery(RecoverySpec(batchnorm_samples=64, batchnorm=how), model, data)
    choice = LayerChoice(granularity="channel", criterion="magnitude_l1", sparsity=0.5)
    config = PruningConfig(
        model=ModelIdentity(fingerprint=graph.fingerprint), recovery=recovery, layers={layer: (choice,)}
    )
    pruned = pruned_model(model, graph, book, config)
    before = copy.deepcopy(pruned.model)
    text = recover_pruned(pruned, config, data).text
    return pruned.model, before, text


def moments_of(model, upto):
    """Mean and variance of the inputs of a batch norm over both batches, as torch averages them."""
    with torch.no_grad():
        parts = [model[:upto](part) for part in (X[:32], X[32:])]
    return [sum(f(part) for part in parts) / 2 for f in (lambda p: p.mean((0, 2, 3)), lambda p: p.var((0, 2, 3)))]


def test_the_shift_leaves_alone_what_pruning_left_alone():
    smaller, before, text = pruned_and_recovered("shift")
    assert text == "batch norm shifted on 64 samples"
    assert smaller[1].running_mean.numel() == 4
    torch.testing.assert_close(smaller[1].running_mean, before[1].running_mean)
    torch.testing.assert_close(smaller[1].running_var, before[1].running_var)
    anew, _, _ = pruned_and_recovered("recalibrate")
    assert not torch.allclose(anew[1].running_mean, before[1].running_mean, atol=0.1)


def test_the_shift_moves_statistics_by_what_differs_on_the_same_samples():
    """Against moments taken by hand; the norm before stays as trained, so its outputs differ from recalibrated ones."""
    smaller, before, _ = pruned_and_recovered("shift")
    recalibrated, _, _ = pruned_and_recovered("recalibrate")
    dense = net()
    mean, variance = moments_of(dense, 1)
    anew = copy.deepcopy(dense)
    anew[1].running_mean, anew[1].running_var = mean, variance
    dense_mean, dense_variance = moments_of(anew, 4)
    wanted = before[4].running_mean + recalibrated[4].running_mean - dense_mean
    torch.testing.assert_close(smaller[4].running_mean, wanted, atol=2e-3, rtol=2e-3)
    ratio = recalibrated[4].running_var / dense_variance
    torch.testing.assert_close(smaller[4].running_var, before[4].running_var * ratio, atol=2e-3, rtol=2e-3)
    assert not torch.allclose(smaller[4].running_mean, before[4].running_mean, atol=0.02), "pruning did change it"


def test_a_shift_without_samples_is_told():
    with pytest.raises(TaskError, match=r"recovery.batchnorm is 'shift', and there is nothing to take the shift from"):
        resolve_recovery(RecoverySpec(batchnorm_samples=0, batchnorm="shift"), net(), Calibration(X[:1]))


def test_a_config_without_the_key_recalibrates():
    absent, recalibrated = (pruned_and_recovered(how)[0] for how in (None, "recalibrate"))
    torch.testing.assert_close(absent[4].running_mean, recalibrated[4].running_mean, rtol=0, atol=0)
    assert "batchnorm:" not in RecoverySpec(batchnorm_samples=3).to_yaml()


@pytest.mark.parametrize(("how", "warned"), [(None, True), ("shift", False)])
def test_recalibration_that_hurts_the_dense_model_itself_is_told(how, warned):
    """Its statistics are of other data than the calibration's: recalibrated, it disagrees with itself."""
    recovery = {"batchnorm_samples": 32, "batchnorm": how}
    spec = resolve_study(
        StudySpec(task="a:b", device="eyeriss", space="channels", objectives=("macs",), recovery=recovery)
    )
    runner = TrialRunner(task(), spec)
    said = runner.norm_warning(1.0)
    assert ("costs the dense model itself" in said and "batchnorm: shift" in said) if warned else said == ""
