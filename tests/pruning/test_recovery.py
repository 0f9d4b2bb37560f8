"""Recovery without training: batch norm from averages, masks that hold while somebody else trains."""

import pytest
import torch
from torch import nn

from autoprune.errors import TaskError
from autoprune.spec.config import RecoverySpec
from autoprune.trial.recovery import DEFAULT_BATCHNORM_SAMPLES, finetune, recalibrate_batchnorm, resolve_recovery
from autoprune.trial.task import Calibration


def test_batch_norm_takes_the_average_over_batches(net, batches):
    seen = recalibrate_batchnorm(net, Calibration(batches[0][0], batches), samples=1000)
    assert seen == 48
    with torch.no_grad():
        entering = [net.stem(images) for images, _ in batches]
    means = torch.stack([x.mean((0, 2, 3)) for x in entering]).mean(0)
    variances = torch.stack([x.transpose(0, 1).flatten(1).var(dim=1) for x in entering]).mean(0)
    assert torch.allclose(net.bn.running_mean, means, atol=1e-6)
    assert torch.allclose(net.bn.running_var, variances, rtol=1e-5)
    assert not net.bn.training
    assert net.bn.momentum == 0.1


def test_recalibration_stops_after_enough_samples_and_leaves_weights_alone(net, batches):
    before = {name: value.clone() for name, value in net.named_parameters()}
    assert recalibrate_batchnorm(net, Calibration(batches[0][0], batches), samples=20) == 20
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())


def test_a_rest_of_one_sample_has_a_second_one_beside_it():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()
    inputs = [torch.randn(8, 3), torch.randn(8, 3)]
    assert recalibrate_batchnorm(model, Calibration(inputs[0], inputs), samples=9) == 10


def test_dropout_stays_off(batches):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout(0.9), nn.BatchNorm2d(4)).eval()
    inputs = [images for images, _ in batches]
    recalibrate_batchnorm(model, Calibration(inputs[0], inputs), samples=16)
    with torch.no_grad():
        expected = model[0](inputs[0]).mean((0, 2, 3))
    assert torch.allclose(model[2].running_mean, expected, atol=1e-6)


def test_the_model_is_put_back_when_the_data_fails(net):
    def broken():
        raise RuntimeError("the data's own failure")
        yield

    with pytest.raises(RuntimeError, match="own failure"):
        recalibrate_batchnorm(net, Calibration((torch.zeros(1, 3, 8, 8),), broken), samples=4)
    assert not net.bn.training
    assert net.bn.momentum == 0.1
    with pytest.raises(TaskError, match="gave none; give at least one batch"):
        recalibrate_batchnorm(net, Calibration((torch.zeros(1, 3, 8, 8),), []), samples=4)


def test_pruned_weights_stay_zero_while_the_task_trains(net, batches):
    masks = {"inner.weight": torch.rand(net.inner.weight.shape) > 0.5}
    with torch.no_grad():
        net.inner.weight *= masks["inner.weight"]
    before = net.inner.weight.detach().clone()

    def train(model, steps):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        for step in range(steps):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batches[step][0]), batches[step][1]).backward()
            optimizer.step()

    data = Calibration(batches[0][0], batches, finetune=train)
    recovery = RecoverySpec(batchnorm_samples=0, finetune_steps=3)
    assert finetune(net, recovery, data, masks, seed=0) == "fine-tuned 3 steps"
    assert not bool(net.inner.weight[~masks["inner.weight"]].any())
    assert not torch.equal(net.inner.weight, before)
    assert not net.inner.weight._backward_hooks


def test_defaults_are_filled_in_from_model_and_data(net, batches):
    data = Calibration(batches[0][0], batches)
    assert resolve_recovery(RecoverySpec(), net, data).batchnorm_samples == DEFAULT_BATCHNORM_SAMPLES
    assert resolve_recovery(RecoverySpec(), net, Calibration()).batchnorm_samples == 0
    assert resolve_recovery(RecoverySpec(), nn.Linear(2, 2), data).batchnorm_samples == 0
    assert resolve_recovery(RecoverySpec(compensate="bias"), net, data).compensate == "bias"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (RecoverySpec(batchnorm_samples=8), "batchnorm_samples is 8, and the task has no batches"),
        (RecoverySpec(finetune_steps=5), "finetune_steps is 5, and the task has no finetune"),
        (RecoverySpec(compensate="least_squares"), "compensate is 'least_squares', and the task has no batches"),
    ],
)
def test_what_the_task_does_not_give_is_told(net, spec, words):
    with pytest.raises(TaskError, match=words):
        resolve_recovery(spec, net, Calibration())
