"""Bounds that no config can meet are told before anything runs; those that one can meet never are."""

from itertools import product

import pytest
import torch
from small_task import small_net, task

from autoprune.errors import ConfigError, SpecError
from autoprune.graph.groups import find_groups
from autoprune.pruning.scores import ScoreBook
from autoprune.search.proposals import make_proposals
from autoprune.search.reachable import check_reachable
from autoprune.search.study import Study
from autoprune.spec.config import RecoverySpec
from autoprune.spec.hardware import load_device
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec
from autoprune.trial.costs import TrialCosts

X = torch.zeros(1, 4, 6, 6)


def space(granularities, sparsities=(0.0, 0.25, 0.5), **more):
    rule = {"granularity": granularities, "criterion": "magnitude_l1", "sparsity": sparsities, **more}
    return SpaceSpec(name="s", rules=[rule])


@pytest.fixture(scope="module")
def laid():
    """Lay a space over the small network; costs come with it."""
    model = small_net()
    graph = find_groups(model, (X,))
    data = task().calibration
    costs = TrialCosts(model, graph, ((X,), {}), load_device("eyeriss"), "torch")
    book = ScoreBook(data.evidence(model, graph, 0))
    return lambda found: (make_proposals(found, graph, RecoverySpec(batchnorm_samples=0), 0, book), costs)


def study(found, **constraints):
    return StudySpec(task="a:b", space=found, constraints=constraints)


def all_values(proposals, costs, metric):
    """Every config of a space, counted one by one."""
    names, choices = zip(*proposals.parameters().items(), strict=True)
    for values in product(*choices):
        yield costs.of_config(proposals.config(dict(zip(names, values, strict=True)))).values[metric]


@pytest.mark.parametrize("metric", ["macs", "params", "size_bytes", "effective_macs"])
@pytest.mark.parametrize("more", [{}, {"round_to": 4}])
def test_the_least_of_a_space_of_channels_is_exact(laid, metric, more):
    found = space(["channel"], **more)
    proposals, costs = laid(found)
    least = min(all_values(proposals, costs, metric))
    check_reachable(proposals, costs, study(found, **{metric: least}))
    with pytest.raises(ConfigError, match=rf"no config of the space meets the constraint {metric} at most"):
        check_reachable(proposals, costs, study(found, **{metric: least - 1}))


@pytest.mark.parametrize("metric", ["macs", "size_bytes", "effective_macs", "dram_bytes", "activation_bytes"])
def test_no_bound_that_a_config_meets_is_refused(laid, metric):
    """Patterns beside channels: one may lower what the other does not, so only what is certain is said."""
    found = space(["channel", "weight", "2:4"], (0.0, 0.5))
    proposals, costs = laid(found)
    least = min(all_values(proposals, costs, metric))
    check_reachable(proposals, costs, study(found, **{metric: least}))


def test_the_nearest_miss_and_the_remedy_are_told(laid):
    proposals, costs = laid(space(["channel"]))
    with pytest.raises(ConfigError) as caught:
        check_reachable(proposals, costs, study(space(["channel"]), macs="5%"))
    said = str(caught.value)
    assert "macs at most 5% of dense" in said
    least = min(all_values(proposals, costs, "macs"))
    assert f"still has {least:,.0f} MACs, " in said
    assert "raise the bound, or widen the space" in said


def test_a_percentage_of_nothing_is_told_before_anything_runs(laid, monkeypatch):
    proposals, costs = laid(space(["channel"]))
    counts = costs.model.counts
    monkeypatch.setattr(costs.model, "counts", lambda c: counts(c).__class__(**(vars(counts(c)) | {"macs": [0, 0]})))
    with pytest.raises(SpecError, match="60% of the dense value 0 bounds nothing; give a number"):
        check_reachable(proposals, costs, study(space(["channel"]), macs="60%"))


def test_a_study_says_so_when_it_is_made(tmp_path):
    spec = StudySpec(task="a:b", device="eyeriss", space="channels", constraints={"params": 10})
    with pytest.raises(ConfigError, match="no config of the space meets the constraint params at most 10"):
        Study(task(), spec, tmp_path)


def test_a_space_whose_choices_all_come_to_one_network_is_told(laid):
    with pytest.raises(ConfigError, match="every choice comes to the same network"):
        laid(space(["channel"], (0.0, 0.01)))
