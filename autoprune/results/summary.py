"""The headline: what is gained at no loss and at small loss, in one plain sentence each, or that nothing is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from autoprune.results.formats import ScoreFormat, percent, speed
from autoprune.results.picks import picks
from autoprune.spec.front import DENSE, dense_trial
from autoprune.spec.record import RunRecords, TrialRecord

# In the order in which a reader asks; the first three that are objectives stand in the headline.
_COSTS = {
    "macs": ("fewer", "MACs"),
    "latency_ms": ("less", "latency"),
    "energy_mj": ("less", "modelled energy"),
    "params": ("fewer", "parameters"),
    "size_bytes": ("less", "file size"),
    "dram_bytes": ("less", "modelled DRAM traffic"),
}


@dataclass(frozen=True)
class Headline:
    """What a reader who reads one line must know.

    Attributes:
        main: The most important sentence.
        more: Sentences that follow it.
    """

    main: str
    more: tuple[str, ...] = ()


def headline(records: RunRecords) -> Headline:
    """Return the outcome of a run in words; a run without a gain says so."""
    dense, chosen = dense_trial(records), picks(records)
    if not records.trials:
        return Headline("No trial has finished yet.")
    if dense is None:
        return Headline(
            "The dense model has not been scored and measured yet, so nothing can be compared with it.",
            _counts(records),
        )
    if not chosen.named():
        return Headline(_nothing(records), _counts(records))
    take = recommended(records)
    assert take is not None
    said = [_sentence(f"Take config {take.number}: ", take, dense, records)]
    seen = {take.number}
    leads = (
        ("At no measured loss: ", chosen.no_loss),
        ("Best compromise: ", chosen.knee),
        ("Fastest: ", chosen.fastest),
    )
    for lead, trial in leads:
        if trial is not None and trial.number not in seen:
            seen.add(trial.number)
            said.append(_sentence(lead, trial, dense, records))
    if chosen.no_loss is None:
        said.insert(1, "Nothing is gained at no loss: no pruned model of the front keeps the dense score.")
    return Headline(said[0], tuple(said[1:]))


def recommended(records: RunRecords) -> TrialRecord | None:
    """Return the pick to take unless there is a reason for another; None where there is none.

    It is the one at no measured loss if it is measurably faster than dense (where latency is no objective: if it saves
    2 % of a cost), the knee otherwise.
    """
    chosen, dense = picks(records), dense_trial(records)
    if chosen.no_loss is not None and dense is not None and _pays(chosen.no_loss, dense, records):
        return chosen.no_loss
    return chosen.knee or chosen.no_loss or chosen.fastest


def _pays(trial: TrialRecord, dense: TrialRecord, records: RunRecords) -> bool:
    objectives = records.study.spec.objectives
    if "latency_ms" in objectives and trial.latency is not None:
        return trial.latency.ratio_high < 1
    shares = [
        trial.values[name] / dense.values[name] for name in _COSTS if name in objectives and dense.values.get(name)
    ]
    return min(shares, default=1.0) < 0.98


def gains(trial: TrialRecord, dense: TrialRecord, records: RunRecords) -> tuple[str, ...]:
    """Return what ``trial`` saves in each cost objective, in words, MACs and latency first.

    A latency whose interval holds the dense one is "not measurably faster"; a modelled number is called so.
    """
    out = []
    for name, (fewer, word) in _COSTS.items():
        value, base = trial.values.get(name), dense.values.get(name)
        if name not in records.study.spec.objectives:
            continue
        if name == "latency_ms" and trial.latency is not None:
            modelled = "" if trial.latency.meter.startswith("measured") else " (modelled)"
            out.append(speed(trial.latency) + modelled)
        elif value is not None and base:
            change = value / base - 1
            change_word = fewer if change < 0 else "more"
            out.append(f"{percent(abs(change))} {change_word} {word}" if abs(change) >= 0.0005 else f"the same {word}")
    return tuple(out)


def _sentence(lead: str, trial: TrialRecord, dense: TrialRecord, records: RunRecords) -> str:
    scores = ScoreFormat.of(records.study)
    what = _listed(gains(trial, dense, records)[:3]) or "a pruned model"
    test = ""
    if trial.test_score is not None:
        against = f" against {scores.score(dense.test_score)}" if dense.test_score is not None else ""
        test = f"test {scores.score(trial.test_score)}{against}"
    number = "" if lead.startswith("Take") else f"config {trial.number}"
    aside = "; ".join(filter(None, (test, number)))
    return f"{lead}{what} {_loss(trial, records)}{f' ({aside})' if aside else ''}."


def _loss(trial: TrialRecord, records: RunRecords) -> str:
    drop = trial.values.get("accuracy_drop")
    if drop is None:
        return "(accuracy drop not recorded)"
    if drop <= 0:
        return "at no measured loss on validation data"
    return f"at a validation loss of {ScoreFormat.of(records.study).drop(drop)}"


def _nothing(records: RunRecords) -> str:
    complete = [t for t in records.trials if t.state == "complete" and t.origin != DENSE]
    broken = Counter(name for trial in complete for name in trial.violations)
    if not complete:
        return "Nothing is gained yet: no pruned model has been scored."
    if any(trial.feasible for trial in complete):
        return "Nothing is gained: the dense model is at least as good as every pruned one in every objective."
    by = _listed([f"{name} in {count}" for name, count in sorted(broken.items())])
    return (
        f"Nothing is gained: all {len(complete)} pruned models break a constraint"
        + (f" ({by})" if by else "")
        + ". Loosen the constraints or search longer."
    )


def _counts(records: RunRecords) -> tuple[str, ...]:
    states = Counter(trial.state for trial in records.trials)
    return (f"Trials so far: {_listed([f'{count} {state}' for state, count in sorted(states.items())])}.",)


def _listed(parts: tuple[str, ...] | list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}" if parts else ""
