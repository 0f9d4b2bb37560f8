"""One rung of a real trial: the sample and the steps that it names, the dense model on the same, nothing measured."""

import dataclasses

import pytest
import torch
from small_task import agreement, labelled, small_net, task

from autoprune.spec.config import LayerChoice
from autoprune.spec.study import StudySpec, resolve_study
from autoprune.trial.pruned import pruned_model, recover_pruned
from autoprune.trial.runner import TrialRunner


@pytest.fixture(scope="module")
def runner():
    """The small task with a tenth of its labels wrong, and a fine-tuning that counts its steps."""
    inputs, labels = labelled(small_net(), 200, 1)
    labels = torch.where(torch.arange(200) % 10 == 0, (labels + 1) % 4, labels)

    def finetune(model, steps):
        with torch.no_grad():
            model.head.bias[0] += 0.1 * steps

    given = dataclasses.replace(
        task(),
        evaluate=lambda model: agreement(model, (inputs, labels)),
        evaluate_sample=lambda model, samples: agreement(model, (inputs[:samples], labels[:samples])),
        finetune=finetune,
    )
    spec = resolve_study(
        StudySpec(
            task="a:b",
            device="eyeriss",
            space="channels",
            objectives=("accuracy_drop", "macs"),
            search={"rungs": [{"samples": 50}, {}, {"finetune_steps": 3}]},
            recovery={"batchnorm_samples": 32, "finetune_steps": 9},
        )
    )
    return TrialRunner(given, spec)


def config_of(runner):
    choice = LayerChoice(granularity="channel", criterion="magnitude_l1", sparsity=0.5)
    return runner.dense_config.model_copy(update={"recovery": runner.recovery, "layers": {"inner": (choice,)}})


@pytest.mark.parametrize(
    ("rung", "name", "samples", "steps"),
    [(0, "50 samples", 50, 0), (1, "all samples", 200, 0), (2, "3 steps on all samples", 200, 3)],
)
def test_a_rung_scores_the_network_that_its_recovery_makes(runner, rung, name, samples, steps):
    dense, config = runner.run_dense(0), config_of(runner)
    record = runner.run(config, 5, "tpe", dense, rung)
    recovery = config.recovery.model_copy(update={"finetune_steps": steps})
    by_hand = config.model_copy(update={"recovery": recovery})
    pruned = pruned_model(runner.model, runner.graph, runner.book, by_hand)
    recover_pruned(pruned, by_hand, runner.data)
    score, dense_score = (runner.task.evaluate_sample(model.eval(), samples) for model in (pruned.model, runner.model))
    (reached,) = record.rungs
    assert (reached.name, reached.score, reached.drop) == (name, score, dense_score - score)
    assert (record.state, record.score, record.latency) == ("pruned", None, None)
    assert record.values["macs"] == runner.costs.of_config(config).values["macs"]
    assert "accuracy_drop" not in record.values, "a rung is no measurement of the trial"
    assert reached.seconds == pytest.approx(record.timings.total_s - record.timings.cost_s - record.timings.prune_s)


def test_past_the_last_rung_the_trial_is_whole(runner):
    dense, config = runner.run_dense(0), config_of(runner)
    whole, same = runner.run(config, 5, "tpe", dense, 3), runner.run(config, 5, "tpe", dense)
    assert whole.state == "complete"
    assert whole.rungs is None
    assert whole.recovery.startswith("fine-tuned 9 steps")
    assert whole.values == same.values


def test_a_bound_on_costs_stops_a_trial_before_its_first_rung(runner):
    bounded = runner.spec.model_copy(update={"constraints": {"macs": "50%"}})
    dense = runner.run_dense(0)
    whole = runner.spec
    runner.spec = bounded
    try:
        record = runner.run(config_of(runner), 5, "tpe", dense, 0)
    finally:
        runner.spec = whole
    assert record.state == "complete"
    assert set(record.violations) == {"macs"}
    assert record.rungs is None
