"""The dense model against the three picks, metric by metric, and the facts that a reader needs beside them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median

from autoprune.results.formats import MISSING, ScoreFormat, interval, number, percent, plain, seconds, speed
from autoprune.results.picks import picks
from autoprune.results.summary import recommended
from autoprune.spec.front import dense_trial, hypervolume_of
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import RunRecords, TrialRecord

_TITLES = {"no loss": "At no measurable loss", "knee": "Best compromise", "fastest": "Fastest within the constraints"}
_WITHOUT_LATENCY = "Cheapest within the constraints"
_ALWAYS = ("macs", "latency_ms", "energy_mj", "size_bytes")
_TEXT = 120


@dataclass(frozen=True)
class Choice:
    """One column.

    Attributes:
        title: What it is.
        number: Its trial; None for the dense model.
        take: Whether it is the one to take.
    """

    title: str
    number: int | None
    take: bool


@dataclass(frozen=True)
class Figures:
    """One cell.

    Attributes:
        text: The value.
        detail: Share of dense, interval, range.
        share: Value / dense, for a bar; None for none.
    """

    text: str
    detail: str = ""
    share: float | None = None


@dataclass(frozen=True)
class Decision:
    """The table at the top.

    Attributes:
        choices: Dense first where it is known, then the picks, each once.
        rows: (metric, one cell for each choice).
        notes: What the table cannot say.
    """

    choices: tuple[Choice, ...]
    rows: tuple[tuple[str, tuple[Figures, ...]], ...]
    notes: tuple[str, ...] = ()


def decision(records: RunRecords) -> Decision | None:
    """Return the dense model beside the picks; None where there is no pick."""
    chosen, dense, take = picks(records), dense_trial(records), recommended(records)
    trials = chosen.trials()
    if not trials:
        return None
    columns = ((dense,) if dense else ()) + trials
    scores, objectives = ScoreFormat.of(records.study), records.study.spec.objectives
    rows: list[tuple[str, tuple[Figures, ...]]] = [
        ("Validation score", tuple(_score(t, dense, scores) for t in columns)),
        ("Test score", tuple(Figures(scores.score(t.test_score)) for t in columns)),
    ]
    for name in dict.fromkeys((*_ALWAYS, *objectives)):
        if name != "accuracy_drop":
            title = METRICS[name].title if name in METRICS else name
            rows.append((title[:1].upper() + title[1:], tuple(_metric(name, t, dense, scores) for t in columns)))
    filled = tuple(row for row in rows if any(cell.text != MISSING for cell in row[1]))

    def titled(trial: TrialRecord) -> str:
        named = [
            _WITHOUT_LATENCY if title == "fastest" and "latency_ms" not in objectives else _TITLES[title]
            for title in chosen.titles(trial)
        ]
        return ", ".join([named[0], *(title[:1].lower() + title[1:] for title in named[1:])])

    heads = tuple(
        Choice("Dense", None, False) if t is dense else Choice(titled(t), t.number, take is not None and t is take)
        for t in columns
    )
    lossy = "No pruned model of the front keeps the dense score on validation data." if chosen.no_loss is None else ""
    return Decision(heads, filled, (lossy,) if lossy else ())


def study_facts(records: RunRecords) -> tuple[tuple[str, str], ...]:
    """Return (title, text) of where, with what and at what cost the run was made."""
    study, spec = records.study, records.study.spec
    states = Counter(trial.state for trial in records.trials)
    odd = [f"{states['failed']} failed"] * bool(states["failed"]) + [f"{states['pruned']} stopped"] * bool(
        states["pruned"]
    )
    spent = sum(trial.timings.total_s for trial in records.trials)
    volume = hypervolume_of(records)
    listed = (
        ("Device", plain(study.device_title, _TEXT)),
        ("Runtime", _runtime(records)),
        ("Batch", str(spec.latency.batch)),
        ("Trials", str(len(records.trials)) + _running(records) + (f" ({', '.join(odd)})" if odd else "")),
        ("Hypervolume", number(volume) if volume is not None and records.trials else ""),
        ("Search", f"{seconds(spent)} of trials" if spent else ""),
        ("Sampler", f"{plain(spec.search.sampler, _TEXT)}, seed {spec.search.seed}"),
    )
    return tuple((title, text) for title, text in listed if text)


def _running(records: RunRecords) -> str:
    wanted, done = records.study.spec.search.trials, len(records.trials)
    return f" of {wanted} wanted" if done < wanted else ""


def _runtime(records: RunRecords) -> str:
    measured = [t.latency for t in records.trials if t.latency is not None]
    conditions = next((latency.conditions for latency in measured if latency.conditions), None)
    spec = records.study.spec.latency
    if not measured:
        return plain(spec.runtime, _TEXT)
    if not any(latency.pairs for latency in measured):
        return "modelled, not measured"
    threads = conditions.threads if conditions else spec.threads
    dtype = f", {conditions.dtype}" if conditions else ""
    half = [(m.ratio_high - m.ratio_low) / 2 for m in measured if m.pairs]
    return (
        f"{plain(spec.runtime, _TEXT)}, {threads} thread{'s' * (threads != 1)}{dtype}, ratios ±{percent(median(half))}"
    )


def _score(trial: TrialRecord, dense: TrialRecord | None, scores: ScoreFormat) -> Figures:
    drop = trial.values.get("accuracy_drop")
    if trial is dense or drop is None:
        return Figures(scores.score(trial.score))
    return Figures(
        scores.score(trial.score), "as dense" if drop == 0 else f"{'' if drop > 0 else '+'}{scores.drop(-drop)}"
    )


def _metric(name: str, trial: TrialRecord, dense: TrialRecord | None, scores: ScoreFormat) -> Figures:
    value = trial.values.get(name)
    base = dense.values.get(name) if dense else None
    share = value / base if value is not None and base else None
    text = scores.metric(name, value)
    if name == "latency_ms" and trial.latency is not None:
        if trial is dense:
            return Figures(text, "" if trial.latency.pairs else "modelled", share)
        told = speed(trial.latency)
        told = told if trial.latency.ratio_high < 1 else told.split(" (")[0]
        doubt = "" if trial.latency.converged else " ?"
        how = f"{trial.latency.ratio:.2f}× ({interval(trial.latency)}){doubt}"
        if not trial.latency.pairs:
            exact = trial.latency.ratio_low == trial.latency.ratio_high  # an older run gave no range
            how = "modelled" if exact else f"modelled {how}"
        return Figures(text, f"{told}; {how}", share)
    if name == "energy_mj" and trial.energy is not None:
        spread = f"{number(trial.energy.low_mj)}–{number(trial.energy.high_mj)}"
        return Figures(text, spread if trial is dense else f"{percent(share)}; {spread}", share)
    return Figures(text, percent(share) if share is not None and trial is not dense else "", share)
