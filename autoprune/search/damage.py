"""The damage table of a study: what single choices cost, tried before the first trial, and what follows from it.

For each group or layer all criteria of a granularity are compared at about half sparsity on a quarter of the samples;
the best of them is tried at a low, a middle and the highest sparsity on all. Between two of these damage is a power of
the sparsity, below the lowest its square, and the other criteria get the best one's curve times their ratio at half.
(A table of one evaluation for each layer and width is that of NVIDIA's FastNAS; here the probed network has its own
batch statistics, and is scored by its loss.)

What the whole table costs in trials stands in ``reports/samplers``: more where layers have many granularities. How good
a guide it is, a sampler learns from its trials: ``greybox`` takes the estimate as a trend with a slope of its own.
Others start with configs that follow from it.

Probes are kept in the study's storage, group by group: a study that goes on does not try them again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar

import numpy as np
import optuna

from autoprune.search.errands import Hands, OwnHands
from autoprune.search.greybox.domain import Floats
from autoprune.search.proposals import NONE, Knob, Proposals
from autoprune.spec.config import LayerChoice, PruningConfig
from autoprune.spec.document import parse_document
from autoprune.spec.findings import DamageRecord, DroppedChoice
from autoprune.trial.damage import CONTEST, MOST_SAMPLES, DamageMeter, dense_score_and_samples, probe_samples
from autoprune.trial.runner import TrialRunner

DAMAGE = "autoprune:damage"

LOW, MIDDLE = 0.2, 0.5

TIMES_WORSE = 2.0
MARGIN = 0.01
"""A criterion goes that costs this many times what the best one costs, and this share of the score more: probes on a
hundred samples tell smaller differences from noise only now and then."""


FLOOR = 0.02
"""Share of the score below which damages are not told apart: it is added to both sides of a ratio of two."""


@dataclass(frozen=True)
class DamageTable:
    """Probes of single choices.

    Attributes:
        records: In forward order.
        everything: The space as it was given.
        score: Of the dense model.
    """

    records: tuple[DamageRecord, ...]
    everything: Proposals
    score: float

    @cached_property
    def dropped(self) -> tuple[DroppedChoice, ...]:
        """Criteria that were clearly worse than another one of the same granularity, at the same cost."""
        found: list[DroppedChoice] = []
        for knob in self.everything.knobs:
            for contest in _contests(knob, self.records):
                best = min(contest, key=lambda record: record.drop)
                least = max(best.drop, 0.0)
                for record in contest:
                    if record.drop > TIMES_WORSE * least + MARGIN * abs(self.score):
                        less = f"{best.criterion} {best.drop:.3g}"
                        reason = f"alone at {record.sparsity:.0%} it costs {record.drop:.3g}, {less}"
                        found.append(
                            DroppedChoice(
                                name=knob.name,
                                granularity=record.granularity,
                                criterion=record.criterion,
                                reason=reason,
                            )
                        )
        return tuple(found)

    @cached_property
    def proposals(self) -> Proposals:
        """The space without what was dropped."""
        gone = {(each.name, f"{each.granularity}/{each.criterion}") for each in self.dropped}
        knobs = (
            replace(knob, methods=tuple(method for method in knob.methods if (knob.name, method) not in gone))
            for knob in self.everything.knobs
        )
        return replace(self.everything, knobs=tuple(knobs))

    def arrays(self, proposals: Proposals) -> Mapping[str, Floats]:
        """Return the estimated drop of every choice, by knob name, shape (methods, sparsities) each."""
        return {knob.name: _array(knob, self.records, FLOOR * abs(self.score)) for knob in proposals.knobs}


@dataclass(frozen=True)
class DenseErrand:
    """Score the dense model."""

    on_device: ClassVar[bool] = False

    def __call__(self, runner: TrialRunner) -> tuple[float, int]:
        """Return its score, and the samples that a trial sends through a network.

        Raises:
            TaskError: It cannot be scored.
        """
        return dense_score_and_samples(runner)


@dataclass(frozen=True)
class ProbeErrand:
    """Try the choices of one group or layer.

    Attributes:
        knob: Which.
        proposals: The space.
        score: Of the dense model.
        samples: Of a probe, before bounds.
    """

    on_device: ClassVar[bool] = False
    knob: Knob
    proposals: Proposals
    score: float
    samples: int = MOST_SAMPLES

    def __call__(self, runner: TrialRunner) -> tuple[DamageRecord, ...]:
        """Return the probes."""
        meter = runner.book.keep(
            ("damage", self.score, self.samples), lambda: DamageMeter(runner, self.score, self.samples)
        )
        return tuple(_probe(self.knob, meter, runner, self.proposals))


def damage_table(
    study: optuna.Study,
    runner: TrialRunner,
    proposals: Proposals,
    say: Callable[[str], None] = lambda _: None,
    hands: Hands | None = None,
) -> DamageTable:
    """Try what was not tried yet, and return the table.

    Args:
        study: Keeps the probes.
        runner: The model with its data.
        proposals: The space; residual blocks of it are not tried.
        say: Told when it begins.
        hands: What tries them; None: this process.

    Raises:
        TaskError: The dense model cannot be scored.
    """
    hands = hands or OwnHands(runner)
    kept = study.user_attrs.get(DAMAGE)
    if kept is None:
        (dense,) = hands.perform([DenseErrand()])
        value, seen = dense.value
        kept = {"score": value, "samples": probe_samples(seen, _probes(proposals)), "probes": []}
    score, known = (
        float(kept["score"]),
        [parse_document(DamageRecord, data, "a probe in the storage") for data in kept["probes"]],
    )
    tried = {record.name for record in known}
    samples = kept.get("samples", MOST_SAMPLES)
    lacking = [knob for knob in proposals.knobs if knob.name not in tried and knob.stage is None]
    if lacking:
        say("Trying single choices on a small batch (search.probe) ...")
    for probed in hands.perform([ProbeErrand(knob, proposals, score, samples) for knob in lacking]):
        known += probed.value
        study.set_user_attr(DAMAGE, {**kept, "probes": [record.to_data() for record in known]})
    place = {knob.name: number for number, knob in enumerate(proposals.knobs)}
    known.sort(key=lambda record: place.get(record.name, len(place)))  # workers end in any order
    return DamageTable(tuple(known), proposals, score)


def wants_probes(runner: TrialRunner) -> bool:
    """Whether a study tries single choices first: as it says, else with greybox where the task has a loss."""
    search, data = runner.spec.search, runner.data
    if search.probe is not None:
        return search.probe
    return search.sampler == "greybox" and data.loss is not None and data.batches is not None


def _probes(proposals: Proposals) -> float:
    """Return how many probes a table takes; those of a contest count as their share."""
    contests = [methods for knob in proposals.knobs if knob.stage is None for methods in _by_granularity(knob).values()]
    return sum(3 + (CONTEST * len(methods) if len(methods) > 1 else 0.0) for methods in contests)


def _probe(knob: Knob, meter: DamageMeter, runner: TrialRunner, proposals: Proposals) -> Iterator[DamageRecord]:
    for methods in _by_granularity(knob).values():
        tried = [_record(knob, m, MIDDLE, meter, runner, proposals, few=len(methods) > 1) for m in methods]
        contest = [record for record in tried if record is not None]
        if not contest:
            continue
        best = min(contest, key=lambda record: record.drop)
        method = f"{best.granularity}/{best.criterion}"
        middle = _record(knob, method, MIDDLE, meter, runner, proposals) if len(methods) > 1 else best
        assert middle is not None
        for record in contest:
            # What the same few samples told of the best one says how far they are off.
            yield (
                middle if record is best else record.model_copy(update={"drop": record.drop - best.drop + middle.drop})
            )
        seen = {best.sparsity}
        for wanted in (LOW, *knob.sparsities[-1:]):
            end = _record(knob, method, wanted, meter, runner, proposals, seen)
            if end is not None:
                seen.add(end.sparsity)
                yield end


def _record(
    knob: Knob,
    method: str,
    wanted: float,
    meter: DamageMeter,
    runner: TrialRunner,
    proposals: Proposals,
    seen: set[float] | None = None,
    few: bool = False,
) -> DamageRecord | None:
    positive = [sparsity for sparsity in knob.sparsities if sparsity > 0] or [0.0]
    sparsity = min(positive, key=lambda each: abs(each - wanted))
    choice = _choice(knob, method, sparsity)
    if choice is None or choice.fraction in (seen or set()):
        return None
    drop = meter(knob.name, choice, few).drop
    config = PruningConfig(model=proposals.identity, seed=proposals.seed, layers={knob.name: (choice,)})
    costs = runner.costs.of_config(config)
    return DamageRecord(
        name=knob.name,
        granularity=choice.granularity,
        criterion=choice.criterion,
        sparsity=choice.fraction,
        drop=drop,
        macs=0.0 if costs is None else costs.values["macs"],
    )


def _array(knob: Knob, records: Sequence[DamageRecord], floor: float) -> Floats:
    sparsities = knob.sparsities or (0.0,)
    table = np.zeros((len(knob.methods), len(sparsities)))
    mine = [record for record in records if record.name == knob.name]
    for m, method in enumerate(knob.methods):
        key, _, criterion = method.partition("/")
        curve = [record for record in mine if record.granularity == key]
        if method == NONE or not curve:
            continue
        best = max(
            dict.fromkeys(record.criterion for record in curve), key=lambda c: sum(r.criterion == c for r in curve)
        )
        points = sorted((record.sparsity, max(record.drop, 0.0)) for record in curve if record.criterion == best)
        own = [record for record in curve if record.criterion == criterion]
        same = [drop for sparsity, drop in points if own and sparsity == own[0].sparsity]
        compared = bool(own and same) and criterion != best
        ratio = (max(own[0].drop, 0.0) + floor) / (same[0] + floor) if compared else 1.0
        for s, sparsity in enumerate(sparsities):
            choice = _choice(knob, method, sparsity)
            table[m, s] = 0.0 if choice is None else ratio * _between(points, choice.fraction, floor)
    return table


def _between(points: Sequence[tuple[float, float]], sparsity: float, floor: float) -> float:
    """Return the damage at a sparsity: a power of it between two probes, its square below the first one."""
    x = np.array([at for at, _ in points])
    y = np.maximum.accumulate([drop for _, drop in points])
    if sparsity <= x[0]:
        return float(y[0] * (sparsity / x[0]) ** 2)
    return float(np.exp(np.interp(np.log(sparsity), np.log(x), np.log(y + floor))) - floor)


def _contests(knob: Knob, records: Sequence[DamageRecord]) -> Iterator[list[DamageRecord]]:
    """Yield probes of one knob that differ in the criterion alone."""
    found: dict[tuple[str, float], list[DamageRecord]] = {}
    for record in records:
        if record.name == knob.name:
            found.setdefault((record.granularity, record.sparsity), []).append(record)
    yield from (contest for contest in found.values() if len(contest) > 1)


def _choice(knob: Knob, method: str, sparsity: float) -> LayerChoice | None:
    return knob.choice({f"{knob.name}|method": method, f"{knob.name}|sparsity": sparsity})


def _by_granularity(knob: Knob) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for method in knob.methods:
        if method != NONE:
            found.setdefault(method.partition("/")[0], []).append(method)
    return found
