"""Distillation against a calculation by hand, and in the recovery of a trial."""

import math

import pytest
import torch
from digits import config, digits, net, train
from torch import nn
from torch.nn import functional as F

import autoprune as ap
from autoprune.errors import ConfigError, SpecError, TaskError, UnknownNameError, UsageError
from autoprune.spec.config import DistillSpec, RecoverySpec
from autoprune.spec.document import parse_document
from autoprune.training.distillation import soft_loss
from autoprune.trial.recovery import finetune, resolve_recovery
from autoprune.trial.task import Calibration


def task_loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1])


def batch(count=32):
    return digits()[0][0][:count], digits()[0][1][:count]


def test_the_soft_loss_by_hand():
    """One prediction of two classes, logits (2, 0) and (0, 0), temperature 2."""
    p, q = 1 / (1 + math.exp(-1)), 0.5
    by_hand = 4 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / q))
    found = soft_loss(torch.tensor([[0.0, 0.0]]), torch.tensor([[2.0, 0.0]]), 2.0)
    assert float(found) == pytest.approx(by_hand)


def test_high_temperatures_match_logits():
    """In the limit it is the squared error of centred logits over 2 N (Hinton et al. 2015, equation 4)."""
    mine, theirs = torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    centred = (mine - mine.mean(1, keepdim=True)) - (theirs - theirs.mean(1, keepdim=True))
    limit = centred.square().sum(1).mean() / (2 * 5)
    assert float(soft_loss(mine, theirs, 1e4)) == pytest.approx(float(limit), rel=1e-3)


def test_the_whole_loss_is_its_parts_and_leaves_nothing_behind():
    student, teacher = net(0), net(1)
    loss = ap.Distillation(teacher, task_loss, temperature=3.0, weight=0.25, features=("2",), feature_weight=0.5)
    x, _ = data = batch()
    found = loss(student, data)
    hidden = [model[2](model[1](model[0](x))) for model in (student, teacher)]
    by_hand = (
        0.75 * task_loss(student, data)
        + 0.25 * soft_loss(student(x), teacher(x), 3.0)
        + 0.5 * (hidden[0] - hidden[1]).square().mean() / hidden[1].square().mean()
    )
    torch.testing.assert_close(found, by_hand)
    found.backward()
    assert all(weight.grad is not None for weight in student.parameters())
    assert all(weight.grad is None for weight in loss.teacher.parameters())
    assert not any(module._forward_hooks for module in (*student.modules(), *loss.teacher.modules()))


def test_outputs_that_name_their_logits_and_keyword_inputs():
    class Named(nn.Module):
        def __init__(self, seed):
            super().__init__()
            self.inner = net(seed)

        def forward(self, pixels=None):
            logits = self.inner(pixels)
            return {"loss": logits.sum(), "logits": logits}

    loss = ap.Distillation(Named(1), lambda model, batch: model(pixels=batch[0])["logits"].sum(), weight=1.0)
    x, _ = batch()
    torch.testing.assert_close(loss(Named(0), (x, None)), soft_loss(net(0)(x), net(1)(x), 4.0))


def test_it_trains_a_pruned_network_in_production():
    teacher = net(0)
    train(teacher, config(teacher, {}), ap.OneShotSchedule(), steps=200)
    student = net(0)
    student.load_state_dict(teacher.state_dict())
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9)
    sparsifier = ap.Sparsifier(student, config(student, {"0": ("weight", 0.9)}), optimizer)
    loss = ap.Distillation(teacher, task_loss, weight=1.0)
    data = batch(256)
    before = loss(student, data).item()
    for _ in range(50):
        optimizer.zero_grad()
        loss(student, data).backward()
        optimizer.step()
        sparsifier.step()
    assert loss(student, data).item() < 0.3 * before
    assert float((sparsifier.finalize()[0].weight == 0).float().mean()) == pytest.approx(0.9, abs=0.001)


@pytest.mark.parametrize("function", [ap.Distillation])
@pytest.mark.parametrize(
    ("options", "error", "sentence"),
    [
        ({"temperature": 0}, UsageError, "temperature of a distillation is above 0, not 0"),
        ({"weight": 1.5}, UsageError, "weight of a distillation is above 0 and at most 1, not 1.5"),
        ({"feature_weight": 0}, UsageError, "feature weight of a distillation is above 0"),
        ({"features": ("layer9",)}, UnknownNameError, "unknown module 'layer9'"),
    ],
)
def test_what_cannot_be_is_one_sentence(function, options, error, sentence):
    with pytest.raises(error, match=sentence):
        function(net(0), task_loss, **options)


def test_features_whose_channels_were_removed_are_named():
    narrow = nn.Sequential(nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 32), nn.ReLU(), nn.Linear(32, 10))
    with pytest.raises(ConfigError, match=r"module '0' gives \(32, 24\) in the pruned network and \(32, 48\)"):
        ap.Distillation(net(0), task_loss, features=("0",))(narrow, batch())


def test_the_recovery_of_a_trial_distils_under_its_masks():
    teacher = net(0)
    train(teacher, config(teacher, {}), ap.OneShotSchedule(), steps=200)
    chosen = config(teacher, {"0": ("weight", 0.9)}).model_copy(
        update={"recovery": RecoverySpec(finetune_steps=60, distill=DistillSpec(weight=1.0, learning_rate=0.05))}
    )
    batches = [batch(128)]
    example = digits()[1][0][:2]
    plain = ap.apply(teacher, chosen.model_copy(update={"recovery": RecoverySpec()}), example)
    taught = ap.apply(teacher, chosen, example, batches=batches, loss=task_loss)
    assert torch.equal(taught[0].weight == 0, plain[0].weight == 0)
    x = digits()[1][0]
    with torch.no_grad():
        apart = [float(soft_loss(model(x), teacher(x), 4.0)) for model in (plain, taught)]
    assert apart[1] < 0.5 * apart[0]


def test_a_trial_says_what_was_done_and_what_is_missing():
    spec = RecoverySpec(finetune_steps=2, distill=DistillSpec())
    told = finetune(net(0), spec, Calibration((), [batch()], task_loss), {}, 0, net(1))
    assert told == "distilled 2 steps at temperature 4"
    with pytest.raises(TaskError, match=r"the task has no batches and no loss; give Task.batches and Task.loss"):
        resolve_recovery(spec, net(0), Calibration())
    odd = RecoverySpec(finetune_steps=2, distill=DistillSpec(features=("22",)))
    with pytest.raises(TaskError, match=r"recovery.distill.features names '22'"):
        resolve_recovery(odd, net(0), Calibration((), [batch()], task_loss))


def test_the_section_is_strict_and_old_files_keep_their_meaning():
    assert RecoverySpec().to_data() == {"finetune_steps": 0, "compensate": "none"}
    parsed = parse_document(RecoverySpec, {"finetune_steps": 5, "distill": {"temperature": 2}}, "study.yaml")
    assert parsed.distill == DistillSpec(temperature=2.0)
    for data, sentence in (
        ({"distill": {}}, "distill needs finetune_steps above 0"),
        ({"finetune_steps": 5, "distill": {"temperatur": 2}}, "temperature"),
        ({"finetune_steps": 5, "distill": {"temperature": 0}}, "temperature"),
    ):
        with pytest.raises(SpecError, match=sentence):
            parse_document(RecoverySpec, data, "study.yaml")
