"""How far to trust the numbers: predictions, rungs, test data, the course of the search, and where trials ran."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean, median

from autoprune.ranks import spearman
from autoprune.results.facts import NAME_LIMIT, measured, tally
from autoprune.results.formats import MISSING, ScoreFormat, number, percent, plain, seconds
from autoprune.results.table import Cell, Column, Row, Table
from autoprune.spec.front import DENSE, DROP, hypervolume_history
from autoprune.spec.record import RunRecords, TrialRecord

_FEWEST = 3  # pairs from which a rank correlation says anything


@dataclass(frozen=True)
class Trust:
    """What speaks for and against the numbers of a run.

    Attributes:
        sentences: Title and sentence; what the records do not hold is said as well.
        rungs: How each rung of fidelity agrees with the last one; None in a study of one rung.
        workers: Where the trials ran and what went wrong there; None where they ran in one process.
    """

    sentences: tuple[tuple[str, str], ...]
    rungs: Table | None = None
    workers: Table | None = None

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those there are."""
        return tuple(table for table in (self.rungs, self.workers) if table is not None)


def trust(records: RunRecords) -> Trust:
    """Return what the records say for and against their own numbers."""
    return Trust(
        sentences=(
            ("Predicted against measured latency", predictions(records)),
            ("Latency measured twice", repeatability(records)),
            ("Validation against test", validation_against_test(records)),
            ("Course of the search", course(records)),
            ("Cost of the search", search_cost(records)),
        ),
        rungs=rung_table(records),
        workers=worker_table(records),
    )


def predicted_pairs(records: RunRecords) -> tuple[TrialRecord, ...]:
    """Return the trials whose latency was predicted and then measured, by number."""
    pairs = [t for t in measured(records) if t.prediction is not None and t.latency is not None and t.latency.pairs]
    return tuple(sorted(pairs, key=lambda t: t.number))


def predictions(records: RunRecords) -> str:
    """Say how well latency was predicted before it was measured."""
    predictor = records.study.predictor
    learned = ""
    if predictor is not None:
        learned = (
            f"The predictor was learned from {plain(predictor.basis).rstrip('.')} ({predictor.measurements} "
            f"measurements); with one left out at a time its mean error is {percent(predictor.mean_error)}, "
            f"{percent(predictor.within_10)} lie within 10 %, rank correlation {number(predictor.spearman, 2)}. "
        )
    trials = predicted_pairs(records)
    if not trials:
        return learned + "No trial's latency was both predicted and measured."
    pairs = [(t.prediction.ms, t.latency.ms) for t in trials if t.prediction is not None and t.latency is not None]
    errors = [abs(predicted / actual - 1) for predicted, actual in pairs]
    inside = sum(
        t.prediction.low_ms <= t.latency.ms <= t.prediction.high_ms
        for t in trials
        if t.prediction is not None and t.latency is not None
    )
    said = (
        f"Over {len(pairs)} trials the prediction misses the measurement by {percent(mean(errors))} on average and by "
        f"{percent(max(errors))} at most; {inside} of {len(pairs)} measurements lie in the 95 % interval of their "
        "prediction"
    )
    return f"{learned}{said}{_rank([p for p, _ in pairs], [m for _, m in pairs])}."


def repeated_pairs(records: RunRecords) -> tuple[TrialRecord, ...]:
    """Return the trials whose latency was measured once more, by number."""
    pairs = [t for t in measured(records) if t.latency is not None and t.again is not None]
    return tuple(sorted(pairs, key=lambda t: t.number))


def repeatability(records: RunRecords) -> str:
    """Say by how much a second measurement of latency differs from the first."""
    pairs = [(t.latency, t.again) for t in repeated_pairs(records) if t.latency is not None and t.again is not None]
    if not pairs:
        return "No trial's latency was measured a second time."
    changes = [abs(again.ratio / first.ratio - 1) for first, again in pairs]
    apart = sum(max(a.ratio_low, b.ratio_low) > min(a.ratio_high, b.ratio_high) for a, b in pairs)
    so = (
        f"in {apart} of {len(pairs)} the two 95 % intervals lie apart, so one interval tells less than all of the "
        "doubt on this machine: take smaller differences between trials for none"
        if apart
        else "the two 95 % intervals of each overlap"
    )
    return (
        f"Measured once more after the search, the ratio of {len(pairs)} trials of the front differs by "
        f"{number(100 * median(changes), 2)} % in the median and by {number(100 * max(changes), 2)} % at most; {so}."
    )


def validation_against_test(records: RunRecords) -> str:
    """Say how the drop on validation data, which the search saw, compares with the drop on test data."""
    study = records.study
    tested = [t for t in measured(records) if t.test_score is not None and math.isfinite(t.test_score)]
    dense = next((t for t in tested if t.origin == DENSE), None)
    trials = [t for t in tested if t.origin != DENSE and math.isfinite(t.values.get(DROP, math.nan))]
    if dense is None or dense.test_score is None or not trials:
        return (
            "No pruned model was scored on test data, so nothing shows how much the choice on validation data flatters."
        )
    sign = 1.0 if study.higher_is_better else -1.0
    drops = [(t.values[DROP], sign * (dense.test_score - t.test_score)) for t in trials if t.test_score is not None]
    excess = [test - seen for seen, test in drops]
    scores = ScoreFormat.of(study)
    more = "larger" if mean(excess) >= 0 else "smaller"
    return (
        f"Over {len(drops)} trials the drop on test data is {scores.drop(abs(mean(excess)))} {more} on average than on "
        f"the validation data that the search saw, and {scores.drop(max(abs(e) for e in excess))} away at most"
        f"{_rank([seen for seen, _ in drops], [test for _, test in drops])}."
    )


def course(records: RunRecords) -> str:
    """Say how the hypervolume grew over the trials: a search that still grows was stopped early."""
    history = hypervolume_history(records)
    if not history or not history[-1]:
        return "No hypervolume is known, so nothing shows whether the search had settled."
    final = history[-1]
    numbers = sorted(trial.number for trial in records.trials)
    reached = next(n for n, value in zip(numbers, history, strict=True) if value >= 0.95 * final)
    half = history[(len(history) - 1) // 2]
    grown = (final - half) / final
    asked = records.study.spec.search.trials
    finished = sum(trial.state != "pruned" for trial in records.trials)
    open_end = f" {finished} of the {asked} trials asked for are recorded: the search may go on." * (finished < asked)
    return (
        f"Hypervolume {number(final)} after {len(history)} trials; 95 % of it was reached at trial {reached}, and the "
        f"second half of the trials brought {percent(grown)} of it.{open_end}"
    )


def search_cost(records: RunRecords) -> str:
    """Say what the search took in wall time."""
    if not records.trials:
        return "No trial was run."
    total = sum(trial.timings.total_s for trial in records.trials)
    return f"{len(records.trials)} trials took {seconds(total)} of wall time, summed over trials."


def rung_table(records: RunRecords) -> Table | None:
    """Return for each rung who climbed it, what it cost, and how its order agrees with the last rung's.

    None where no trial has rungs. A trial that was stopped on a lower rung counts there alone.
    """
    climbed = [t for t in sorted(records.trials, key=lambda t: t.number) if t.rungs]
    names = list(dict.fromkeys(rung.name for t in climbed for rung in t.rungs or ()))
    if not names:
        return None
    names.sort(key=lambda name: max(place for t in climbed for place, r in enumerate(t.rungs or ()) if r.name == name))
    last = names[-1]
    rows = []
    for name in names:
        here = {t.number: r for t in climbed for r in t.rungs or () if r.name == name and t.origin != DENSE}
        there = {t.number: r for t in climbed for r in t.rungs or () if r.name == last and t.origin != DENSE}
        both = sorted(here.keys() & there.keys())
        agreement = spearman([here[n].drop for n in both], [there[n].drop for n in both]) if name != last else math.nan
        told = MISSING if math.isnan(agreement) or len(both) < _FEWEST else number(agreement, 2)
        rows.append(
            Row(
                (
                    Cell(plain(name, NAME_LIMIT)),
                    Cell(str(len(here))),
                    Cell(seconds(median(r.seconds for r in here.values())) if here else MISSING),
                    Cell(told, f"{len(both)} trials" if told != MISSING else ""),
                )
            )
        )
    columns = (
        Column("rung", numeric=False),
        Column("trials"),
        Column("median time"),
        Column("rank correlation", note="trials on both"),
    )
    return Table(
        f"Rungs: order of the drops on each against the last one, {plain(last, NAME_LIMIT)}", columns, tuple(rows)
    )


def worker_table(records: RunRecords) -> Table | None:
    """Return the machines that trials ran on, repeated starts and events; None where no worker is recorded."""
    trials = [t for t in records.trials if t.worker is not None]
    if not trials:
        return None
    rows = []
    for host in sorted({t.worker.host for t in trials if t.worker is not None}):
        there = [t.worker for t in trials if t.worker is not None and t.worker.host == host]
        events = tally(event for worker in there for event in worker.events)
        told = "; ".join(f"{plain(event, 200)} ({n}×)" for event, n in events[:5]) or "none"
        processes = len({worker.pid for worker in there})
        again = sum(worker.attempts > 1 for worker in there)
        cells = (plain(host, NAME_LIMIT), str(len(there)), str(processes), str(again), told)
        rows.append(Row(tuple(Cell(text) for text in cells)))
    columns = (
        Column("machine", numeric=False),
        Column("trials"),
        Column("processes"),
        Column("started again"),
        Column("what went wrong", numeric=False),
    )
    return Table("Where the trials ran", columns, tuple(rows))


def _rank(first: list[float], second: list[float]) -> str:
    value = spearman(first, second) if len(first) >= _FEWEST else math.nan
    return "" if math.isnan(value) else f"; rank correlation {number(value, 2)}"
