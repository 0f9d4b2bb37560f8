"""From scores of weights to scores of units: the one rule, against slow loops."""

import dataclasses

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.errors import ConfigError
from autoprune.pruning.columns import POSITIONS, add_moments, column_squares, columns
from autoprune.pruning.criteria import CRITERIA, Rule
from autoprune.pruning.granularity import granularity
from autoprune.pruning.scores import ScoreBook, pattern_scores


def slow_unit_scores(group, scores):
    total = torch.zeros(group.units, dtype=torch.float64)
    for slices in group.slices:
        if slices.tensor not in scores:
            continue
        per_unit = torch.zeros(group.units, dtype=torch.float64)
        for unit in range(group.units):
            for place in slices.index[unit].tolist():
                per_unit[unit] += scores[slices.tensor].select(slices.dim, place).double().sum()
        total += per_unit / per_unit.mean()
    return total


def test_unit_scores_are_sums_over_every_tensor_of_the_group(book, graph):
    assert len(graph.groups) >= 3
    for group in graph.groups.values():
        for criterion in ("magnitude_l1", "taylor", "obs"):
            expected = slow_unit_scores(group, book.weight_scores(criterion))
            assert torch.allclose(book.unit_scores(criterion, group), expected, rtol=1e-6)


def test_signed_contributions_are_squared_after_the_sum(book, graph):
    group = graph.groups["inner"]
    draws = book.weight_scores("taylor_squared")
    total = torch.zeros(group.units, dtype=torch.float64)
    for slices in group.slices:
        if slices.tensor in draws:
            values = draws[slices.tensor].double()
            per_unit = torch.stack(
                [
                    torch.stack([draw.select(slices.dim, unit).sum() for draw in values]).square().mean()
                    for unit in range(group.units)
                ]
            )
            total += per_unit / per_unit.mean()
    assert torch.allclose(book.unit_scores("taylor_squared", group), total)


@pytest.mark.parametrize("key", ["weight", "row", "block:2x5", "kernel", "2:4", "pattern"])
def test_weight_patterns_see_the_squared_sum_of_their_units(key):
    draws = torch.randn(3, 6, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    shape = granularity(key)
    seen = pattern_scores(draws, shape, (6, 4, 3, 3))
    if shape.units is None:
        assert torch.allclose(seen, draws.double().square().mean(0))
        return
    units = shape.units((6, 4, 3, 3))
    for unit in range(int(units.max()) + 1):
        expected = draws[:, units == unit].double().sum(1).square().mean()
        assert float(seen[units == unit].sum()) == pytest.approx(float(expected))
    assert not bool(seen[units < 0].any())


def test_scores_are_computed_once(evidence, graph):
    calls = []

    def counted(evidence):
        calls.append(1)
        return {name: weight.abs() for name, weight in evidence.tensors(evidence.weights).items()}

    CRITERIA.add("counted", Rule("counts its calls", counted))
    try:
        book = ScoreBook(evidence)
        for _ in range(3):
            book.weight_scores("counted")
            book.unit_scores("counted", graph.groups["inner"])
        assert len(calls) == 1
    finally:
        del CRITERIA._items["counted"]


def test_a_group_without_batch_norm_is_named(book, graph):
    assert not book.serves("batchnorm_scale", "channel", graph.groups["inner"])
    with pytest.raises(ConfigError, match=r"nothing in group 'inner' \(it has no batch norm\); choose another"):
        book.unit_scores("batchnorm_scale", graph.groups["inner"])


def test_what_serves_what(book, graph):
    assert book.serves("batchnorm_scale", "channel", graph.groups["stem"])
    assert book.serves("activation", "channel", graph.groups["inner"])
    assert not book.serves("activation", "weight", graph.layers["inner"])
    assert book.serves("wanda", "2:4", graph.layers["inner"])
    bare = ScoreBook(dataclasses.replace(book.evidence, weights=("inner.weight",)))
    assert not bare.serves("wanda", "weight", graph.layers["outer"])


LAYERS = [
    (nn.Linear(6, 4), (5, 6)),
    (nn.Linear(6, 4), (2, 3, 6)),
    (nn.Conv1d(4, 6, 3, padding=1), (2, 4, 9)),
    (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0)), (2, 4, 7, 6)),
    (nn.Conv2d(4, 6, 3, dilation=2, padding="same", padding_mode="circular"), (2, 4, 7, 7)),
    (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 7, 7)),
    (nn.Conv3d(2, 4, 2), (2, 2, 3, 4, 3)),
    (nn.Conv2d(4, 6, 3), (4, 7, 7)),
]


@pytest.mark.parametrize(("module", "size"), LAYERS, ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else "")
def test_weight_times_columns_is_what_the_layer_computes(module, size):
    module = module.double()
    x = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        taken = columns(module, x)
        weight = module.weight.reshape(taken.shape[0], -1, taken.shape[1])
        product = (weight @ taken).flatten(0, 1) + module.bias[:, None]
        output = module(x)
        batched = output if isinstance(module, nn.Linear) or x.dim() == module.weight.dim() else output[None]
        channel = -1 if isinstance(module, nn.Linear) else 1
        assert torch.allclose(product, batched.movedim(channel, 0).flatten(1))
        assert torch.allclose(column_squares(module, x), taken.square().sum(2))


def test_moments_stream_and_draw_a_bounded_number_of_places():
    module = nn.Conv2d(2, 3, 3, padding=1).double()
    x = torch.randn(4, 2, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moments = add_moments(add_moments(None, module, x[:2]), module, x[2:])
    assert moments.count == 4 * POSITIONS
    assert moments.gram.shape == (1, 18, 18)
    small = x[:, :, :4, :4]
    moments = add_moments(add_moments(None, module, small[:2]), module, small[2:])
    unfolded = F.unfold(small, 3, padding=1).transpose(0, 1).flatten(1)
    assert torch.allclose(moments.gram[0], unfolded @ unfolded.T)
    assert torch.allclose(moments.mean[0], unfolded.mean(1))


def test_a_layer_that_saw_only_zeros_still_has_an_inverse():
    moments = add_moments(None, nn.Linear(3, 2), torch.zeros(5, 3))
    assert bool(torch.isfinite(torch.linalg.inv(moments.damped(0.01))).all())


def test_transposed_convolutions_are_scored_by_what_each_input_channel_holds():
    module = nn.ConvTranspose2d(4, 6, 3)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(column_squares(module, x)[:, 0], x.square().sum((0, 2, 3)), rtol=1e-5)
