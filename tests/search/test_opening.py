"""The first trials: dense, a uniform ladder, published allocations, all on the grid of the space."""

import dataclasses

import pytest
import torch
from torch import nn

from autoprune.pruning.allocation import allocate
from autoprune.pruning.criteria import Evidence
from autoprune.pruning.proof import proven_groups
from autoprune.pruning.scores import ScoreBook
from autoprune.search.opening import opening
from autoprune.search.proposals import make_proposals
from autoprune.spec.config import RecoverySpec
from autoprune.spec.space import SpaceRule, SpaceSpec, SparsityRange


def parts(granularity):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 8, 3)).eval()
    graph, _ = proven_groups(model, (torch.randn(1, 3, 12, 12),))
    rule = SpaceRule(
        granularity=granularity, criterion=("magnitude_l1",), sparsity=SparsityRange(low=0.0, high=0.8, step=0.1)
    )
    book = ScoreBook(Evidence(model, tuple(layer.weight for layer in graph.layers.values()), ()))
    space = SpaceSpec(name="test", rules=(rule,))
    return make_proposals(space, graph, RecoverySpec(), 0, book), graph, book


def test_the_dense_model_in_int8_comes_before_the_ladder_where_int8_may_be_chosen():
    proposals, graph, book = parts(("channel", "weight"))
    first = opening(dataclasses.replace(proposals, precisions=("fp32", "int8")), graph, book, 10)
    assert [trial.origin for trial in first] == ["dense", "int8", "uniform", "uniform", "global"]
    assert [trial.params["precision"] for trial in first] == ["fp32", "int8", "fp32", "fp32", "fp32"]


def test_forty_trials_begin_with_dense_a_ladder_and_allocations():
    proposals, graph, book = parts(("channel", "weight"))
    first = opening(proposals, graph, book, 40)
    assert [trial.origin for trial in first] == [
        "dense",
        *["uniform"] * 8,
        "global",
        "lamp",
        "erdos_renyi_kernel",
        "global",
    ]
    assert not proposals.config(first[0].params).layers
    for trial in first:
        assert all(
            trial.params[name] in choices for knob in proposals.knobs for name, choices in knob.parameters().items()
        )


@pytest.mark.parametrize("granularity", ["channel", "weight"])
def test_an_allocation_is_tried_as_near_as_the_grid_allows(granularity):
    proposals, graph, book = parts((granularity,))
    tried = next(trial for trial in opening(proposals, graph, book, 40) if trial.origin == "erdos_renyi_kernel")
    wanted = allocate("erdos_renyi_kernel", graph, book, granularity, "magnitude_l1", sparsity=0.5)
    assert wanted.layers
    for name, choices in wanted.layers.items():
        assert abs(tried.params[f"{name}|sparsity"] - min(choices[0].fraction, 0.8)) <= 0.05 + 1e-9


def test_a_space_of_fixed_patterns_has_no_allocation():
    proposals, graph, book = parts(("2:4",))
    assert {trial.origin for trial in opening(proposals, graph, book, 40)} == {"dense", "uniform"}


def test_few_trials_begin_with_the_dense_model_alone():
    proposals, graph, book = parts(("channel",))
    assert [trial.origin for trial in opening(proposals, graph, book, 4)] == ["dense"]
