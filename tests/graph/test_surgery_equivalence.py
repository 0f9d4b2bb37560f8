"""The property behind everything: the smaller model is the dense one whose consumers do not read what is gone."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import architectures
import pytest
import sequence_models
import torch
from torch import Tensor, nn

from autoprune.graph.groups import ModelGraph, find_groups
from autoprune.pruning.plan import cuts_of
from autoprune.pruning.proof import surgery_error
from autoprune.pruning.surgery import cut

EXACT = 1e-9
CASES: dict[str, tuple[Callable[[], nn.Module], list[tuple[int, ...]] | int]] = {
    **architectures.CONVOLUTIONAL,
    **sequence_models.PLAIN,
    **{
        f"{name}-{attention}": (lambda name=name, attention=attention: sequence_models.tiny(name, attention), 19)
        for name in ("bert", "gpt2", "llama")
        for attention in ("sdpa", "eager")
    },
}
TRANSFORMERS = ("bert", "gpt2", "llama")


def build(name: str, seed: int = 0) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Return the network in float64 with every parameter and statistic random, and inputs."""
    if name.startswith(TRANSFORMERS):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a third party's import says is not ours to mend
            pytest.importorskip("transformers")
    make, shapes = CASES[name]
    torch.manual_seed(seed)
    model = architectures.randomised(make()).double().eval()
    if isinstance(shapes, int):
        return model, (torch.randint(0, shapes, (2, 6)),)
    return model, tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)


def first(output: object) -> Tensor:
    """Return the first tensor of a model's output."""
    return output if isinstance(output, Tensor) else output[0]  # type: ignore[index]


def some_units(graph: ModelGraph, seed: int) -> dict[str, Tensor]:
    """Choose random units, between one and all but one, of a random choice of groups."""
    generator = torch.Generator().manual_seed(seed)
    gone = {}
    for name, group in graph.groups.items():
        if group.units > 1 and torch.rand((), generator=generator) < 0.8:
            count = int(torch.randint(1, group.units, (), generator=generator))
            gone[name] = torch.randperm(group.units, generator=generator)[:count]
    return gone


@pytest.mark.parametrize("name", CASES)
def test_the_smaller_model_is_the_masked_dense_one(name: str) -> None:
    model, inputs = build(name)
    graph = find_groups(model, inputs)
    for seed in range(4):
        gone = some_units(graph, seed)
        assert gone
        assert surgery_error(model, graph, gone, inputs) < EXACT


@pytest.mark.parametrize("name", CASES)
def test_every_group_alone_is_exact_and_its_removal_matters(name: str) -> None:
    model, inputs = build(name, seed=1)
    graph = find_groups(model, inputs)
    dense = first(model(*inputs))
    for group_name, group in graph.groups.items():
        gone = {group_name: torch.arange(group.units - 1)}
        smaller = cut(model, cuts_of(graph, gone))
        assert surgery_error(model, graph, gone, inputs) < EXACT
        assert sum(p.numel() for p in smaller.parameters()) < sum(p.numel() for p in model.parameters())
        difference = (first(smaller(*inputs)) - dense).abs().max() / dense.abs().max()
        assert difference > 1e-6, f"the output does not see {group_name!r}, so the test is vacuous"


@pytest.mark.parametrize("name", CASES)
def test_single_precision_stays_close(name: str) -> None:
    model, inputs = build(name, seed=2)
    graph = find_groups(model, inputs)
    model = model.float()
    inputs = tuple(value.float() if value.is_floating_point() else value for value in inputs)
    assert surgery_error(model, graph, some_units(graph, 0), inputs) < 1e-5


def test_finding_and_cutting_leave_the_dense_model_alone() -> None:
    model, inputs = build("resnet-projection")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    graph = find_groups(model, inputs)
    cut(model, cuts_of(graph, some_units(graph, 0)))
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
