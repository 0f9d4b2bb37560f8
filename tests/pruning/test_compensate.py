"""Compensation: against dense solves, never worse than the mask alone, exact where it can be."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autoprune.errors import TaskError
from autoprune.graph.groups import find_groups
from autoprune.pruning.columns import add_moments
from autoprune.pruning.compensate import DAMPING, compensate, masked_least_squares
from autoprune.pruning.granularity import granularity
from autoprune.pruning.plan import make_plan
from autoprune.pruning.scores import ScoreBook
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig, RecoverySpec
from autoprune.trial.pruned import pruned_model, recover_pruned
from autoprune.trial.recovery import resolve_recovery
from autoprune.trial.task import Calibration


def problem(seed, rows=5, inner=12, samples=200):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(inner, inner, dtype=torch.float64, generator=generator)
    x = mixing @ torch.randn(inner, samples, dtype=torch.float64, generator=generator)
    return torch.randn(rows, inner, dtype=torch.float64, generator=generator), x


def error(weight, fitted, x):
    return float(((weight - fitted) @ x).square().sum())


@pytest.mark.parametrize("key", ["weight", "2:4", "block:5x2", "column", "row"])
def test_the_solver_against_a_dense_solve_row_by_row(key):
    weight, x = problem(1)
    support = granularity(key).mask(weight.abs(), 0.5)
    fitted = masked_least_squares(weight, support, x @ x.T)
    assert not bool(fitted[~support].any())
    for row in range(len(weight)):
        kept = support[row]
        if bool(kept.any()):
            solved = torch.linalg.lstsq(x[kept].T, x.T @ weight[row]).solution
            reached, best = error(weight[row, None], fitted[row, None], x), (x[kept].T @ solved - x.T @ weight[row])
            assert reached == pytest.approx(float(best.square().sum()), rel=1e-6)
            assert torch.allclose(fitted[row, kept], solved, atol=1e-2 * float(solved.abs().max()))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.sampled_from(["weight", "2:4", "1:4", "block:1x4", "column"]))
def test_obs_is_never_worse_than_magnitude_with_the_same_mask(seed, key):
    weight, x = problem(seed)
    support = granularity(key).mask(weight.abs(), 0.5)
    moments = add_moments(None, nn.Linear(12, 5).double(), x.T)
    fitted = masked_least_squares(weight, support, moments.damped(DAMPING)[0])
    seen = x  # a linear layer of 200 rows is seen whole
    assert moments.count == seen.shape[1]
    assert error(weight, fitted, seen) <= error(weight, weight * support, seen) * (1 + 1e-9)


def test_a_mask_chosen_by_obs_beats_one_by_magnitude_once_both_are_compensated():
    for seed in range(20):
        weight, x = problem(seed, rows=1)
        hessian = x @ x.T / x.shape[1]
        inverse = torch.linalg.inv(hessian).diagonal()
        obs = granularity("weight").mask(weight.square() / inverse, 0.1)
        magnitude = granularity("weight").mask(weight.abs(), 0.1)
        assert int((~obs).sum()) == int((~magnitude).sum()) == 1
        reached = [error(weight, masked_least_squares(weight, mask, hessian), x) for mask in (obs, magnitude)]
        assert reached[0] <= reached[1] * (1 + 1e-9), "for one weight, OBS is the optimum"


def config_of(graph, layers, **recovery):
    choices = {name: (LayerChoice(**entry),) for name, entry in layers.items()}
    recovery = RecoverySpec(batchnorm_samples=0, **recovery)
    return PruningConfig(model=ModelIdentity(fingerprint=graph.fingerprint), layers=choices, recovery=recovery)


CHANNELS = {"inner": {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5}}
WEIGHTS = {
    name: {"granularity": "weight", "criterion": "magnitude_l1", "sparsity": 0.6}
    for name in ("inner", "outer", "grouped", "head")
}


def outputs(model, batches, name=None):
    taken = []
    module = model.get_submodule(name) if name else model
    hook = module.register_forward_hook(lambda _, args, output: taken.append(output))
    with torch.no_grad():
        for batch in batches:
            model(batch[0])
    hook.remove()
    return torch.cat(taken)


def drift(net, graph, book, batches, layers, method):
    config = config_of(graph, layers, compensate=method)
    pruned = pruned_model(net, graph, book, config)
    text = recover_pruned(pruned, config, Calibration(batches[0][0], batches)).text
    return float((outputs(pruned.model, batches) - outputs(net, batches)).square().mean()), text, pruned


@pytest.mark.parametrize("layers", [CHANNELS, WEIGHTS, {"outer": WEIGHTS["outer"] | {"granularity": "kernel"}}])
def test_the_network_drifts_less_with_every_step_of_compensation(net, graph, book, batches, layers):
    none, text, _ = drift(net, graph, book, batches, layers, "none")
    assert text == "none"
    bias, text, _ = drift(net, graph, book, batches, layers, "bias")
    assert text.startswith("bias compensation of ")
    fitted, text, pruned = drift(net, graph, book, batches, layers, "least_squares")
    assert text.startswith("least squares compensation of ")
    assert fitted < bias < none
    parameters = dict(pruned.model.named_parameters())
    for name, mask in pruned.plan.masks.items():
        assert not bool(parameters[name][~mask].any()), "what was removed stays zero"


def test_bias_brings_mean_outputs_back(net, graph, book, batches):
    layers = {"head": WEIGHTS["head"]}
    _, _, pruned = drift(net, graph, book, batches, layers, "bias")
    before, after = outputs(net, batches, "head").mean(0), outputs(pruned.model, batches, "head").mean(0)
    assert torch.allclose(before, after, atol=1e-6)


def test_a_duplicate_channel_is_taken_over_by_its_twin(net, batches):
    with torch.no_grad():
        net.inner.weight[5], net.inner.bias[5] = net.inner.weight[2] * 0.5, net.inner.bias[2] * 0.5
    graph = find_groups(net, (batches[0][0],))
    book = ScoreBook(Calibration(batches[0][0], batches).evidence(net, graph, 0))
    config = config_of(graph, {"inner": CHANNELS["inner"] | {"sparsity": 0.09}})
    plan = make_plan(config, graph, book)
    assert plan.cuts["inner.weight", 0].tolist() == [c for c in range(12) if c != 5]
    layers = {"inner": CHANNELS["inner"] | {"sparsity": 0.09}}
    none, _, _ = drift(net, graph, book, batches, layers, "none")
    fitted, _, _ = drift(net, graph, book, batches, layers, "least_squares")
    assert fitted < 0.01 * none


def test_the_dense_model_is_not_touched(net, graph, book, batches):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    drift(net, graph, book, batches, WEIGHTS, "least_squares")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_one_pass_over_the_data_serves_all_trials(net, graph, batches):
    walks = []

    def walk():
        walks.append(1)
        return iter(batches)

    book = ScoreBook(Calibration(batches[0][0], walk).evidence(net, graph, 0))
    for method in ("least_squares", "least_squares", "bias"):
        drift(net, graph, book, batches, CHANNELS, method)
    assert len(walks) == 1


def test_layers_that_cannot_be_compensated_stay(net, graph, book, evidence):
    config = config_of(graph, WEIGHTS)
    pruned = pruned_model(net, graph, book, config)
    assert compensate(pruned.model, net, graph, pruned.plan, {}, "least_squares") == ()
    moments = ScoreBook(dataclasses.replace(evidence, weights=("head.weight",))).moments(second=True)
    assert compensate(pruned.model, net, graph, pruned.plan, moments, "least_squares") == ("head",)


def test_compensation_without_data_says_what_to_give(net):
    with pytest.raises(TaskError, match=r"recovery.compensate is 'bias', and the task has no batches; give"):
        resolve_recovery(RecoverySpec(compensate="bias"), net, Calibration())
    with pytest.raises(ValueError, match="'none', 'bias' or 'least_squares'"):
        RecoverySpec(compensate="obs")
