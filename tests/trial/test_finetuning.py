"""Recovery: statistics that equal a computation by hand, and weights that stay pruned whoever trains."""

import pytest
import torch
from small_task import cross_entropy, images, labelled, small_net, task
from torch import nn

from autoprune.errors import TaskError
from autoprune.spec.config import RecoverySpec
from autoprune.trial.recovery import DEFAULT_BATCHNORM_SAMPLES, finetune, recalibrate_batchnorm, resolve_recovery
from autoprune.trial.task import Calibration


def by_hand(model, batches):
    """Return the plain average over batches of the mean and the unbiased variance before the first batch norm."""
    with torch.no_grad():
        entering = [model.stem(batch[0]).transpose(0, 1).flatten(1) for batch in batches]
    means = torch.stack([values.mean(1) for values in entering]).mean(0)
    return means, torch.stack([values.var(1, unbiased=True) for values in entering]).mean(0)


def test_batchnorm_statistics_equal_the_average_over_batches():
    model = small_net()
    batches = [labelled(model, 16, seed) for seed in range(3)]
    weights = {name: value.clone() for name, value in model.named_parameters()}
    seen = recalibrate_batchnorm(model, Calibration(images(1, 0), batches, cross_entropy), 48)
    mean, variance = by_hand(model, batches)
    assert seen == 48
    torch.testing.assert_close(model.norm.running_mean, mean)
    torch.testing.assert_close(model.norm.running_var, variance)
    assert model.norm.momentum == 0.1
    assert not any(module.training for module in model.modules())
    assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())


def test_it_is_the_same_twice_and_needs_no_loss():
    model = small_net()
    batches = [labelled(model, 16, seed) for seed in range(2)]
    found = []
    for loss in (cross_entropy, None, None):
        recalibrate_batchnorm(model, Calibration(images(1, 0), batches, loss), 32)
        found.append(model.norm.running_var.clone())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])


def test_dropout_stays_off_while_batchnorm_learns():
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))
    data = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    recalibrate_batchnorm(model, Calibration(data, [data]), 64)
    torch.testing.assert_close(model[1].running_mean, data.mean(0))


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2),
        lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    ],
    ids=["sgd-momentum", "adamw", "nesterov"],
)
def test_pruned_weights_stay_zero_through_finetuning(optimizer):
    model = small_net()
    batch = labelled(model, 32, 0)
    masks = {
        f"{name}.weight": torch.rand(module.weight.shape, generator=torch.Generator().manual_seed(1)) > 0.5
        for name, module in (("inner", model.inner), ("head", model.head))
    }
    with torch.no_grad():
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)
    before = model.inner.weight.detach().clone()

    def train(candidate, steps):
        steppers = optimizer(candidate.parameters())
        candidate.train()
        for _ in range(steps):
            steppers.zero_grad()
            cross_entropy(candidate, batch).backward()
            steppers.step()

    data = Calibration(images(1, 0), [batch], cross_entropy, train)
    told = finetune(model, RecoverySpec(finetune_steps=5), data, masks, seed=0)
    for name, mask in masks.items():
        assert not bool(model.get_parameter(name)[~mask].any())
    assert not torch.equal(model.inner.weight, before), "what is left was trained"
    assert told == "fine-tuned 5 steps"


def test_finetuning_is_seeded_and_leaves_the_seed_of_others_alone():
    draws = []
    data = Calibration(images(1, 0), None, None, lambda model, steps: draws.append(torch.rand(1).item()))
    torch.manual_seed(5)
    expected = torch.rand(1).item()
    torch.manual_seed(5)
    for seed in (0, 0, 1):
        finetune(small_net(), RecoverySpec(finetune_steps=1), data, {}, seed)
    assert torch.rand(1).item() == expected
    assert draws[0] == draws[1] != draws[2]


def test_defaults_follow_the_model_and_the_task():
    full, empty = task().calibration, Calibration(images(1, 0))
    assert resolve_recovery(RecoverySpec(), small_net(), full).batchnorm_samples == DEFAULT_BATCHNORM_SAMPLES
    assert resolve_recovery(RecoverySpec(), small_net(), empty).batchnorm_samples == 0
    assert resolve_recovery(RecoverySpec(), nn.Linear(2, 2), full).batchnorm_samples == 0


@pytest.mark.parametrize(
    ("spec", "model", "data", "sentence"),
    [
        (RecoverySpec(batchnorm_samples=8), small_net(), Calibration(), "the task has no batches; give Task.batches"),
        (RecoverySpec(batchnorm_samples=8), nn.Linear(2, 2), Calibration(), "the model has no batch norm; set it to 0"),
        (
            RecoverySpec(finetune_steps=8),
            small_net(),
            Calibration(),
            "the task has no finetune; give it or set it to 0",
        ),
    ],
)
def test_what_the_task_does_not_give_is_told(spec, model, data, sentence):
    with pytest.raises(TaskError, match=sentence):
        resolve_recovery(spec, model, data)
