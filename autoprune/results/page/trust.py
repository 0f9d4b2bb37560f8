"""The figures of "trust": predictions, second measurements, baselines, rungs, test data, course of the search."""

from __future__ import annotations

from collections import Counter

from autoprune.results.details import energy_table
from autoprune.results.facts import measured
from autoprune.results.formats import ScoreFormat, plain
from autoprune.results.page.figure import Axis, Figure, Point, Series
from autoprune.results.page.part import Part
from autoprune.results.trust import (
    course,
    predicted_pairs,
    predictions,
    repeatability,
    repeated_pairs,
    rung_table,
    validation_against_test,
    worker_table,
)
from autoprune.spec.front import DENSE, front, hypervolume_history
from autoprune.spec.record import RunRecords, TrialRecord


def trust_parts(records: RunRecords) -> tuple[Part, ...]:
    """Return the parts of "trust"; each says what it lacks."""
    parts = (
        _prediction(records),
        _repeated(records),
        _test(records),
        _course(records),
        _rungs(records),
        _energy(records),
        _workers(records),
    )
    return tuple(part for part in parts if part is not None)


def _prediction(records: RunRecords) -> Part | None:
    if not any(t.latency for t in records.trials):
        return None
    title, told = "Latency: predicted against measured", predictions(records)
    points = tuple(
        Point(
            m.ms,
            p.ms,
            f"config {t.number}",
            p.low_ms,
            p.high_ms,
        )
        for t in predicted_pairs(records)
        if (p := t.prediction) is not None and (m := t.latency) is not None
    )
    if not points:
        return Part(title, absent=told)
    figure = Figure(
        "trust-prediction",
        "Predicted against measured latency",
        told,
        Axis("measured", "ms"),
        Axis("predicted", "ms"),
        (Series("", 0, "points", points),),
        diagonal=1.1,
        note="On the line the prediction was right; dashed: 10 % off. Bars: predicted 95 % interval.",
    )
    return Part(title, told, figures=(figure,))


def _repeated(records: RunRecords) -> Part | None:
    trials = repeated_pairs(records)
    if not trials:
        return None
    title, told = "Latency: measured twice", repeatability(records)
    points = tuple(
        Point(first.ratio, again.ratio, f"config {t.number}", again.ratio_low, again.ratio_high)
        for t in trials
        if (first := t.latency) is not None and (again := t.again) is not None
    )
    figure = Figure(
        "trust-again",
        "Second against first measurement of latency",
        told,
        Axis("latency / dense, in the search", "%"),
        Axis("once more after it", "%"),
        (Series("", 0, "points", points),),
        diagonal=1.05,
        note="On the line both agree; dashed: 5 % off. Bars: 95 % interval of the second one.",
    )
    return Part(title, told, figures=(figure,))


def _energy(records: RunRecords) -> Part:
    title = "Energy: the model against its baselines"
    trials = [t for t in measured(records) if t.energy is not None]
    if not trials:
        return Part(
            title,
            absent="No energy was modelled in this run; name energy_mj among the objectives to have it estimated.",
        )
    bases = Counter(t.energy.basis for t in trials if t.energy)
    dense = next((t.energy for t in trials if t.origin == DENSE), None)
    figures: tuple[Figure, ...] = ()
    if dense is not None and dense.mj and len(trials) > 2:
        series = []
        for name, color, mark, baseline in (
            ("MACs alone", 1, "square", "macs_only_mj"),
            ("latency alone", 2, "circle", "time_only_mj"),
        ):
            points = tuple(
                Point(
                    getattr(t.energy, baseline) / dense.mj,
                    t.energy.mj / dense.mj,
                    f"config {t.number}",
                )
                for t in trials
                if t.energy is not None and t.origin != DENSE
            )
            series.append(Series(name, color, "points", points, mark))
        figures = (
            Figure(
                "trust-energy",
                "The model against what MACs or latency alone would say",
                f"Energy of {len(trials) - 1} trials by the model, over dense energy scaled by MACs and by time.",
                Axis("dense energy scaled by one of the two", "%"),
                Axis("energy by the model / dense", "%"),
                tuple(series),
                diagonal=1.0,
                note="On the line the model says no more than that baseline.",
            ),
        )
    table = energy_table(records)
    told = "; ".join(plain(basis, 200) for basis in bases)
    return Part(
        title,
        f"Modelled, not measured. Calibration: {told}. The range holds every figure of the device profile at its ends.",
        figures=figures,
        tables=(table,) if table else (),
    )


def _test(records: RunRecords) -> Part:
    title = "Validation against test"
    scores = ScoreFormat.of(records.study)
    tested = [t for t in measured(records) if t.test_score is not None and t.score is not None]
    if not tested:
        return Part(
            title,
            absent="No test score is in the records; give the task a test function, and the front is tested once.",
        )
    best = {t.number for t in front(records)}
    unit = "%" if scores.percent else ""

    def points(kind: list[TrialRecord]) -> tuple[Point, ...]:
        return tuple(
            Point(
                t.score or 0.0,
                t.test_score or 0.0,
                "dense" if t.origin == DENSE else f"config {t.number}",
                big=t.origin == DENSE,
            )
            for t in kind
        )

    figure = Figure(
        "trust-test",
        "Test score over validation score",
        f"Scores of {len(tested)} trials on validation and on test data.",
        Axis("validation score", unit),
        Axis("test score", unit),
        (
            Series("front", 0, "points", points([t for t in tested if t.number in best and t.origin != DENSE])),
            Series(
                "others",
                "muted",
                "points",
                points([t for t in tested if t.number not in best and t.origin != DENSE]),
                "ring",
            ),
            Series("dense", 1, "points", points([t for t in tested if t.origin == DENSE]), "diamond"),
        ),
        diagonal=1.0,
        note="Below the line the test score is lower than the one that the search saw.",
    )
    told = f"{validation_against_test(records)} {len(tested)} trials were tested once, after the search."
    return Part(title, told, figures=(figure,))


def _rungs(records: RunRecords) -> Part | None:
    table = rung_table(records)
    if table is None:
        return None
    climbed = [t.rungs for t in records.trials if t.rungs and t.origin != DENSE]
    longest = max(climbed, key=len, default=())
    figures: tuple[Figure, ...] = ()
    if len(longest) > 1:
        first, last = plain(longest[0].name, 30), plain(longest[-1].name, 30)
        scores = ScoreFormat.of(records.study)
        factor, unit = (100, " (pp)") if scores.percent else (1, "")
        points = tuple(
            Point(
                low.drop * factor,
                high.drop * factor,
                f"config {t.number}",
            )
            for t in records.trials
            if t.rungs and t.origin != DENSE
            for low in t.rungs
            for high in t.rungs
            if low.name == longest[0].name and high.name == longest[-1].name
        )
        figures = (
            Figure(
                "trust-rungs",
                "Drop on the first rung against the last",
                f"Accuracy drop of {len(points)} trials on the rungs {first} and {last}.",
                Axis(f"drop on {first}{unit}"),
                Axis(f"drop on {last}{unit}"),
                (Series("", 2, "points", points),),
                note="A rung may stop a trial only as far as these two rank alike.",
            ),
        )
    return Part("Rungs: what the cheap score says of the dear one", figures=figures, tables=(table,))


def _course(records: RunRecords) -> Part:
    title = "Hypervolume over trials"
    history = hypervolume_history(records)
    if not history:
        return Part(title, absent="There is no reference point yet: the dense model has not been measured.")
    if not history[-1]:
        return Part(title, absent="It is 0: no feasible trial lies within the reference point in every objective.")
    numbers, told = sorted(trial.number for trial in records.trials), course(records)
    corners = [i for i in range(len(history)) if i in (0, len(history) - 1) or history[i] != history[i - 1]]
    figure = Figure(
        "trust-hypervolume",
        "Hypervolume of the front after each trial",
        told,
        Axis("trial", ""),
        Axis("hypervolume", "", zero=True),
        (
            Series(
                "",
                2,
                "steps",
                tuple(Point(numbers[i], history[i], f"after trial {numbers[i]}") for i in corners),
            ),
        ),
        note="Where the curve is flat at the end, more trials would hardly help.",
    )
    return Part(title, told, figures=(figure,))


def _workers(records: RunRecords) -> Part | None:
    table = worker_table(records)
    return Part("Workers", tables=(table,)) if table is not None else None
