"""``profile_study`` on a small network: its counts against fvcore and torch, its parts against the whole."""

import pytest
import torch
from small_task import small_net, task
from torch import nn

from autoprune.cost.meters import ModelInputs
from autoprune.cost.workload import workload_of
from autoprune.errors import UnknownNameError
from autoprune.spec.profile import Ratio
from autoprune.spec.study import LatencySpec, StudySpec, resolve_study
from autoprune.trial.profile.alone import AloneMeter, modules_alone, record_inputs, signature
from autoprune.trial.profile.costs import measure_shares
from autoprune.trial.profile.payoffs import Trials, find_steps
from autoprune.trial.profile.run import profile_study
from autoprune.trial.runner import TrialRunner

QUICK = LatencySpec(half_width=0.9, budget_s=0.02)


class Block(nn.Module):
    """A part that is used twice, a sum in the parent's own forward, and a part that takes what is no tensor."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.one = nn.Linear(6, 6)
        self.two = nn.Linear(6, 6)
        self.wide = nn.Linear(6, 3)

    def forward(self, x):
        return self.wide(self.relu(self.two(self.relu(self.one(x)))) + x)


@pytest.fixture
def block():
    torch.manual_seed(0)
    return Block().eval(), ModelInputs((torch.randn(2, 6),))


def test_modules_are_timed_alone_and_their_parents_are_the_rest(block):
    model, inputs = block
    assert modules_alone(workload_of(model, inputs.args)) == ("one", "relu", "two", "wide")


def test_inputs_are_recorded_before_an_in_place_operator_changes_them(block):
    model, inputs = block
    first, second = record_inputs(model, inputs, ["relu"])["relu"]
    with torch.inference_mode():
        assert torch.equal(first.args[0], model.one(inputs.args[0]))
        assert torch.equal(second.args[0], model.two(torch.relu(first.args[0])))
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_only_modules_that_do_the_same_work_share_a_signature(block):
    model, inputs = block
    calls = record_inputs(model, inputs, ["one", "two", "wide"])
    one, two, wide = (signature(model.get_submodule(name), calls[name]) for name in ("one", "two", "wide"))
    assert one == two != wide
    assert signature(model, (inputs,)) is None  # foreign code may do anything


def test_a_module_that_runs_twice_counts_twice_and_like_modules_are_measured_once(block):
    model, inputs = block
    measured = []

    class Fixed(AloneMeter):
        def measure(self, first, first_inputs, second, second_inputs):
            found = super().measure(first, first_inputs, second, second_inputs)
            measured.append(second)
            return found

    shares = measure_shares(model, inputs, workload_of(model, inputs.args), Fixed(QUICK))
    assert shares.like == {"two": "one"}
    assert measured == [model, model.one, model.relu, model.relu, model.wide]
    assert shares.shares["two"] == shares.shares["one"]
    assert not shares.skipped


def test_inputs_that_share_no_first_dimension_are_not_measured(block):
    model, inputs = block
    other = ModelInputs((torch.randn(5, 6),))
    assert AloneMeter(QUICK).measure(model, inputs, model.one, other) is None


def test_steps_are_widths_that_no_wider_one_equals():
    times = {64: 1.0, 63: 1.5, 56: 0.99, 48: 0.6, 47: 0.62, 32: 0.3}
    points = find_steps([(width, Ratio(value=t, low=t, high=t)) for width, t in times.items()], half_width=0.02)
    assert [point.channels for point in points if point.on_step] == [64, 48, 32]


def test_a_modelled_device_is_profiled_without_a_meter():
    spec = StudySpec(task="small_task:task", device="eyeriss", space="cnn-mixed", latency=QUICK)
    profile = profile_study(task(), spec, ["raspberry-pi-5"])
    model = small_net()
    assert not profile.device.measured
    assert profile.params == sum(parameter.numel() for parameter in model.parameters())
    assert sum(layer.params for layer in profile.device.layers) == profile.params
    products = {layer.name: layer.macs for layer in profile.device.layers if layer.macs}
    assert products["inner"] == 8 * 12 * 9 * 36
    assert products["head"] == 8 * 4
    assert sum(layer.modelled_ms for layer in profile.device.layers) == pytest.approx(profile.device.latency_ms)
    assert {tried.granularity for tried in profile.payoffs} == {"channel", "weight", "2:4"}
    assert all(tried.ratio.low == tried.ratio.high and not tried.measured for tried in profile.payoffs)
    idle = [tried for tried in profile.payoffs if tried.granularity == "2:4"]
    assert idle
    assert all(tried.ratio.value == pytest.approx(1) and not tried.listed for tried in idle)
    whole = next(tried for tried in profile.payoffs if tried.layer is None and tried.granularity == "channel")
    assert whole.pays
    assert [other.device for other in profile.others] == ["raspberry-pi-5"]


def test_a_measured_profile_has_shares_that_do_not_exceed_the_whole():
    spec = StudySpec(task="small_task:task", space="channels-2of4", latency=QUICK)
    profile = profile_study(task(), spec)
    device = profile.device
    known = [layer.measured.ms for layer in device.layers if layer.measured]
    assert len(known) == 5  # stem, norm, inner, outer, head: the sum and the functional ReLUs are the rest
    assert sum(known) + device.rest_ms == pytest.approx(device.latency_ms)
    left: dict[str, set[int]] = {}  # which layers are slowest, this machine decides
    for tried in profile.payoffs:
        if tried.layer is not None and tried.channels:
            left.setdefault(tried.layer, set()).add(tried.channels)
    quarters = {"stem": {2, 4, 6}, "inner": {3, 6, 9}, "outer": {2, 4, 6}}
    assert len(left) >= 2
    assert left == {layer: quarters[layer] for layer in left}
    assert profile.staircases[0].points[0].ratio.value == 1


def test_a_gain_of_zeros_that_nothing_exploits_is_measured_twice(monkeypatch):
    """On a busy machine one measurement in many shows a gain that is none."""
    told = iter([0.8, 1.01, 0.97, 0.9])

    def measured(self, layer, pruned):
        value = next(told)
        return Ratio(value=value, low=0.99 * value, high=1.01 * value), True, True

    monkeypatch.setattr(Trials, "_ratio", measured)
    spec = resolve_study(StudySpec(task="small_task:task", space="channels-2of4", latency=QUICK))
    runner = TrialRunner(task(), spec)
    trials = Trials(runner, ModelInputs(runner.task.args), AloneMeter(QUICK))
    assert trials._try(None, "2:4", {"outer": 0.5}).ratio.value == 1.01
    kept = trials._try(None, "2:4", {"outer": 0.5})
    assert (kept.ratio.value, kept.pays) == (0.97, True)
    assert list(told) == []


def test_an_unknown_further_device_is_told_before_anything_runs():
    spec = StudySpec(task="small_task:task", space="channels")
    with pytest.raises(UnknownNameError, match="unknown device 'nvidia-h20'; did you mean 'nvidia-h200'"):
        profile_study(task(), spec, ["nvidia-h20"])
