"""Front, picks and hypervolume history from records."""

import numpy as np
import pytest
from synthetic_run import run_records, study_record

from autoprune.errors import UsageError
from autoprune.results.picks import picks
from autoprune.spec.front import candidates, dense_trial, front, hypervolume_history, hypervolume_of, normalised


def with_trials(records, trials):
    return records.model_copy(update={"trials": tuple(trials)})


def changed(trial, number=None, values=None, **update):
    update |= {"values": trial.values | (values or {})}
    return trial.model_copy(update=update | ({"number": number} if number is not None else {}))


def test_front_is_feasible_and_nobody_beats_it(records):
    objectives = records.study.spec.objectives
    trials = front(records)
    assert len(trials) > 5
    assert all(trial.feasible for trial in trials)
    for other in candidates(records):
        for trial in trials:
            better = [other.values[o] <= trial.values[o] for o in objectives]
            strictly = any(other.values[o] < trial.values[o] for o in objectives)
            assert not (all(better) and strictly)


def test_a_repeated_config_counts_once(records):
    best = front(records)[-1]
    lucky = changed(best, number=99, values={"latency_ms": 0.01})
    again = with_trials(records, [*records.trials, lucky])
    assert [t.number for t in front(again)] == [t.number for t in front(records)]


def test_a_front_is_computed_once_and_for_changed_records_anew(records):
    assert front(records) is front(records)
    assert hypervolume_history(records) is hypervolume_history(records)
    best = front(records)[-1]
    left = with_trials(records, [trial for trial in records.trials if trial.number != best.number])
    assert best.number not in {trial.number for trial in front(left)}
    assert len(hypervolume_history(left)) == len(hypervolume_history(records)) - 1


def test_a_trial_without_an_objective_is_no_candidate(records):
    partial = records.trials[1].model_copy(update={"values": {"macs": 1.0}})
    assert partial.number not in {t.number for t in candidates(with_trials(records, [partial]))}


def test_dense_trial_is_found_and_is_no_pick(records):
    assert dense_trial(records).number == 0
    assert 0 not in {trial.number for _, trial in picks(records).named()}


def test_picks_are_what_they_are_called(records):
    chosen, pruned = picks(records), [t for t in front(records) if t.origin != "dense"]
    assert chosen.no_loss.values["accuracy_drop"] <= 0
    assert chosen.fastest.values["latency_ms"] == min(t.values["latency_ms"] for t in pruned)
    assert chosen.knee in pruned
    assert chosen.titles(chosen.fastest)[-1] == "fastest"


def test_no_loss_is_none_where_every_trial_loses():
    assert picks(run_records(2)).no_loss is None


def test_normalised_divides_by_the_reference_and_clips_a_gain(records):
    study = records.study
    gain = changed(records.trials[1], values={"accuracy_drop": -0.3})
    expected = [0.0, *(gain.values[o] / study.reference[o] for o in study.spec.objectives[1:])]
    assert normalised(gain, study) == pytest.approx(expected)


def test_a_reference_of_zero_only_filters():
    study = study_record(reference={"accuracy_drop": 0.0, "macs": 1.0, "latency_ms": 1.0, "energy_mj": 1.0})
    trial = run_records().trials[1]
    assert normalised(changed(trial, values={"accuracy_drop": 0.0}), study)[0] == 0
    assert np.isinf(normalised(changed(trial, values={"accuracy_drop": 0.01}), study)[0])


def test_hypervolume_history_grows_to_the_hypervolume(records):
    history = hypervolume_history(records)
    assert len(history) == len(records.trials)
    assert list(history) == sorted(history)
    assert history[-1] == pytest.approx(hypervolume_of(records))
    half = with_trials(records, [t for t in records.trials if t.number < 20])
    assert history[19] == pytest.approx(hypervolume_of(half))


def test_without_a_reference_there_is_no_hypervolume(records):
    blank = records.model_copy(update={"study": records.study.model_copy(update={"reference": {}})})
    assert hypervolume_of(blank) is None
    assert hypervolume_history(blank) == ()
    assert picks(blank).knee is not None
    with pytest.raises(UsageError, match="reference point"):
        normalised(records.trials[1], blank.study)
