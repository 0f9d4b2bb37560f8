"""What leaves a space after the device was asked."""

from __future__ import annotations

import pytest
import torch
from small_task import labelled, small_net

from autoprune.graph.groups import find_groups
from autoprune.pruning.scores import ScoreBook
from autoprune.search.narrowing import narrow
from autoprune.search.proposals import NONE, make_proposals
from autoprune.spec.config import RecoverySpec
from autoprune.spec.profile import Payoff, Ratio, Staircase, StairPoint
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec
from autoprune.spec.survey import Survey
from autoprune.trial.task import Calibration

RULE = {
    "granularity": ["channel", "weight", "2:4"],
    "criterion": "magnitude_l1",
    "sparsity": {"low": 0.0, "high": 0.8, "step": 0.1},
}
SPEED = ("accuracy_drop", "latency_ms")


def proposals(width=32, **rule):
    model = small_net(width)
    graph = find_groups(model, (torch.zeros(1, 4, 6, 6),))
    book = ScoreBook(Calibration((torch.zeros(1, 4, 6, 6),), [labelled(model, 8, 1)]).evidence(model, graph, 0))
    space = SpaceSpec.model_validate({"schema": "autoprune/space/1", "name": "s", "rules": [RULE | rule]})
    return make_proposals(space, graph, RecoverySpec(batchnorm_samples=0), 0, book)


def spec(*objectives, **changes):
    return StudySpec(task="a:b", space="channels", objectives=objectives, **changes)


def tried(key, value, low=None, high=None, **changes):
    ratio = Ratio(value=value, low=value if low is None else low, high=value if high is None else high)
    return Payoff(granularity=key, sparsity=0.5, ratio=ratio, measured=True, **{"listed": False} | changes)


def stairs(layer, *points):
    """(width, ratio, whether on a step)."""
    return Staircase(
        layer=layer,
        measured=True,
        points=[
            StairPoint(channels=width, ratio=Ratio(value=time, low=time, high=time), on_step=on)
            for width, time, on in points
        ],
    )


def methods(found):
    return {method.partition("/")[0] for knob in found.knobs for method in knob.methods}


IDLE = Survey(payoffs=(tried("weight", 1.0), tried("2:4", 1.01), tried("2:4", 0.99, 0.97, 1.02, layer="stem")))


def test_patterns_that_give_no_speed_leave_where_only_speed_counts():
    space = proposals()
    found = narrow(space, IDLE, spec("accuracy_drop", "macs", "latency_ms", "energy_mj"))
    assert methods(space) == {"channel", "weight", "2:4"}
    assert methods(found.proposals) <= {"channel", NONE}
    assert {(choice.granularity, choice.criterion) for choice in found.dropped} == {("weight", None), ("2:4", None)}
    reasons = {choice.reason for choice in found.dropped if choice.granularity == "2:4"}
    assert reasons == {"2:4 gives no speed here (measured 0.99x the time at best, 0.97 to 1.02, on stem)"}
    assert "head" not in {knob.name for knob in found.proposals.knobs}  # no channels may go there


@pytest.mark.parametrize("metric", ["size_bytes", "params", "effective_macs"])
def test_they_stay_where_size_counts_and_the_report_says_so(metric):
    asked = [spec(*SPEED, metric)]
    if metric == "size_bytes":
        asked.append(spec(*SPEED, constraints={metric: "50%"}))
    for study in asked:
        found = narrow(proposals(), IDLE, study)
        assert methods(found.proposals) == {"channel", "weight", "2:4"}
        assert found.dropped == ()
        assert any(note.startswith("weight gives no speed") and note.endswith(metric) for note in found.notes)


def test_what_pays_somewhere_stays():
    survey = Survey(payoffs=(tried("weight", 1.0), tried("2:4", 1.01), tried("2:4", 0.7, 0.68, 0.72, layer="stem")))
    found = narrow(proposals(), survey, spec(*SPEED))
    assert methods(found.proposals) <= {"channel", "2:4", NONE}
    assert "2:4" in methods(found.proposals)


def test_noise_refuses_only_what_the_profile_does_not_list():
    noisy = {"low": 0.4, "high": 2.5}
    survey = Survey(payoffs=(tried("weight", 1.0, **noisy), tried("2:4", 1.0, **noisy, listed=True)))
    found = narrow(proposals(), survey, spec(*SPEED))
    assert "2:4" in methods(found.proposals)
    assert "weight" not in methods(found.proposals)
    assert "too noisy to tell, and the device profile lists no kernel" in found.dropped[0].reason


def test_a_listed_pattern_without_speed_stays_for_energy():
    survey = Survey(payoffs=(tried("weight", 1.0, listed=True), tried("2:4", 1.0)))
    found = narrow(proposals(), survey, spec("accuracy_drop", "energy_mj"))
    assert methods(found.proposals) <= {"channel", "weight", NONE}
    assert "weight" in methods(found.proposals)


def test_a_space_of_which_nothing_pays_is_searched_whole():
    space = proposals(granularity=["weight"])
    found = narrow(space, IDLE, spec(*SPEED))
    assert found.proposals.knobs == space.knobs
    assert found.dropped == ()
    assert "nothing in this space pays" in found.notes[0]


def reached(knob):
    return [
        round(knob.width * (1 - choice.fraction))
        for sparsity in knob.sparsities
        for choice in [knob.choice({f"{knob.name}|method": knob.methods[-1], f"{knob.name}|sparsity": sparsity})]
        if choice is not None
    ]


def test_widths_on_no_measured_step_are_left_out():
    space = proposals(64, granularity=["channel"], round_to="auto")
    steps = stairs("stem", (64, 1.0, True), (60, 1.0, False), (48, 0.6, True), (44, 0.61, False), (16, 0.2, True))
    found = narrow(space, Survey(staircases=(steps,)), spec(*SPEED)).proposals
    stem = next(knob for knob in found.knobs if knob.name == "stem")
    assert sorted(reached(stem)) == [16, 48]
    assert len(stem.sparsities) == 3  # dense, and one for each step
    inner = [knob for knob in found.knobs if knob.name == "inner"]  # 12 channels, less than a step of 16
    assert not inner or inner[0].round_to == 1


def test_without_a_step_a_layer_stays_only_for_other_metrics():
    flat = stairs("stem", (32, 1.0, True), (16, 1.1, False), (8, 1.05, False))
    space = proposals(32, granularity=["channel"], round_to="auto")
    quick = narrow(space, Survey(staircases=(flat,)), spec(*SPEED))
    assert "stem" not in {knob.name for knob in quick.proposals.knobs}
    assert [choice.name for choice in quick.dropped] == ["stem"]
    small = narrow(space, Survey(staircases=(flat,)), spec(*SPEED, "macs"))
    assert "stem" in {knob.name for knob in small.proposals.knobs}
    assert small.dropped == ()


def test_auto_before_anything_is_measured_is_no_rounding():
    auto, free = (proposals(64, granularity=["channel"], round_to=to) for to in ("auto", 1))
    assert [reached(knob) for knob in auto.knobs] == [reached(knob) for knob in free.knobs]
    assert narrow(auto, Survey(), spec(*SPEED)).dropped == ()
