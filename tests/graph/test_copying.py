"""Copies against ``copy.deepcopy``: same values, nothing shared, odd modules as ``deepcopy`` makes them."""

import copy

import torch
from torch import nn

from autoprune.graph.copying import copy_module


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.tied = self.conv
        self.norm = nn.BatchNorm2d(4)
        self.rnn = nn.LSTM(4, 5)
        self.register_buffer("hidden", torch.ones(2), persistent=False)
        self.settings = {"depth": [1, 2, {"x": 3}], "layers": [self.norm]}
        self.absent = None
        self.register_parameter("nothing", None)
        self.norm.weight.requires_grad_(False)


def test_a_copy_is_what_deepcopy_gives() -> None:
    model = Odd().eval()
    ours, theirs = copy_module(model, {}), copy.deepcopy(model)
    assert [n for n, _ in ours.named_modules()] == [n for n, _ in theirs.named_modules()]
    for (name, a), (other, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert (name, a.requires_grad, type(a)) == (other, b.requires_grad, type(b))
        assert torch.equal(a, b)
    assert {n: b.tolist() for n, b in ours.named_buffers()} == {n: b.tolist() for n, b in theirs.named_buffers()}
    assert ours.tied is ours.conv
    assert ours.settings["layers"][0] is ours.norm
    assert not any(module.training for module in ours.modules())
    x = torch.randn(6, 2, 4)
    assert torch.equal(ours.rnn(x)[0], model.rnn(x)[0])


def test_a_copy_shares_nothing_that_can_change() -> None:
    model = Odd()
    ours = copy_module(model, {})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with torch.no_grad():
        for value in (*ours.parameters(), *ours.buffers()):
            value.add_(1)
    ours.settings["depth"].append(4)
    ours.conv.register_forward_hook(lambda *_: None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.settings["depth"] == [1, 2, {"x": 3}]
    assert not model.conv._forward_hooks


def test_the_memo_replaces_tensors() -> None:
    model = Odd()
    other = nn.Parameter(torch.zeros(4, 3, 1, 1))
    assert copy_module(model, {id(model.conv.weight): other}).tied.weight is other
