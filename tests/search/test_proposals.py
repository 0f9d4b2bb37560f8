"""Proposals: one static set of parameters; configs that fit the model and never remove more than was asked."""

import dataclasses
import functools
import random

import pytest
import torch
from small_task import SmallNet, images, small_net, task
from torch import nn

from autoprune.errors import ConfigError, UnknownNameError
from autoprune.graph.groups import find_groups
from autoprune.pruning.plan import check_config, make_plan
from autoprune.pruning.scores import ScoreBook
from autoprune.search.proposals import make_proposals
from autoprune.spec.config import RecoverySpec
from autoprune.spec.space import SpaceSpec
from autoprune.trial.task import Calibration


class Asked:
    """Stands for a trial of Optuna: answers at random and remembers what it was asked."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.names = {}

    def suggest_categorical(self, name, choices):
        self.names[name] = tuple(choices)
        return self.random.choice(list(choices))

    def suggest_float(self, name, low, high, *, step=None):
        self.names[name] = (low, high, step)
        return low + step * self.random.randint(0, round((high - low) / step))


@functools.cache
def graph_of(width):
    return find_groups(small_net(width), (images(2, 0),))


def proposals(model, *rules, inputs=None):
    """Lay rules over a model; the small task's data is there unless other inputs are given."""
    known = isinstance(model, SmallNet) and inputs is None
    graph = graph_of(model.stem.out_channels) if known else find_groups(model, (inputs,))
    evidence = task().calibration if inputs is None else Calibration(inputs)
    space = SpaceSpec.model_validate({"schema": "autoprune/space/1", "name": "s", "rules": list(rules)})
    book = ScoreBook(evidence.evidence(model, graph, 0))
    return make_proposals(space, graph, RecoverySpec(batchnorm_samples=0), 0, book), graph, book


MIXED = {
    "granularity": ["channel", "weight", "2:4"],
    "criterion": ["magnitude_l1", "taylor", "batchnorm_scale", "random"],
    "sparsity": {"low": 0.0, "high": 0.8, "step": 0.1},
}


def test_every_trial_is_asked_the_same_parameters_and_every_config_fits():
    found, graph, book = proposals(small_net(), MIXED)
    asked = [Asked(seed) for seed in range(40)]
    configs = [found.suggest(trial) for trial in asked]
    assert all(trial.names == asked[0].names for trial in asked)
    assert {choice.granularity for config in configs for _, choice in config.choices()} == {"channel", "weight", "2:4"}
    for config in configs:
        check_config(config, graph)
        make_plan(config, graph, book)


def test_what_is_searched_is_what_optuna_is_asked():
    found, _, _ = proposals(small_net(), MIXED)
    trial = Asked(0)
    found.suggest(trial)
    for sparsity in (0.0, 0.3, 0.8):
        assert set(found.searched(found.uniform(sparsity))) == set(trial.names)


@pytest.mark.parametrize("sparsities", [[0.3, 0.6], [0.0, 0.5], {"low": 0.1, "high": 0.5, "step": 0.1}])
@pytest.mark.parametrize("granularity", [["channel"], ["weight"], ["2:4"], ["weight", "channel"], ["2:4", "channel"]])
def test_uniform_zero_is_the_dense_model(granularity, sparsities):
    found, _, _ = proposals(small_net(), MIXED | {"granularity": granularity, "sparsity": sparsities})
    assert found.config(found.uniform(0.0)).layers == {}


def test_a_uniform_config_cuts_channels_where_they_can_go():
    found, graph, _ = proposals(small_net(), MIXED)
    config = found.config(found.uniform(0.5))
    assert {name: [c.granularity for c in choices] for name, choices in config.layers.items()} == {
        name: ["channel"] for name in graph.groups
    }
    assert all(choice.fraction == pytest.approx(0.5, abs=0.05) for _, choice in config.choices())


def test_a_space_of_weights_only_prunes_every_layer_uniformly():
    found, graph, _ = proposals(small_net(), MIXED | {"granularity": "weight"})
    config = found.config(found.uniform(0.5))
    assert list(config.layers) == list(graph.layers)
    assert {choice.fraction for _, choice in config.choices()} == {0.5}


def test_a_space_of_patterns_only_can_leave_a_layer_dense():
    found, _, _ = proposals(small_net(), {"granularity": "2:4", "criterion": "magnitude_l1", "sparsity": [0.5]})
    configs = [found.suggest(Asked(seed)) for seed in range(20)]
    assert {len(config.layers) for config in configs} - {0, len(found.knobs)}, "each layer is chosen by itself"
    assert all(choice.sparsity is None for config in configs for _, choice in config.choices())


@pytest.mark.parametrize("round_to", [1, 2, 4, 8])
@pytest.mark.parametrize("width", [8, 16])
def test_round_to_keeps_widths_on_steps_and_never_removes_more_than_asked(width, round_to):
    rule = {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": [0.0, 0.3, 0.45, 0.6, 0.95]}
    found, graph, _ = proposals(small_net(width), {**rule, "round_to": round_to})
    for asked in (0.3, 0.45, 0.6, 0.95):
        config = found.config(found.uniform(asked))
        for name, choice in config.choices():
            units = graph.groups[name].units
            gone = choice.fraction * units
            assert gone == pytest.approx(round(gone))
            assert gone <= asked * units + 1e-6
            assert (units - round(gone)) % round_to == 0
            assert round(gone) < units


class Attention(nn.Module):
    """Its first layer leads two groups: whole heads, and the channels within each head."""

    def __init__(self):
        super().__init__()
        self.heads, self.scale = 2, 4**-0.5
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x):
        q, k, v = (m(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2) for m in (self.q, self.k, self.v))
        return self.o(((q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v).transpose(1, 2).flatten(2))


def test_a_second_group_of_a_layer_has_its_own_address():
    rule = {"granularity": ["head", "channel", "weight"], "criterion": "magnitude_l1", "sparsity": [0.0, 0.5]}
    found, graph, book = proposals(Attention().eval(), rule, inputs=torch.randn(2, 5, 8))
    methods = {knob.name: knob.methods for knob in found.knobs}
    assert methods["q#2"] == ("channel/magnitude_l1",), "weights belong to the layer, not to its second group"
    assert methods["q"] == ("head/magnitude_l1", "weight/magnitude_l1")
    config = found.config(found.uniform(0.5))
    assert {"q", "q#2"} <= set(config.layers)
    make_plan(config, graph, book)


@pytest.mark.parametrize(
    ("rules", "error", "sentence"),
    [
        ([MIXED | {"names": "nothing"}], ConfigError, "no rule gives a layer granularity, criterion and sparsity"),
        ([MIXED, {"ignore": True}], ConfigError, "leaves nothing to search"),
        ([MIXED | {"granularity": "weight", "criterion": "random", "sparsity": [0.0]}], ConfigError, "one choice"),
        (
            [MIXED | {"granularity": "chanel"}],
            UnknownNameError,
            "space 's': unknown granularity 'chanel'; did you mean",
        ),
        ([MIXED | {"criterion": "tailor"}], UnknownNameError, "space 's': unknown criterion 'tailor'; did you mean"),
    ],
)
def test_a_space_that_cannot_be_searched_says_why(rules, error, sentence):
    with pytest.raises(error, match=sentence):
        proposals(small_net(), *rules)


def test_a_criterion_whose_data_is_missing_is_left_out_and_told():
    found, _, _ = proposals(SmallNet().eval(), MIXED, inputs=images(2, 0))
    assert (
        found.notes[0] == "criterion 'taylor' is left out: it needs Task.batches and Task.loss, and the task has none"
    )
    methods = {method for knob in found.knobs for method in knob.methods}
    assert methods & {"weight/magnitude_l1", "channel/magnitude_l1"}
    assert not any(method.endswith("/taylor") for method in methods)
    with pytest.raises(
        ConfigError, match=r"names criterion 'taylor', which needs data, .* no Task.batches and Task.loss"
    ):
        proposals(SmallNet().eval(), MIXED | {"criterion": ["taylor"]}, inputs=images(2, 0))


def test_a_precision_is_one_more_parameter_where_there_is_a_choice():
    found, _, _ = proposals(small_net(), MIXED)
    assert "precision" not in found.searched(found.uniform(0.5))
    assert "precision" not in found.config(found.uniform(0.5)).to_yaml()
    both = dataclasses.replace(found, precisions=("fp32", "int8"))
    asked = Asked(0)
    precisions = {both.suggest(asked).precision for _ in range(20)}
    assert asked.names["precision"] == ("fp32", "int8")
    assert precisions == {"fp32", "int8"}
    assert both.size == 2 * found.size
    assert both.config(both.uniform(0.5)).precision == "fp32", "the first one is that of the baselines"
    alone = both.config({**both.uniform(0.0), "precision": "int8"})
    assert both.config(both.nearest(alone)) == alone
    assert "precision: int8" in alone.to_yaml()
    only = dataclasses.replace(found, precisions=("int8",))
    assert only.searched(only.uniform(0.5)).keys() == found.searched(found.uniform(0.5)).keys()
    assert only.config(only.uniform(0.5)).precision == "int8"
