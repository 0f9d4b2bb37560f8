"""What leaves a space once the device was asked: patterns that do not pay, and widths that lie on no step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd

from autoprune.pruning.granularity import granularity
from autoprune.search.proposals import AUTO, NONE, Knob, Proposals
from autoprune.spec.findings import DroppedChoice
from autoprune.spec.profile import Payoff, Staircase
from autoprune.spec.study import StudySpec
from autoprune.spec.survey import Survey
from autoprune.trial.survey import best_payoffs

_FOR_SIZE = ("size_bytes", "params", "effective_macs")
"""Metrics for whose sake a pattern stays that gives no speed."""

_WORTH = 0.95
"""A gain below this is none, and an interval that reaches below it does not rule one out."""


@dataclass(frozen=True)
class Narrowed:
    """A space without what does not pay.

    Attributes:
        proposals: What is left.
        dropped: What is not.
        notes: Sentences for the report.
        told: One sentence for the terminal; empty where nothing was found.
    """

    proposals: Proposals
    dropped: tuple[DroppedChoice, ...] = ()
    notes: tuple[str, ...] = ()
    told: str = ""


def narrow(proposals: Proposals, survey: Survey, spec: StudySpec) -> Narrowed:
    """Leave out what cannot be part of any front.

    A pattern that only sets weights to zero and gives no speed leaves where the study asks for nothing that it lowers;
    it stays for the sake of size. A width on no step is as slow as a wider one, and the wider one is more accurate.

    Args:
        proposals: The space as it was written.
        survey: What was measured.
        spec: Its objectives and constraints.
    """
    idle = {key: best for key, best in best_payoffs(survey.payoffs).items() if _masks(key) and _idle(best)}
    asked = {*spec.objectives, *(bound.metric for bound in spec.bounds)}
    kept_for = [metric for metric in _FOR_SIZE if metric in asked]
    stays = {key: kept_for + ["energy_mj"] * (best.listed and "energy_mj" in asked) for key, best in idle.items()}
    refused = {key: best for key, best in idle.items() if not stays[key]}
    knobs: list[Knob] = []
    dropped: list[DroppedChoice] = []
    for knob in proposals.knobs:
        left, gone = _without(knob, refused)
        dropped += gone
        if left is None:
            continue
        stepped, gone = _on_steps(left, survey.staircases, speed_only=not {"macs", *_FOR_SIZE} & asked)
        dropped += gone
        if stepped is not None:
            knobs.append(stepped)
    notes = [
        f"{_tried(key, best)}; it stays in the space for {', '.join(stays[key])}"
        for key, best in idle.items()
        if stays[key]
    ]
    if not any(len(choices) > 1 for knob in knobs for choices in knob.parameters().values()):
        nothing = "nothing in this space pays on this device, so all of it is searched; expect no speed"
        return Narrowed(replace(proposals, notes=(*proposals.notes, nothing)), (), (nothing,), nothing)
    told = [f"{_tried(key, best)}: left out" for key, best in refused.items()]
    told += [f"{_tried(key, best)}: kept for {', '.join(stays[key])}" for key, best in idle.items() if stays[key]]
    told += _told_steps(survey.staircases) if any(knob.round_to == AUTO for knob in proposals.knobs) else []
    return Narrowed(replace(proposals, knobs=tuple(knobs)), tuple(dropped), tuple(notes), "; ".join(told))


def steps_for(knob: Knob, staircases: Sequence[Staircase]) -> tuple[int, ...] | None:
    """Return the widths of a knob that lie on steps, the dense one left out; None where no staircase tells.

    The staircase of one of its layers where there is one; else the multiples of what all steps found are multiples of,
    where that is less than the layer's own width.
    """
    assert knob.group is not None
    own = [stairs for stairs in staircases if stairs.layer in knob.group.layers]
    if own:
        return own[0].steps
    found = [stairs for stairs in staircases if stairs.steps]
    if not found:
        return None
    step = gcd(*(width for stairs in found for width in (*stairs.steps, stairs.points[0].channels)))
    return tuple(range((knob.width - 1) // step * step, 0, -step)) if step < knob.width else None


def _masks(key: str) -> bool:
    return not granularity(key).removed


def _idle(best: Payoff) -> bool:
    """Whether a pattern gives no speed, as far as several tries on a noisy machine can tell.

    One that the device profile lists has to be measured well to be refused; one that it does not has to gain clearly.
    """
    if best.listed:
        return not best.pays and best.ratio.low > _WORTH
    return best.ratio.high > _WORTH


def _tried(key: str, best: Payoff) -> str:
    ratio, where = best.ratio, "the whole network" if best.layer is None else best.layer
    how = f"measured {ratio.value:.2f}x the time at best, {ratio.low:.2f} to {ratio.high:.2f}, on {where}"
    if not best.measured:
        how = f"modelled {ratio.value:.2f}x the time, on {where}"
    elif not best.listed and ratio.low <= _WORTH:
        how += ", too noisy to tell, and the device profile lists no kernel that skips its zeros"
    return f"{key} gives no speed here ({how})"


def _without(knob: Knob, refused: Mapping[str, Payoff]) -> tuple[Knob | None, list[DroppedChoice]]:
    gone = [
        DroppedChoice(name=knob.name, granularity=key, reason=_tried(key, best))
        for key, best in refused.items()
        if any(method.partition("/")[0] == key for method in knob.methods)
    ]
    methods = tuple(method for method in knob.methods if method.partition("/")[0] not in refused)
    if not any(method != NONE for method in methods):
        return None, gone
    return replace(knob, methods=methods), gone


def _on_steps(knob: Knob, staircases: Sequence[Staircase], speed_only: bool) -> tuple[Knob | None, list[DroppedChoice]]:
    """Keep the widths of a knob that lie on steps."""
    if knob.round_to != AUTO or knob.group is None:
        return knob, []
    steps = steps_for(knob, staircases)
    removing = [m.partition("/")[0] for m in knob.methods if m != NONE and not _masks(m.partition("/")[0])]
    if steps is None or (not steps and not speed_only):
        return replace(knob, round_to=1), []
    if not steps:
        why = f"no width below {knob.width} is quicker than {knob.width} channels"
        gone = [DroppedChoice(name=knob.name, granularity=key, reason=why) for key in dict.fromkeys(removing)]
        left = tuple(m for m in knob.methods if m == NONE or _masks(m.partition("/")[0]))
        return (replace(knob, methods=left, group=None) if any(m != NONE for m in left) else None), gone
    return replace(knob, widths=(knob.width, *steps)).distinct(), []


def _told_steps(staircases: Sequence[Staircase]) -> list[str]:
    return [
        f"{stairs.layer} is quicker at {', '.join(map(str, stairs.steps)) or 'no width'} channels"
        for stairs in staircases
    ]
