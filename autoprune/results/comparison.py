"""Runs beside one another: what may be compared, in which normalisation, and what each run found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from autoprune.errors import UsageError
from autoprune.results.facts import NAME_LIMIT
from autoprune.results.formats import MISSING, ScoreFormat, number, percent, plain, seconds
from autoprune.results.picks import picks
from autoprune.results.table import Cell, Column, Row, Table
from autoprune.spec.document import Document
from autoprune.spec.front import DROP, dense_trial, front, hypervolume_of
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import RunRecords, TrialRecord

_DROP_DIGITS = 4  # dense scores that agree to 0.0001 are of the same checkpoint on the same data


@dataclass(frozen=True)
class Run:
    """One run of a comparison.

    Attributes:
        label: Short, unique name.
        records: As they were read.
        common: The same with the comparison's objectives and reference point: the share of the run's own dense model
            in every cost, the common bound in the drop. What fronts and hypervolumes of the comparison are made from.
    """

    label: str
    records: RunRecords
    common: RunRecords


@dataclass(frozen=True)
class Comparison:
    """Several runs.

    Attributes:
        runs: In the order given.
        objectives: Those that all runs have; empty where fronts of these runs cannot share a plot.
        warnings: Sentences on what differs between the runs, and so what the numbers do not say.
    """

    runs: tuple[Run, ...]
    objectives: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def headline(self) -> str:
        """Which run covers most, in a sentence."""
        volumes = [(hypervolume_of(run.common), run.label) for run in self.runs] if self.objectives else []
        known = [(volume, label) for volume, label in volumes if volume is not None]
        if len(known) < len(self.runs):
            return f"{len(self.runs)} runs; no common hypervolume can be given."
        ranked = sorted(known, key=lambda pair: -pair[0])
        listed = ", ".join(f"{plain(label, NAME_LIMIT)} {number(volume)}" for volume, label in ranked)
        return f"Hypervolume with a common reference point, largest first: {listed}."


def compare(named: Sequence[tuple[str, RunRecords]]) -> Comparison:
    """Put runs beside one another.

    Args:
        named: Directory and records of each run.

    Raises:
        UsageError: Fewer than two runs.
    """
    if len(named) < 2:
        raise UsageError(f"a comparison needs at least two runs; {len(named)} was given")
    labels = _labels([name for name, _ in named])
    records = [run for _, run in named]
    objectives = _common(records)
    bound = _common_drop(records) if DROP in objectives else 0.0
    if DROP in objectives and bound is None:
        objectives = ()
    runs = tuple(
        Run(label, run, _aligned(run, objectives, bound or 0.0)) for label, run in zip(labels, records, strict=True)
    )
    return Comparison(runs, objectives, _warnings(runs, objectives))


def run_table(comparison: Comparison) -> Table:
    """Return one row a run: how it searched, on what, and what volume its front covers in the common box."""
    rows = []
    for run in comparison.runs:
        study, dense = run.records.study, dense_trial(run.records)
        volume = hypervolume_of(run.common) if comparison.objectives else None
        states = [trial.state for trial in run.records.trials]
        failed = states.count("failed")
        took = sum(trial.timings.total_s for trial in run.records.trials)
        latency = dense.values.get("latency_ms") if dense else None
        rows.append(
            Row(
                (
                    Cell(plain(run.label, NAME_LIMIT)),
                    Cell(plain(study.spec.search.sampler, 40), f"seed {study.spec.search.seed}"),
                    Cell(str(len(states)), f"{failed} failed" if failed else ""),
                    Cell(plain(study.device_title, 60)),
                    Cell(ScoreFormat.of(study).score(study.dense_score)),
                    Cell(f"{number(latency)} ms" if latency is not None else MISSING),
                    Cell(str(len(front(run.records)))),
                    Cell(number(volume)),
                    Cell(seconds(took)),
                    Cell(_dates(run.records)),
                )
            )
        )
    columns = (
        Column("run", numeric=False),
        Column("sampler", numeric=False),
        Column("trials"),
        Column("device", numeric=False),
        Column("dense score"),
        Column("dense latency"),
        Column("front"),
        Column("hypervolume", note="common reference"),
        Column("wall time"),
        Column("date", numeric=False),
    )
    return Table("The runs", columns, tuple(rows))


def picks_table(comparison: Comparison) -> Table | None:
    """Return the picks of each run with what they save against the run's own dense model; None where none has any."""
    costs = [
        name
        for name in dict.fromkeys(name for run in comparison.runs for name in run.records.study.spec.objectives)
        if name != DROP
    ]
    rows = []
    for run in comparison.runs:
        chosen, dense, scores = picks(run.records), dense_trial(run.records), ScoreFormat.of(run.records.study)
        for trial in chosen.trials():
            rows.append(
                Row(
                    (
                        Cell(plain(run.label, NAME_LIMIT)),
                        Cell(", ".join(chosen.titles(trial)), f"trial {trial.number}"),
                        Cell(scores.drop(trial.values.get(DROP))),
                        Cell(scores.score(trial.test_score)),
                        *(_cost_cell(trial, dense, name, scores) for name in costs),
                    )
                )
            )
    if not rows:
        return None
    columns = (
        Column("run", numeric=False),
        Column("pick", numeric=False),
        Column("drop"),
        Column("test score"),
        *(Column(METRICS[name].title, note="share of dense") for name in costs),
    )
    return Table("The picks of each run, against its own dense model", columns, tuple(rows))


def coverage_table(comparison: Comparison) -> Table | None:
    """Return what share of each run's front another run's front dominates; None where no plot can be shared.

    The measure of Zitzler and Thiele 1999 (doi:10.1109/4235.797969): a trial counts as covered if the other front has
    one that is nowhere worse; costs are shares of each run's own dense model.
    """
    if not comparison.objectives:
        return None
    points = {run.label: [_position(trial, run) for trial in front(run.common)] for run in comparison.runs}
    rows = []
    for mine in comparison.runs:
        cells = [Cell(plain(mine.label, NAME_LIMIT))]
        for other in comparison.runs:
            own = points[mine.label]
            covered = sum(
                any(all(b <= a for a, b in zip(point, rival, strict=True)) for rival in points[other.label])
                for point in own
            )
            cells.append(Cell(MISSING if mine is other else percent(covered / len(own)) if own else MISSING))
        rows.append(Row(tuple(cells)))
    heads = (Column("front of", numeric=False), *(Column(plain(run.label, 40)) for run in comparison.runs))
    return Table("How much of each front the front of another run covers", heads, tuple(rows))


def share(trial: TrialRecord, run: Run, cost: str) -> float | None:
    """Return a trial's cost over that of its run's dense model: the paired ratio for a latency; None if unknown."""
    if cost == "latency_ms" and trial.latency is not None:
        return trial.latency.ratio
    dense = dense_trial(run.records)
    base = dense.values.get(cost) if dense else None
    return trial.values[cost] / base if base and cost in trial.values else None


def _position(trial: TrialRecord, run: Run) -> list[float]:
    objectives = run.common.study.spec.objectives
    return [trial.values[name] if name == DROP else trial.values[name] / _base(run, name) for name in objectives]


def _base(run: Run, cost: str) -> float:
    return run.common.study.reference[cost]


def _common(records: Sequence[RunRecords]) -> tuple[str, ...]:
    """Objectives of all runs, where these search one architecture in one direction and know their dense models."""
    first = records[0].study
    alike = all(
        run.study.fingerprint == first.fingerprint and run.study.higher_is_better == first.higher_is_better
        for run in records
    )
    if not alike:
        return ()
    shared = [name for name in first.spec.objectives if all(name in run.study.spec.objectives for run in records)]
    denses = [dense_trial(run) for run in records]
    known = all(dense is not None and all(dense.values.get(n, 0) > 0 for n in shared if n != DROP) for dense in denses)
    return tuple(shared) if known and any(name != DROP for name in shared) else ()


def _common_drop(records: Sequence[RunRecords]) -> float | None:
    bounds = [run.study.reference.get(DROP) for run in records]
    known = [bound for bound in bounds if bound is not None]
    return min(known) if len(known) == len(bounds) else None


def _aligned(run: RunRecords, objectives: tuple[str, ...], drop: float) -> RunRecords:
    dense = dense_trial(run)
    if not objectives or dense is None:
        return run
    reference = {name: drop if name == DROP else dense.values[name] for name in objectives}
    spec = run.study.spec.model_copy(update={"objectives": objectives})
    study = run.study.model_copy(update={"spec": spec, "reference": reference})
    return run.model_copy(update={"study": study})


def _warnings(runs: Sequence[Run], objectives: tuple[str, ...]) -> tuple[str, ...]:
    studies = [run.records.study for run in runs]
    told = []

    def differ(values: Sequence[object], sentence: str) -> None:
        if len(set(values)) > 1:
            listed = ", ".join(
                f"{plain(run.label, 40)}: {plain(value, 80)}" for run, value in zip(runs, values, strict=True)
            )
            told.append(f"{sentence} ({listed}).")

    differ(
        [study.fingerprint for study in studies],
        "The architectures differ, so neither fronts nor hypervolumes are compared",
    )
    differ([study.higher_is_better for study in studies], "One score rises and another falls with quality")
    differ([study.spec.task for study in studies], "The tasks differ; drops may be on different data")
    differ(
        [round(study.dense_score, _DROP_DIGITS) for study in studies],
        "The dense scores differ, so checkpoint or data do; a drop is against the run's own dense score",
    )
    differ(
        [study.device_title for study in studies],
        "The devices differ; latency and energy are shares of the dense model on each run's own device",
    )
    differ([study.machine for study in studies], "The machines that searched differ")
    differ(
        [
            f"{study.spec.latency.runtime}, batch {study.spec.latency.batch}, {study.spec.latency.threads} threads"
            for study in studies
        ],
        "Latency was taken under different conditions",
    )
    differ(
        [_settings(study.spec.recovery) for study in studies], "Recovery differs, so drops are not of the search alone"
    )
    differ(
        [", ".join(study.spec.objectives) for study in studies],
        f"The objectives differ; compared are {', '.join(objectives) or 'none'}",
    )
    differ(
        [", ".join(str(bound) for bound in study.spec.bounds) or "none" for study in studies],
        "The constraints differ; the common reference point has the tightest drop",
    )
    differ([len(run.records.trials) for run in runs], "The numbers of trials differ")
    return tuple(told)


def _cost_cell(trial: TrialRecord, dense: TrialRecord | None, name: str, scores: ScoreFormat) -> Cell:
    value = trial.values.get(name)
    base = dense.values.get(name) if dense is not None else None
    if name == "latency_ms" and trial.latency is not None:
        return Cell(f"{trial.latency.ratio:.2f}×", scores.metric(name, value))
    if value is None or not base:
        return Cell(scores.metric(name, value))
    return Cell(percent(value / base), scores.metric(name, value))


def _settings(spec: Document) -> str:
    return ", ".join(f"{key} {value}" for key, value in spec.to_data().items())


def _dates(records: RunRecords) -> str:
    days = sorted({trial.finished_at[:10] for trial in records.trials if trial.finished_at})
    return MISSING if not days else plain(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}", 40)


def _labels(names: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart; numbered where the paths are the same."""
    parts = [PurePath(name).parts or (name,) for name in names]
    for length in range(1, max(len(part) for part in parts) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [f"{name} ({i})" for i, name in enumerate(names, start=1)]
