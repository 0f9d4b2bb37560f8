"""Residual blocks in a training: masked whole, removed at the end, and what they may be combined with."""

import copy

import pytest
import torch
from residual import images, net
from test_surgery_equivalence import build, first
from torch.nn import functional as F

import autoprune as ap
from autoprune.errors import ConfigError
from autoprune.graph.groups import find_groups
from autoprune.graph.trace import fingerprint
from autoprune.spec.config import ModelIdentity, PruningConfig

STAGE = {"blocks.0": {"granularity": "depth", "criterion": "magnitude_l1", "sparsity": 0.5}}
MIXED = STAGE | {
    "blocks.1.first": {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5},
    "blocks.2.second": {"granularity": "weight", "criterion": "magnitude_l1", "sparsity": 0.5},
}
CUBIC = ap.CubicSchedule(begin=2, end=16, every=2)


def sparsifier_of(model, layers, schedule=CUBIC, kind=torch.optim.AdamW, **options):
    config = PruningConfig(model=ModelIdentity(fingerprint=fingerprint(model)), layers=layers)
    optimizer = kind(model.parameters(), lr=0.01, weight_decay=0.1)
    return ap.Sparsifier(model, config, optimizer, schedule, example_inputs=images(2), **options), optimizer


def train(model, optimizer, sparsifier, steps, first=0):
    model.train()
    for step in range(first, first + steps):
        optimizer.zero_grad()
        F.cross_entropy(model(images(seed=step)), torch.arange(8) % 5).backward()
        optimizer.step()
        sparsifier.step()


def test_one_shot_before_training_is_apply():
    model = net()
    dense = copy.deepcopy(model)
    sparsifier, _ = sparsifier_of(model, MIXED, ap.OneShotSchedule())
    applied = ap.apply(dense, sparsifier.config, images(2))
    finalized = sparsifier.finalize()
    assert sum(type(block).__name__ == "Skip" for block in finalized.blocks) == 2
    assert finalized.state_dict().keys() == applied.state_dict().keys()
    assert torch.equal(finalized(images()), applied.eval()(images()))


@pytest.mark.parametrize("remove", ["end", "now"])
def test_blocks_go_one_by_one_and_stay_gone(remove):
    model = net()
    names = set(model.state_dict())
    sparsifier, optimizer = sparsifier_of(model, MIXED, remove=remove)
    seen = []
    for step in range(20):
        train(model, optimizer, sparsifier, 1, step)
        zero = {i for i, block in enumerate(model.blocks) if not any(p.any() for p in block.parameters())}
        assert not seen or seen[-1] <= zero
        seen.append(zero)
        for i in zero:  # neither momentum nor weight decay brings them back
            for parameter in model.blocks[i].parameters():
                assert not any(v.any() for v in optimizer.state[parameter].values() if v.shape == parameter.shape)
    assert {len(zero) for zero in seen} == {0, 1, 2}
    assert set(model.state_dict()) == names
    assert sparsifier.report().layers["blocks.0 depth"].masked == 0.5
    smaller = sparsifier.finalize()
    assert {i for i, block in enumerate(smaller.blocks) if type(block).__name__ == "Skip"} == seen[-1]
    torch.testing.assert_close(smaller(images()), model.eval()(images()))
    assert not sparsifier.achieved.differences


def test_a_training_goes_on_in_the_middle(tmp_path):
    whole = net()
    sparsifier, optimizer = sparsifier_of(whole, MIXED)
    train(whole, optimizer, sparsifier, 20)
    half = net()
    sparsifier, optimizer = sparsifier_of(half, MIXED)
    train(half, optimizer, sparsifier, 9)
    torch.save([half.state_dict(), optimizer.state_dict(), sparsifier.state_dict()], tmp_path / "a.pt")
    again = net()
    sparsifier, optimizer = sparsifier_of(again, MIXED)
    states = torch.load(tmp_path / "a.pt", weights_only=True)
    for each, state in zip((again, optimizer, sparsifier), states, strict=True):
        each.load_state_dict(state)
    train(again, optimizer, sparsifier, 11, first=9)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    states[2]["blocks"] = {"blocks.9": 0}
    with pytest.raises(ConfigError, match=r"removes block 'blocks.9' that this model lacks"):
        sparsifier.load_state_dict(states[2])


@pytest.mark.parametrize("method", ["gradual", "rigl", "l0"])
def test_other_methods_leave_blocks_to_the_criteria(method):
    model = net()
    sparsifier, optimizer = sparsifier_of(model, STAGE | {"blocks.2.second": MIXED["blocks.2.second"]}, method=method)
    train(model, optimizer, sparsifier, 18)
    assert sum(type(block).__name__ == "Skip" for block in sparsifier.finalize().blocks) == 2


def test_what_cannot_be_masked_is_told_before_anything_changes():
    shared = net()
    shared.head.extra = shared.blocks[1].second.bias
    for model, options, sentence in (
        (net(offset=0.5), {}, "more than the identity when its weights are zero"),
        (shared, {}, "'blocks.1.second.bias' belongs to a block that may go and is shared"),
        (net(), {"method": "l1"}, "the config has only residual blocks; use 'gradual'"),
    ):
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(ConfigError, match=sentence):
            sparsifier_of(model, STAGE, **options)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("name", ["resnet-padding", "char-gpt", "mlp-mixer"])
def test_known_architectures_lose_blocks_while_they_train(name):
    model, inputs = build(name)
    stages = find_groups(copy.deepcopy(model).eval(), inputs).stages
    layers = dict.fromkeys(stages, STAGE["blocks.0"])
    config = PruningConfig(model=ModelIdentity(fingerprint=fingerprint(model)), layers=layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparsifier = ap.Sparsifier(model, config, optimizer, example_inputs=inputs)
    model.train()
    for _ in range(2):
        optimizer.zero_grad()
        first(model(*inputs)).float().square().mean().backward()
        optimizer.step()
        sparsifier.step()
    assert [each.masked for each in sparsifier.report().layers.values()] == [0.5] * len(stages)
    smaller = sparsifier.finalize()
    assert len(list(smaller.parameters())) < len(list(model.parameters()))
    torch.testing.assert_close(first(smaller(*inputs)), first(model.eval()(*inputs)))
