"""What stays, and the reason that a user reads. Unknown means pinned; a misread view is caught by the proof."""

from __future__ import annotations

from collections.abc import Callable

import architectures
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import TraceError
from autoprune.graph.groups import ModelGraph, find_groups
from autoprune.graph.trace import fingerprint
from autoprune.pruning.proof import proven_groups


class Two(nn.Module):
    """conv a, then something, then conv b, pooled into a linear layer."""

    def __init__(self, between: Callable[[Tensor], Tensor], width: int = 8) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 8, 3, padding=1)
        self.b = nn.Conv2d(width, 6, 3, padding=1)
        self.fc = nn.Linear(6, 2)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(F.relu(self.b(self.between(self.a(x)))).mean((2, 3)))


def reasons(graph: ModelGraph, layer: str) -> dict[str, int]:
    return {pinned.reason: pinned.channels for pinned in graph.pinned if pinned.layer == layer}


def roll_channels(x: Tensor) -> Tensor:
    return torch.roll(x, 1, 1)


@pytest.mark.parametrize(
    ("between", "width", "reason"),
    [
        (lambda x: x[:, 2:], 6, "'slice' at positions that stand in the code"),
        (lambda x: x[:, :4] * x[:, 4:], 4, "'slice' at positions that stand in the code"),
        (lambda x: torch.split(x, [3, 5], 1)[1], 5, "'split_with_sizes' at positions that stand in the code"),
        (lambda x: torch.split(x, 4, 1)[1], 4, "'split' at positions that stand in the code"),
        (lambda x: x[:, torch.tensor([1, 0, 3, 2, 5, 4, 7, 6])], 8, "'index' at computed positions of channels"),
        (roll_channels, 8, "'roll' at positions that stand in the code"),
        (lambda x: x.softmax(1), 8, "softmax over channels"),
        (lambda x: F.layer_norm(x, x.shape[1:]), 8, "layer_norm mixes the channels it normalises"),
        (lambda x: F.group_norm(x, 2), 8, "group_norm mixes the channels it normalises"),
        (lambda x: x / x.norm(dim=1, keepdim=True), 8, "linalg_vector_norm over channels"),
        (lambda x: x.cumsum(1), 8, "cumsum over channels"),
        (lambda x: x.sort(1).values, 8, "sort over channels"),
        (lambda x: x - x.mean(1, keepdim=True), 8, "mean over channels"),
        (lambda x: x.max(1, keepdim=True).values.expand(-1, 8, -1, -1), 8, "max over channels"),
        (lambda x: torch.fft.fft(x, dim=1).real, 8, "operator 'fft_fft' has no rule"),
        (
            lambda x: x.view(-1, 2, 4, 6, 6).transpose(1, 2).flatten(1, 2),
            8,
            "a view that splits channels into numbers that stand in the code",
        ),
        (
            lambda x: x * torch.arange(8.0).view(8, 1, 1),
            8,
            "'mul' with data that is no channel (the network's input, a constant)",
        ),
        (lambda x: F.pad(x, (0, 0, 0, 0, -1, -1)), 6, "padding that crops or mirrors channels"),
        (lambda x: F.pixel_unshuffle(x, 2)[:, ::4], 8, "'pixel_unshuffle' needs its channel count"),
        (
            lambda x: x * F.conv1d(x.mean((2, 3))[:, None], torch.ones(1, 1, 3), padding=1).view(-1, 8, 1, 1),
            8,
            "operator 'conv1d' has no rule",
        ),
        (lambda x: x.chunk(3, 1)[0], 3, "'chunk' into unequal parts"),
        (lambda x: F.avg_pool3d(x, (2, 1, 1)), 4, "'avg_pool3d' over an axis of channels"),
        (lambda x: x[:, :1] * 2 + 0 * x, 8, "'slice' at positions that stand in the code"),
    ],
)
def test_what_stays_says_why(between: Callable[[Tensor], Tensor], width: int, reason: str) -> None:
    graph = find_groups(Two(between, width), (torch.randn(2, 3, 6, 6),))
    assert reasons(graph, "a") == {reason: 8}
    assert "b" in graph.groups, "what follows can still go"


def test_the_output_stays() -> None:
    graph = find_groups(Two(F.relu), (torch.randn(2, 3, 6, 6),))
    assert reasons(graph, "fc") == {"the network's output": 2}
    assert set(graph.groups) == {"a", "b"}


def test_a_residual_from_the_input_stays() -> None:
    class Global(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.out = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(x + self.b(F.relu(self.a(x)))))

    graph = find_groups(Global(), (torch.randn(1, 3, 6, 6),))
    assert set(graph.groups) == {"a"}
    assert reasons(graph, "b") == {"'add' with data that is no channel (the network's input, a constant)": 3}


def test_padding_pins_only_what_it_touches() -> None:
    model = architectures.ResNetPadding().eval()
    graph = find_groups(model, (torch.randn(1, 3, 8, 8),))
    trunk = graph.groups["conv1"]
    places = {s.tensor: s.index[:, 0].tolist() for s in trunk.slices}
    assert places["conv1.weight"] == list(range(8))
    assert places["blocks.1.conv2.weight"] == list(range(4, 12)), "shifted by a quarter of 16"
    assert places["linear.weight"] == list(range(12, 20)), "and by a quarter of 32"
    assert reasons(graph, "blocks.1.conv2") == {
        "tied to a padding of channels whose width stands in the code": 8,
    }


def test_a_recurrent_layer_stays_and_what_follows_can_go() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.gru, self.out = nn.Linear(4, 6), nn.GRU(6, 5, batch_first=True), nn.Linear(5, 2)
            self.after = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(self.after(self.gru(self.enter(x))[0][:, -1])))

    graph = find_groups(Recurrent(), (torch.randn(2, 3, 4),))
    assert set(graph.groups) == {"after"}
    assert reasons(graph, "enter") == {"operator 'gru' has no rule": 6}


class WrittenOut(nn.Module):
    """The size of the flattened map stands in the code, as in many tutorials."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.fc, self.out = nn.Linear(6 * 7 * 7, 9), nn.Linear(9, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.last(F.relu(self.conv(x)))), 2)
        return self.out(F.relu(self.fc(x.view(-1, 6 * 7 * 7))))


@pytest.mark.parametrize("batch", [1, 2])
def test_a_number_in_a_view_is_caught_by_the_proof(batch: int) -> None:
    model = architectures.randomised(WrittenOut()).eval()
    graph, proof = proven_groups(model, (torch.randn(batch, 3, 14, 14),))
    assert set(graph.groups) == {"conv", "fc"}
    assert proof.refused == {"last": "its removal changes the network (a view whose size may stand in the code)"}
    assert reasons(graph, "last") == {proof.refused["last"]: 6}
    assert proof.relative_error < 1e-9


def test_a_size_read_from_the_tensor_is_no_number_in_the_code() -> None:
    class Read(WrittenOut):
        def forward(self, x: Tensor) -> Tensor:
            x = F.max_pool2d(F.relu(self.last(F.relu(self.conv(x)))), 2)
            return self.out(F.relu(self.fc(x.view(x.shape[0], x.shape[1] * x.shape[2] * x.shape[3]))))

    graph, proof = proven_groups(architectures.randomised(Read()).eval(), (torch.randn(2, 3, 14, 14),))
    assert set(graph.groups) == {"conv", "last", "fc"}
    assert not proof.refused


def test_a_model_that_does_not_export_has_layers_and_says_why() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y if y.sum() > 0 else -y)

    graph = find_groups(Branching(), (torch.randn(2, 4),))
    assert set(graph.layers) == {"a", "b"}
    assert not graph.groups
    assert "torch.export cannot follow the model" in graph.untraced


def test_inputs_that_do_not_fit_are_told_with_their_shapes() -> None:
    with pytest.raises(TraceError, match=r"example inputs \(float32 \(2, 5\)\)"):
        find_groups(nn.Linear(4, 2), (torch.randn(2, 5),))


def test_attention_along_channels_keeps_them() -> None:
    """ECA (Wang 2020): a 1-D convolution slides over the channels, so each has its neighbours in its output."""

    class Channels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.slide, self.fc = nn.Conv2d(3, 8, 3), nn.Conv1d(1, 1, 3, padding=1), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            gate = self.slide(x.mean((2, 3)).unsqueeze(1)).transpose(1, 2).unsqueeze(-1)
            return self.fc((x * gate.sigmoid()).mean((2, 3)))

    graph = find_groups(Channels(), (torch.randn(2, 3, 6, 6),))
    assert reasons(graph, "a") == {"conv1d over another axis than that of the channels": 8}


def test_shapes_that_depend_on_data_keep_channels() -> None:
    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.b(y[y[:, 0] > 0])

    graph = find_groups(Chosen(), (torch.randn(8, 4),))
    assert not graph.groups
    assert "depend on its data" in graph.untraced


def test_a_layer_that_never_runs_stays() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(F.relu(self.used(x)))

    graph = find_groups(Idle(), (torch.randn(2, 4),))
    assert reasons(graph, "idle") == {"not read by the traced forward pass": 4}


def test_a_weight_that_is_computed_stays() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.Linear(6, 2))
    graph = find_groups(model, (torch.randn(2, 4),))
    assert reasons(graph, "0") == {"operator 'linear' has no rule": 6}


def test_a_fingerprint_tells_head_counts_which_no_shape_does() -> None:
    two, again, four = (nn.MultiheadAttention(8, heads) for heads in (2, 2, 4))
    assert fingerprint(two) == fingerprint(again) != fingerprint(four)
