"""The guard after pruning: what differs from config and record is told, and nothing else."""

import copy

import pytest
import torch
from small_task import images, small_net, task

import autoprune
from autoprune.errors import SurgeryError
from autoprune.graph.trace import fingerprint
from autoprune.spec.config import PruningConfig
from autoprune.spec.study import StudySpec
from autoprune.trial.runner import TrialRunner

LAYERS = {
    "stem": {"granularity": "channel", "criterion": "magnitude_l2", "sparsity": 0.25},
    "inner": [
        {"granularity": "channel", "criterion": "magnitude_l2", "sparsity": 0.5},
        {"granularity": "weight", "criterion": "magnitude_l1", "sparsity": 0.75},
    ],
    "outer": {"granularity": "row", "criterion": "magnitude_l1", "sparsity": 0.5},
}


def config_of(layers):
    data = {"schema": "autoprune/config/1", "model": {"fingerprint": fingerprint(small_net())}, "layers": layers}
    return PruningConfig.model_validate(data)


@pytest.fixture(scope="module")
def trial():
    """Return the record of a trial, counted at batch 3 by the study."""
    spec = StudySpec.model_validate(
        {
            "schema": "autoprune/study/1",
            "task": "x:y",
            "device": "eyeriss",
            "space": "channels",
            "latency": {"batch": 3},
        }
    )
    runner = TrialRunner(task(), spec)
    dense = runner.run_dense(0)
    return runner.run(config_of(LAYERS), 1, "test", dense)


@pytest.fixture
def smaller():
    known = task()
    return autoprune.apply(known.model, config_of(LAYERS), known.example_inputs, batches=known.batches)


def test_a_network_as_asked_has_no_differences(smaller, trial):
    for asked in (config_of(LAYERS), trial):
        achieved = autoprune.verify(smaller, asked, small_net(), images(2, 0))
        assert achieved.differences == ()
        assert str(achieved) == "as asked"
        achieved.raise_for_differences()


def test_every_layer_that_differs_is_named(smaller, trial):
    with torch.no_grad():
        smaller.inner.weight[0, 0, 0, :2] = 1.0
    other = config_of(LAYERS | {"stem": {"granularity": "channel", "criterion": "random", "sparsity": 0.5}})
    told = str(autoprune.verify(smaller, other, small_net(), images(1, 0)))
    assert "stem.weight has 6 of 8 along dimension 0 where 4 are asked" in told
    assert "outer.weight has 6 of 8 along dimension 0 where 4 are asked" in told
    assert "inner is 7" in told
    assert "where weight at 75.0% is asked (" in told
    with pytest.raises(SurgeryError, match=r"not what was asked: .*; apply the config to it anew"):
        autoprune.verify(smaller, other, small_net(), images(1, 0)).raise_for_differences()


def test_a_record_of_another_trial_is_seen(smaller, trial):
    inner = trial.layers["inner"]
    odd = trial.model_copy(
        update={
            "layers": trial.layers
            | {"inner": inner.model_copy(update={"channels": 5, "macs": inner.macs + 3, "weight_sparsity": 0.5})},
            "values": trial.values | {"params": 1.0},
        }
    )
    told = autoprune.verify(smaller, odd, small_net(), images(1, 0)).differences
    assert any("inner has 6 channels where the record has 5" in each for each in told)
    assert any("inner is 75.0% zero where the record has 50.0%" in each for each in told)
    assert any("parameters where the record has 1" in each for each in told)
    assert f"inner has {inner.macs:,} MACs where the record has {inner.macs + 3:,}" in told


def test_outputs_that_are_not_finite_and_a_drop_are_told(smaller):
    broken = copy.deepcopy(smaller)
    with torch.no_grad():
        broken.head.bias[0] = float("nan")
    told = autoprune.verify(broken, config_of(LAYERS), small_net(), images(1, 0), drop=0.031, max_drop=0.01)
    assert told.differences == (
        "its outputs on the example inputs are not finite",
        "the accuracy drop is 0.031 where at most 0.01 is allowed",
    )
    assert not autoprune.verify(
        smaller, config_of(LAYERS), small_net(), images(1, 0), drop=0.01, max_drop=0.01
    ).differences


def test_what_a_threshold_decides_is_not_compared(smaller):
    layers = LAYERS | {"stem": {"granularity": "channel", "criterion": "random", "threshold": {"std": 1.0}}}
    achieved = autoprune.verify(smaller, config_of(layers), small_net(), images(1, 0))
    assert achieved.differences == ()
    assert achieved.unchecked == ("stem: a threshold decides how much goes",)
