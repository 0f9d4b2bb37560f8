"""From configs to cuts and masks: what is asked is what happens, and what cannot be is told in one sentence."""

import pytest
import torch

from autoprune.errors import AutopruneError, ConfigError, UnknownNameError
from autoprune.pruning.granularity import granularity
from autoprune.pruning.plan import check_config, make_plan
from autoprune.pruning.scores import ScoreBook, units_below
from autoprune.pruning.surgery import prune
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig


@pytest.fixture
def config(graph):
    def build(**layers):
        choices = {
            name.replace("__", "."): tuple(LayerChoice(**c) for c in (entry if isinstance(entry, list) else [entry]))
            for name, entry in layers.items()
        }
        return PruningConfig(model=ModelIdentity(fingerprint=graph.fingerprint), layers=choices)

    return build


def choice(granularity="weight", criterion="magnitude_l1", sparsity=0.5, **more):
    if granularity[0].isdecimal() or "threshold" in more:
        return {"granularity": granularity, "criterion": criterion, **more}
    return {"granularity": granularity, "criterion": criterion, "sparsity": sparsity, **more}


def test_channels_then_a_pattern_on_what_is_left(net, graph, book, config):
    both = config(inner=[choice("channel", sparsity=0.34), choice("2:4")], outer=choice("weight", sparsity=0.7))
    plan = make_plan(both, graph, book)
    smaller = prune(net, plan)
    assert smaller.inner.weight.shape == (8, 8, 3, 3)
    assert smaller.outer.weight.shape == (8, 8, 3, 3)
    scores = book.unit_scores("magnitude_l1", graph.groups["inner"])
    kept = torch.argsort(scores, stable=True)[4:].sort().values
    assert torch.equal(plan.cuts["inner.weight", 0], kept)
    left = net.inner.weight.detach()[kept]
    runs = left.flatten(1).reshape(-1, 4)
    expected = torch.where(runs.abs() >= runs.abs().sort(1).values[:, 2:3], runs, 0.0).reshape(left.shape)
    assert torch.equal(smaller.inner.weight.detach(), expected)
    assert int((smaller.outer.weight == 0).sum()) == int(0.7 * smaller.outer.weight.numel())
    with torch.no_grad():
        assert smaller(torch.randn(2, 3, 8, 8)).shape == (2, 4)
    assert dict(plan.patterns) == {"inner.weight": "2:4", "outer.weight": "weight"}


@pytest.mark.parametrize("key", ["weight", "row", "column", "block:4x3", "kernel", "pattern", "2:4", "3:9"])
@pytest.mark.parametrize("criterion", ["magnitude_l1", "taylor_squared", "wanda", "obs", "lamp"])
def test_every_pattern_takes_every_criterion(key, criterion, graph, book, config):
    plan = make_plan(config(inner=choice(key, criterion, 0.6)), graph, book)
    mask = plan.masks["inner.weight"]
    assert mask.shape == (12, 8, 3, 3)
    asked = config(inner=choice(key, criterion, 0.6)).layers["inner"][0].fraction
    assert 0 < float((~mask).float().mean()) <= asked + 1e-6
    units = granularity(key).units
    if units is not None:
        labels = units((12, 8, 3, 3))
        gone = labels[(~mask) & (labels >= 0)].unique()
        assert len(gone) == int(0.6 * (int(labels.max()) + 1) + 1e-6)


def test_a_mask_on_a_layer_whose_inputs_were_cut_follows_what_is_left(graph, book, config):
    plan = make_plan(config(inner=choice("channel"), outer=choice("row", sparsity=0.3)), graph, book)
    assert plan.masks["outer.weight"].shape == (8, 6, 3, 3)
    left = book.weight_scores("magnitude_l1")["outer.weight"][:, plan.cuts["outer.weight", 1]]
    gone = torch.argsort(left.flatten(1).double().sum(1), stable=True)[:2]
    assert set(gone.tolist()) == {row for row in range(8) if not plan.masks["outer.weight"][row].any()}


def test_a_threshold_removes_what_scores_far_below_the_others(net, evidence, graph, config):
    with torch.no_grad():
        net.inner.weight[3] *= 0.01
        net.outer.weight[:, 3] *= 0.01
    book = ScoreBook(evidence)
    plan = make_plan(config(inner=choice("channel", threshold={"std": 2.0})), graph, book)
    assert plan.cuts["inner.weight", 0].tolist() == [i for i in range(12) if i != 3]
    plan = make_plan(config(inner=choice("row", threshold={})), graph, book)
    assert [row for row in range(12) if not plan.masks["inner.weight"][row].any()] == [3]
    plan = make_plan(config(inner=choice("channel", threshold={"std": 9.0})), graph, book)
    assert not plan.cuts


def test_units_below_against_its_definition():
    scores = torch.tensor([1.0, 10.0, 11.0, 12.0, 10.0, 9.0], dtype=torch.float64)
    for deviations in (0.1, 0.5, 1.0, 2.0, 2.3):
        limit = scores.mean() - deviations * scores.std(correction=0)
        assert units_below(scores, deviations) == int((scores < limit).sum())
    assert units_below(torch.ones(1), 1.0) == 0
    assert units_below(torch.ones(5), 0.5) == 0


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"granularity": "weight", "criterion": "random"}, "needs a sparsity"),
        ({"granularity": "weight", "criterion": "random", "sparsity": 0.5, "threshold": {}}, "exclude each other"),
        ({"granularity": "2:4", "criterion": "random", "threshold": {"std": 1}}, "leave threshold out"),
        ({"granularity": "2:4", "criterion": "random", "sparsity": 0.3}, "leave sparsity out"),
        ({"granularity": "4:4", "criterion": "random"}, "0 < N < M"),
        ({"granularity": "weight", "criterion": "random", "threshold": {"std": 0}}, "greater than 0"),
        ({"granularity": "weight", "criterion": "random", "threshold": {"deviations": 1}}, "Extra inputs"),
        ({"granularity": "weight", "criterion": "random", "sparsity": 1.0}, "less than 1"),
    ],
)
def test_a_choice_is_strict_about_how_much_goes(entry, words):
    with pytest.raises(ValueError, match=words):
        LayerChoice(**entry)


def test_a_threshold_survives_the_disk(config):
    before = config(inner=choice("channel", threshold={"std": 1.5}))
    assert PruningConfig.model_validate(before.to_data()) == before
    assert before.to_data()["layers"]["inner"]["threshold"] == {"std": 1.5}


@pytest.mark.parametrize(
    ("layers", "error", "words"),
    [
        ({"inner": choice("block:64x2")}, ConfigError, r"larger than .* layer 'inner'.*; choose another granularity"),
        ({"stem": choice("2:4")}, ConfigError, r"multiple of 4, layer 'stem' has 27; choose another granularity"),
        ({"head": choice("kernel")}, ConfigError, r"needs a convolution, layer 'head' is Linear; choose another"),
        ({"head": choice("5:4")}, ValueError, r"0 < N < M"),
        ({"inner": choice("weight", "fpgm")}, ConfigError, r"layer 'inner': criterion 'fpgm' scores only channel"),
        ({"inner": choice("weight", "magnitud")}, UnknownNameError, r"magnitude"),
        ({"inner": choice("wieght")}, UnknownNameError, r"weight"),
        ({"iner": choice()}, UnknownNameError, r"inner"),
        ({"head": choice("channel")}, ConfigError, r"layer 'head' stay \(the network's output\); choose a weight"),
        ({"outer": choice("channel")}, ConfigError, r"'outer' are tied to group 'stem'; prune that name"),
        ({"inner": choice("pattern", threshold={})}, ConfigError, r"layer 'inner': pattern .* give a sparsity"),
        ({"inner": [choice(), choice("channel")]}, ConfigError, r"layer 'inner' has weight then channel; two entries"),
        ({"inner": [choice(), choice("2:4")]}, ConfigError, r"two entries are first channel"),
    ],
)
def test_what_does_not_fit_is_one_sentence(layers, error, words, config, graph):
    with pytest.raises(error, match=words) as raised:
        check_config(config(**layers), graph)
    assert isinstance(raised.value, AutopruneError | ValueError)


def test_a_config_of_another_network_is_refused(graph, config):
    other = config(inner=choice()).model_copy(update={"model": ModelIdentity(fingerprint="other")})
    with pytest.raises(ConfigError, match="for the architecture other"):
        check_config(other, graph)


@pytest.mark.parametrize(
    ("odd", "words"), [({"criterion": "magnitude_l7"}, "magnitude_lp"), ({"granularity": "chanel"}, "channel")]
)
def test_an_unknown_name_in_a_config_stands_with_its_layer(odd, words, graph, config):
    name = next(iter(graph.layers))
    with pytest.raises(UnknownNameError, match=f"layer '{name}': unknown .* did you mean '{words}'"):
        check_config(config(**{name: choice(**odd)}), graph)
