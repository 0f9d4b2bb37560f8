"""The config in the middle of a schedule, and scores under which what is gone goes first."""

import torch
from small_task import images, small_net

import autoprune as ap
from autoprune.graph.groups import find_groups
from autoprune.graph.trace import fingerprint
from autoprune.pruning.plan import make_plan
from autoprune.pruning.scores import ScoreBook
from autoprune.spec.config import ModelIdentity, PruningConfig
from autoprune.training.masks import kept_weights, masks_of, packed, plan_of, unpacked
from autoprune.training.progress import HeldScores, config_at
from autoprune.training.units import units_of
from autoprune.trial.task import Calibration


def config(layers, criterion="magnitude_l1"):
    return PruningConfig(
        model=ModelIdentity(fingerprint=fingerprint(small_net())),
        layers={
            name: [
                {"granularity": shape, "criterion": criterion, **({"sparsity": s} if s else {})} for shape, s in each
            ]
            for name, each in layers.items()
        },
    )


MIXED = config({"stem": [("channel", 0.5)], "inner": [("channel", 0.25), ("weight", 0.5)], "head": [("2:4", None)]})


def test_n_of_m_is_reached_through_patterns_that_remove_less():
    found = {}
    for share in (0.0, 0.3, 0.5, 1.0):
        now = config_at(
            config({"head": [("2:4", None)], "stem": [("1:4", None)]}), lambda _, c, s=share: c.fraction * s
        )
        found[share] = {name: choices[0].granularity for name, choices in now.layers.items()}
    assert found == {
        0.0: {},
        0.3: {},
        0.5: {"head": "3:4", "stem": "3:4"},
        1.0: {"head": "2:4", "stem": "1:4"},
    }


def parts(model):
    graph = find_groups(model, (images(1, 0),))
    return graph, ScoreBook(Calibration(images(1, 0)).evidence(model, graph, 0))


def test_masks_are_the_plan_in_the_shapes_of_the_dense_network():
    model = small_net()
    graph, book = parts(model)
    plan = make_plan(MIXED, graph, book)
    masks = masks_of(plan, graph)
    again = plan_of(masks, graph)
    assert again.cuts.keys() == plan.cuts.keys()
    assert all(torch.equal(again.cuts[axis], places) for axis, places in plan.cuts.items())
    assert all(torch.equal(again.masks[name], mask) for name, mask in plan.masks.items())
    kept = kept_weights(masks, graph, dict(model.named_parameters()))
    assert kept["norm.weight"].sum() == 4
    assert not kept["stem.weight"][masks.gone["stem"]].any()
    assert not kept["head.weight"][:, masks.gone["stem"]].any(), "zero where it is read"
    assert all(torch.equal(unpacked(packed(mask), tuple(mask.shape)), mask) for mask in kept.values())


def test_what_is_gone_stays_gone_whatever_the_criterion_says():
    """Under scores that turned around, nothing comes back and the rest is chosen among what is left."""
    model = small_net()
    graph, book = parts(model)
    half = config({"stem": [("channel", 0.5)], "head": [("weight", 0.25)]})
    first = masks_of(make_plan(half, graph, book), graph)
    kept = kept_weights(first, graph, dict(model.named_parameters()))
    with torch.no_grad():
        for name in kept:
            weight = model.get_parameter(name)
            weight.copy_(1 / weight.abs().clamp_min(1e-3))
    more = config({"stem": [("channel", 0.75)], "head": [("weight", 0.5)]})
    second = masks_of(make_plan(more, graph, HeldScores(parts(model)[1], kept, first.gone)), graph)
    assert set(first.gone["stem"].tolist()) < set(second.gone["stem"].tolist())
    head = first.patterns["head.weight"]
    alive = head & kept["head.weight"]
    assert not (second.patterns["head.weight"] & ~alive & kept["norm.weight"]).any()


def test_units_sum_what_loops_sum():
    model = small_net()
    graph, _ = parts(model)
    for units in units_of(MIXED, graph):
        values = {each.tensor: model.get_parameter(each.tensor).detach().double() for each in units.weights()}
        found = units.sums(values, units.weights())
        if units.removed:
            group = graph.groups[units.name]
            out = [each for each in group.slices if each.role == "out"]
            by_hand = [
                sum(values[each.tensor].index_select(each.dim, each.index[unit]).sum() for each in out)
                for unit in range(group.units)
            ]
            torch.testing.assert_close(found, torch.stack(by_hand))
        else:
            torch.testing.assert_close(found, values[units.weights()[0].tensor].reshape(-1))
        assert torch.equal(units.spread(found, units.weights()[0], 0.0).amax(), found.amax())


def test_a_sparsifier_passes_through_n_of_m():
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    chosen = config({"head": [("2:4", None)]})
    schedule = ap.IterativeSchedule(begin=1, end=2, rounds=2)
    sparsifier = ap.Sparsifier(model, chosen, optimizer, schedule)
    zeros = []
    for _ in range(2):
        optimizer.step()
        sparsifier.step()
        zeros.append((model.head.weight.reshape(-1, 4) == 0).sum(1).unique().tolist())
    assert zeros == [[1], [2]]
