"""Every criterion against its formula, written out by hand."""

import dataclasses
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from autoprune.errors import ConfigError
from autoprune.pruning.criteria import CRITERIA, DATA_SAMPLES, Rule, batch_size
from autoprune.pruning.criteria.activations import RANK_SAMPLES
from autoprune.pruning.criteria.curvature import DAMPING
from autoprune.pruning.criteria.weights import LP, lamp_scores
from autoprune.pruning.scores import ScoreBook
from autoprune.testing import check_criterion

ALL = CRITERIA.names()


def gradient_of(evidence, batch, name):
    evidence.model.zero_grad()
    evidence.loss(evidence.model, batch).backward()
    found = evidence.model.get_parameter(name).grad.clone()
    evidence.model.zero_grad()
    return found


@pytest.mark.parametrize("key", ALL)
def test_every_built_in_passes_the_suite_of_plug_ins(key, evidence):
    check_criterion(CRITERIA.get(key), evidence)


@pytest.mark.parametrize("key", ALL)
def test_hooks_and_gradient_flags_are_as_before(key, evidence):
    for parameter in evidence.model.parameters():
        parameter.requires_grad_(False)
    CRITERIA.get(key).scores(evidence)
    assert not any(parameter.requires_grad for parameter in evidence.model.parameters())
    assert not any(module._forward_pre_hooks for module in evidence.model.modules())


@pytest.mark.parametrize("key", [key for key in ALL if CRITERIA.get(key).needs_data])
def test_hooks_are_gone_even_when_the_task_fails(key, evidence):
    def fails(model, batch):
        model(batch[0])
        raise RuntimeError("the task's own failure")

    with pytest.raises(RuntimeError, match="own failure"):
        CRITERIA.get(key).scores(dataclasses.replace(evidence, loss=fails))
    assert not any(module._forward_pre_hooks for module in evidence.model.modules())


def test_magnitudes(evidence):
    weight = evidence.model.inner.weight.detach()
    assert torch.equal(CRITERIA.get("magnitude_l1").scores(evidence)["inner.weight"], weight.abs())
    assert torch.equal(CRITERIA.get("magnitude_l2").scores(evidence)["inner.weight"], weight**2)
    assert torch.equal(CRITERIA.get("magnitude_lp").scores(evidence)["inner.weight"], weight.abs() ** LP)


def test_lamp_against_its_definition():
    weight = torch.tensor([[3.0, -1.0], [2.0, 0.5]])
    squares = weight**2
    expected = torch.stack([s / squares[squares >= s].sum() for s in squares.reshape(-1)]).reshape(2, 2)
    assert torch.allclose(lamp_scores(weight).float(), expected)
    assert float(lamp_scores(weight).max()) == 1, "the largest weight of a layer is the last to go"
    assert not bool(lamp_scores(torch.zeros(3)).any())
    assert torch.equal(lamp_scores(torch.ones(4)), torch.tensor([1 / 4, 1 / 3, 1 / 2, 1], dtype=torch.float64))


def test_gradient_criteria_against_autograd_by_hand(evidence, batches):
    weight = evidence.model.outer.weight.detach()
    found = [gradient_of(evidence, batch, "outer.weight") for batch in batches]
    stacked = torch.stack(found)
    expected = {
        "gradient": stacked.abs().mean(0),
        "taylor": (weight * stacked).abs().mean(0),
        "snip": (weight * stacked.mean(0)).abs(),
        "obd": (weight * stacked).square().mean(0) / 2,
        "taylor_squared": weight * stacked,
    }
    for key, values in expected.items():
        scores = CRITERIA.get(key).scores(evidence)["outer.weight"]
        assert torch.allclose(scores, values, rtol=1e-5, atol=1e-9), key


def test_the_squared_form_keeps_its_memory_however_many_batches_come(evidence):
    batch = next(evidence.batches())
    single = [(batch[0][i : i + 1], batch[1][i : i + 1]) for i in range(16)]
    many = dataclasses.replace(evidence, batches=lambda: iter(single))
    scores = CRITERIA.get("taylor_squared").scores(many)["head.weight"]
    assert scores.shape == (8, 4, 8)
    found = [gradient_of(evidence, one, "head.weight") for one in single]
    assert torch.allclose(
        scores[3], evidence.model.head.weight.detach() * (found[3] + found[11]) / 2, rtol=1e-4, atol=1e-8
    )


def test_synflow_of_a_linear_network_is_the_product_of_absolute_weights(evidence):
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.ReLU(), nn.Linear(4, 2, bias=False)).eval()
    bare = dataclasses.replace(
        evidence, model=model, weights=("0.weight", "2.weight"), batches=None, loss=None, args=(torch.zeros(1, 3),)
    )
    first, second = (model[i].weight.detach().abs().double() for i in (0, 2))
    scores = CRITERIA.get("synflow").scores(bare)
    assert torch.allclose(scores["0.weight"], first * second.sum(0)[:, None])
    assert torch.allclose(scores["2.weight"], second * first.sum(1))
    flow = (second @ first).sum()
    assert torch.allclose(torch.stack([values.sum() for values in scores.values()]), flow), "flow is conserved"


def test_synflow_says_when_nothing_flows(evidence):
    model = nn.Sequential(nn.Linear(3, 4), nn.Softmax(1)).eval()
    bare = dataclasses.replace(evidence, model=model, weights=("0.weight",), args=(torch.zeros(1, 3),))
    with pytest.raises(ConfigError, match="softmax"):
        CRITERIA.get("synflow").scores(bare)


def inputs_of(evidence, batches, name):
    taken = []
    hook = evidence.model.get_submodule(name).register_forward_pre_hook(lambda _, args: taken.append(args[0]))
    with torch.no_grad():
        for batch in batches:
            evidence.model(batch[0])
    hook.remove()
    return torch.cat(taken)


def test_wanda_is_the_weight_times_the_norm_of_its_input(evidence, batches):
    scores = CRITERIA.get("wanda").scores(evidence)
    x = inputs_of(evidence, batches, "head")
    expected = evidence.model.head.weight.detach().abs() * x.norm(dim=0)
    assert torch.allclose(scores["head.weight"].float(), expected, rtol=1e-5)
    x = inputs_of(evidence, batches, "inner")
    unfolded = F.unfold(x, 3, padding=1).transpose(0, 1).flatten(1)
    expected = evidence.model.inner.weight.detach().abs().flatten(1) * unfolded.norm(dim=1)
    assert torch.allclose(scores["inner.weight"].flatten(1).float(), expected, rtol=1e-5)


def test_obs_is_the_error_left_when_the_rest_of_the_row_is_adjusted(evidence, batches):
    x = inputs_of(evidence, batches, "head").double()
    gram = x.T @ x / len(x)
    gram += DAMPING * gram.diagonal().mean() * torch.eye(8)
    weight = evidence.model.head.weight.detach().double()
    scores = CRITERIA.get("obs").scores(evidence)["head.weight"]
    for row, column in ((0, 0), (2, 5), (3, 7)):
        rest = [i for i in range(8) if i != column]
        # min over d of (w + d)^T H (w + d) errors with d_column = -w_column, solved densely
        moved = torch.linalg.solve(gram[rest][:, rest], gram[rest, column] * weight[row, column])
        change = torch.zeros(8, dtype=torch.float64)
        change[column], change[rest] = -weight[row, column], moved
        assert float(change @ gram @ change) == pytest.approx(float(scores[row, column]), rel=1e-5)


def test_channels_are_judged_where_they_are_read(evidence, batches, graph):
    book = ScoreBook(evidence)
    x = inputs_of(evidence, batches, "outer")
    for key, values in {
        "activation": x.abs().mean((0, 2, 3)),
        "apoz": (x != 0).float().mean((0, 2, 3)),
        "hrank": torch.linalg.matrix_rank(x[:RANK_SAMPLES]).float().mean(0),
    }.items():
        scores = book.unit_scores(key, graph.groups["inner"])
        assert torch.allclose(scores.float(), values / values.mean(), rtol=1e-4), key


def test_fpgm_scores_filters_by_their_distance_to_all_others(evidence, graph):
    filters = evidence.model.inner.weight.detach().flatten(1)
    expected = torch.stack([(filters - one).norm(dim=1).sum() for one in filters])
    scores = ScoreBook(evidence).unit_scores("fpgm", graph.groups["inner"])
    assert torch.allclose(scores.float(), expected / expected.mean(), rtol=1e-4)


def test_random_follows_the_seed_and_the_name(evidence):
    first = CRITERIA.get("random").scores(evidence)
    again = CRITERIA.get("random").scores(dataclasses.replace(evidence, seed=1))
    assert not torch.equal(first["inner.weight"], again["inner.weight"])
    assert not torch.equal(first["inner.weight"].reshape(-1)[:64], first["outer.weight"].reshape(-1)[:64])


def test_no_more_data_is_read_than_needed(evidence):
    def endless():
        for seen in range(100):
            assert seen * 128 < DATA_SAMPLES, "walked on after enough samples"
            yield torch.zeros(128, 3, 8, 8), torch.zeros(128, dtype=torch.long)

    for key in ("taylor", "wanda", "hrank"):
        CRITERIA.get(key).scores(dataclasses.replace(evidence, batches=endless))


def test_forward_criteria_need_no_loss(evidence):
    bare = dataclasses.replace(evidence, loss=None)
    for key in ALL:
        rule = CRITERIA.get(key)
        if not rule.needs_loss:
            assert ScoreBook(bare).weight_scores(key)


@pytest.mark.parametrize("key", ["taylor", "wanda"])
def test_a_criterion_without_its_data_says_what_to_give(key, evidence):
    with pytest.raises(ConfigError, match=rf"criterion '{key}' needs data.*Task.batches.*choose another"):
        ScoreBook(dataclasses.replace(evidence, batches=None)).weight_scores(key)
    with pytest.raises(ConfigError, match="gave none; give at least one batch"):
        ScoreBook(dataclasses.replace(evidence, batches=lambda: iter(()))).weight_scores(key)


def test_a_loss_is_asked_for_by_name(evidence):
    with pytest.raises(ConfigError, match=r"the task has no Task\.loss"):
        ScoreBook(dataclasses.replace(evidence, loss=None)).weight_scores("taylor")


def test_nan_is_refused_with_the_tensor_and_the_remedy(evidence):
    def nan(model, batch):
        return model(batch[0]).sum() * float("nan")

    with pytest.raises(ConfigError, match=r"'taylor' gives a score for 'stem.weight' that is negative or not finite"):
        ScoreBook(dataclasses.replace(evidence, loss=nan)).weight_scores("taylor")


def test_a_layer_that_no_pass_reaches_is_named(evidence, graph):
    model = evidence.model
    model.unused = nn.Linear(2, 2)
    bare = dataclasses.replace(evidence, weights=("unused.weight",))
    layer = dataclasses.replace(graph.layers["head"], name="unused", weight="unused.weight")
    with pytest.raises(ConfigError, match=r"'wanda' cannot judge layer 'unused' \(Linear\) or saw no input"):
        ScoreBook(bare).layer_scores("wanda", layer)


def test_a_plug_in_takes_ten_lines(evidence, graph):
    def largest_in_filter(evidence):
        return {
            name: weight.abs().flatten(1).amax(1).reshape(-1, *[1] * (weight.dim() - 1)).expand(weight.shape)
            for name, weight in evidence.tensors(evidence.weights).items()
        }

    rule = Rule("largest |w| of the filter that a weight stands in", largest_in_filter, judges=("out",))
    CRITERIA.add("largest", rule)
    try:
        check_criterion(CRITERIA.get("largest"), evidence)
        scores = ScoreBook(evidence).unit_scores("largest", graph.groups["inner"])
        expected = evidence.model.inner.weight.detach().abs().flatten(1).amax(1)
        assert torch.equal(torch.argsort(scores), torch.argsort(expected))
    finally:
        del CRITERIA._items["largest"]


def test_the_plug_in_of_the_contributing_page_works_as_printed(evidence):
    page = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL).group(1)
    made = {}
    exec(code, made)
    assert len(code.strip().splitlines()) <= 10
    check_criterion(made["cubed"], evidence)
    weight = evidence.model.inner.weight.detach()
    assert torch.equal(made["cubed"].scores(evidence)["inner.weight"], weight.abs() ** 3)


def test_a_shared_weight_is_judged_by_all_that_it_meets(evidence):
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    model = nn.Sequential(first, nn.ReLU(), second).eval()
    x = torch.randn(5, 3)
    shared = dataclasses.replace(
        evidence, model=model, weights=("0.weight",), batches=lambda: iter([x]), loss=None, args=(x,)
    )
    with torch.no_grad():
        met = torch.cat([x, F.relu(first(x))])
    scores = CRITERIA.get("wanda").scores(shared)["0.weight"]
    assert torch.allclose(scores.float(), first.weight.detach().abs() * met.norm(dim=0), rtol=1e-5)


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        (torch.zeros(5, 2), 5),
        ((torch.zeros(4, 1), torch.zeros(4)), 4),
        ({"ids": torch.zeros(3, 7), "n": 1}, 3),
        ([{"x": torch.zeros(2, 2)}], 2),
        (torch.tensor(1.0), 1),
        ("text", 1),
    ],
)
def test_batch_size(batch, size):
    assert batch_size(batch) == size
