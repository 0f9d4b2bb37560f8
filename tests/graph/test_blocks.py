"""Residual blocks: found where the identity is exact, and then really removed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import architectures
import pytest
import sequence_models
import torch
from test_surgery_equivalence import CASES, build, first, some_units
from torch import Tensor, nn
from torch.nn import functional as F

from autoprune.cost.macs import count_macs
from autoprune.deploy.achieved import config_differences
from autoprune.deploy.save import load_pruned, save_pruned
from autoprune.errors import ConfigError, UnknownNameError
from autoprune.graph.groups import find_groups
from autoprune.graph.skip import Skip
from autoprune.pruning.criteria import Evidence
from autoprune.pruning.plan import Plan, cuts_of, make_plan
from autoprune.pruning.proof import consumers_zeroed
from autoprune.pruning.scores import ScoreBook
from autoprune.pruning.surgery import cut, prune
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig
from autoprune.spec.hardware import load_device
from autoprune.trial.costs import TrialCosts

RESIDUAL = [
    "resnet-projection",
    "resnet-padding",
    "mobilenet-v2-se",
    "char-gpt",
    "mlp-mixer",
    "gpt2-sdpa",
    "gpt2-eager",
    "llama-sdpa",
    "llama-eager",
]


class Trunk(nn.Module):
    """Three blocks of one width behind one that makes it."""

    def __init__(self, blocks: int = 4, width: int = 6) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 1, 1)
        inputs = [4] + [width] * (blocks - 1)
        self.layer = nn.Sequential(*(architectures.ProjectionBlock(n, width, 1) for n in inputs))
        self.fc = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.layer(F.relu(self.stem(x))).mean((2, 3)))


def trunk(seed: int = 0) -> tuple[nn.Module, tuple[Tensor]]:
    torch.manual_seed(seed)
    return architectures.randomised(Trunk()).double().eval(), (torch.randn(2, 3, 8, 8, dtype=torch.float64),)


def config_of(model: nn.Module, inputs: tuple[Tensor, ...], name: str, sparsity: float) -> PruningConfig:
    identity = ModelIdentity(fingerprint=find_groups(model, inputs).fingerprint)
    choice = LayerChoice(granularity="depth", criterion="magnitude_l1", sparsity=sparsity)
    return PruningConfig(model=identity, layers={name: (choice,)})


def plan_for(model: nn.Module, inputs: tuple[Tensor, ...], name: str, sparsity: float) -> Plan:
    graph = find_groups(model, inputs)
    weights = tuple(layer.weight for layer in graph.layers.values())
    book = ScoreBook(Evidence(model, weights, tuple(graph.norm_scales)))
    return make_plan(config_of(model, inputs, name, sparsity), graph, book)


def test_a_stage_counts_the_block_that_must_stay() -> None:
    model, inputs = trunk()
    stages = find_groups(model, inputs).stages
    assert list(stages) == ["layer.1"]
    stage = stages["layer.1"]
    assert ([block.name for block in stage.blocks], stage.depth) == (["layer.1", "layer.2", "layer.3"], 4)
    assert stage.blocks[0].layers == ("layer.1.conv1", "layer.1.conv2")


@pytest.mark.parametrize(("sparsity", "gone"), [(0.0, 0), (0.24, 0), (0.25, 1), (0.5, 2), (0.75, 3), (0.99, 3)])
def test_never_more_blocks_go_than_asked(sparsity: float, gone: int) -> None:
    assert len(plan_for(*trunk(), "layer.1", sparsity).skipped) == gone


def test_the_lowest_block_goes_and_the_network_is_the_one_with_its_branch_zero() -> None:
    model, inputs = trunk()
    with torch.no_grad():
        model.layer[2].conv1.weight.mul_(0.01)
        model.layer[2].conv2.weight.mul_(0.01)
    plan = plan_for(model, inputs, "layer.1", 0.25)
    assert list(plan.skipped) == ["layer.2"]
    smaller = prune(model, plan)
    assert isinstance(smaller.layer[2], Skip)
    assert not list(smaller.layer[2].parameters())
    with torch.no_grad():  # by hand: the norm at the end of the branch gives zero
        model.layer[2].bn2.weight.zero_()
        model.layer[2].bn2.bias.zero_()
    torch.testing.assert_close(smaller(*inputs), model(*inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", RESIDUAL)
def test_blocks_go_together_with_channels(name: str) -> None:
    model, inputs = build(name)
    graph = find_groups(model, inputs)
    assert graph.stages, "the architecture has residual blocks"
    skipped = {block.name: block.length for stage in graph.stages.values() for block in stage.blocks}
    gone = some_units(graph, seed=3)
    smaller = first(cut(model, cuts_of(graph, gone), skipped)(*inputs))
    masked = first(cut(consumers_zeroed(model, graph, gone), {}, skipped)(*inputs))
    assert (smaller - masked).abs().max() <= 1e-9 * masked.abs().max()
    assert (first(model(*inputs)) - masked).abs().max() > 1e-6 * masked.abs().max()


@pytest.mark.parametrize("name", sorted(set(CASES) - {*RESIDUAL}))
def test_where_the_identity_is_not_exact_no_block_is_offered(name: str) -> None:
    model, inputs = build(name)
    assert not find_groups(model, inputs).stages


def test_a_norm_or_a_new_activation_behind_the_addition_keeps_the_block() -> None:
    class Block(nn.Module):
        def __init__(self, after: nn.Module) -> None:
            super().__init__()
            self.body, self.after = nn.Linear(6, 6), after

        def forward(self, x: Tensor) -> Tensor:
            return self.after(x + self.body(x))

    x = torch.randn(4, 6)
    # what leaves the first block has passed its ReLU, so the second may go where the first may not
    for after, offered in ((nn.LayerNorm(6), []), (nn.ReLU(), ["2"]), (nn.ReLU6(), ["2"]), (nn.Identity(), ["1", "2"])):
        model = nn.Sequential(nn.Linear(6, 6), Block(after), Block(after), nn.Linear(6, 2))
        stages = find_groups(model, (x,)).stages
        assert [block.name for stage in stages.values() for block in stage.blocks] == offered, type(after)
    relu = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), Block(nn.ReLU()), Block(nn.ReLU()), nn.Linear(6, 2))
    assert [block.name for block in find_groups(relu, (x,)).stages["2"].blocks] == ["2", "3"]


def test_a_network_without_blocks_loads_bit_for_bit(tmp_path: Path) -> None:
    model, inputs = trunk()
    smaller = prune(model, plan_for(model, inputs, "layer.1", 0.5))
    path = tmp_path / "pruned.safetensors"
    save_pruned(smaller, path, config_of(model, inputs, "layer.1", 0.5))
    loaded = load_pruned(Trunk().double(), path)
    assert torch.equal(loaded(*inputs), smaller(*inputs))
    other = build("vgg")[0]
    with pytest.raises(ConfigError, match="architecture"):
        load_pruned(other, path)


def test_wrong_names_are_told() -> None:
    model, inputs = trunk()
    with pytest.raises(ConfigError, match=r"belongs to stage 'layer\.1'"):
        plan_for(model, inputs, "layer.2", 0.5)
    with pytest.raises(ConfigError, match=r"block 'layer\.0' stays: the identity replaces .*; choose among 'layer\.1'"):
        plan_for(model, inputs, "layer.0", 0.5)
    with pytest.raises(UnknownNameError, match="did you mean"):
        plan_for(model, inputs, "layer.10", 0.5)
    with pytest.raises(ConfigError, match=r"'stem' is a layer, and 'depth' removes whole residual blocks"):
        plan_for(model, inputs, "stem", 0.5)
    with pytest.raises(ConfigError, match=r"'layer' is no block; blocks are in it: prune 'layer\.1'"):
        plan_for(model, inputs, "layer", 0.5)
    bert_like, x = build("vgg")
    with pytest.raises(ConfigError, match="no residual block"):
        plan_for(bert_like, x, "features", 0.5)


def test_transformer_layers_return_in_their_own_form() -> None:
    pytest.importorskip("transformers")
    model = sequence_models.tiny("gpt2", "sdpa").double().eval()
    ids = torch.randint(0, 19, (2, 6))
    blocks = {b.name: b.length for s in find_groups(model, (ids,)).stages.values() for b in s.blocks}
    smaller = cut(model, {}, blocks)
    assert first(smaller(ids)).shape == first(model(ids)).shape


def test_costs_guards_and_records_of_a_network_without_a_block() -> None:
    model, inputs = trunk()
    model, inputs = model.float(), tuple(x.float() for x in inputs)
    graph = find_groups(model, inputs)
    config = config_of(model, inputs, "layer.1", 0.5)
    book = ScoreBook(Evidence(model, tuple(layer.weight for layer in graph.layers.values()), tuple(graph.norm_scales)))
    plan = make_plan(config, graph, book)
    smaller = prune(model, plan)
    costing = TrialCosts(model, graph, (inputs, {}), load_device("eyeriss"), "torch")
    assert costing.of_config(config) is None, "only scores tell which block goes"
    costs = costing.of_built(smaller, plan)
    assert costs.values["macs"] == count_macs(smaller, inputs).total < count_macs(model, inputs).total
    gone = [name for name, layer in costs.layers.items() if layer.channels == 0]
    assert gone == [
        layer for block in graph.stages["layer.1"].blocks if block.name in plan.skipped for layer in block.layers
    ]
    assert not config_differences(smaller, config, graph)
    told = config_differences(prune(model, replace(plan, skipped={})), config, graph)
    assert told == ["stage layer.1 lost 0 of 4 blocks where 2 are asked"]
