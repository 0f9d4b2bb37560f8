"""What reports say about reasons, trust and other devices, against the same computed otherwise."""

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from synthetic_run import run_records, with_findings

from autoprune.ranks import spearman
from autoprune.results.markdown import render_markdown
from autoprune.results.other_devices import device_fronts, device_table, ranking_table
from autoprune.results.page.trust import trust_parts
from autoprune.results.trust import (
    course,
    predictions,
    repeatability,
    rung_table,
    trust,
    validation_against_test,
    worker_table,
)
from autoprune.results.why import why
from autoprune.spec.front import candidates, dense_trial, front, hypervolume_history


@pytest.fixture(scope="module")
def found():
    return with_findings(run_records(41))


def test_ranks_agree_with_scipy():
    rng = np.random.default_rng(0)
    for _ in range(20):
        a, b = rng.integers(0, 6, (2, 12))
        assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))
    assert math.isnan(spearman([1], [1]))


def test_the_most_sensitive_group_stands_first_with_its_best_criterion(found):
    table = why(found).damage
    assert table.rows[0].cells[0].text == list(found.study.groups)[-1]
    assert [column.title for column in table.columns[2:]] == ["10 %", "20 %", "40 %", "50 %", "70 %", "80 %"]
    assert all(cell.detail == "taylor" for row in table.rows for cell in row.cells[2:])
    worst = max(d.drop for d in found.study.damage if d.criterion == "taylor")
    assert table.rows[0].cells[-1].text == f"{worst * 100:.2f} pp"


def test_what_does_not_pay_is_refused_with_its_ratio(found):
    text = render_markdown(found)
    assert "2:4 does not pay here: 1.00x the time" in text
    assert "no gain: not exploited by this runtime" in text
    (row,) = why(found).dropped.rows
    assert row.cells[0].text.endswith("and 6 more")


def test_predictions_are_compared_with_measurements(found):
    said = predictions(found)
    assert "misses the measurement by 10 % on average and by 10 % at most" in said
    measured = sum(t.prediction is not None for t in found.trials)
    assert f"{measured} of {measured} measurements lie in the 95 % interval" in said
    assert "rank correlation 1.0." in said
    assert "mean error is 6 %, 85 % lie within 10 %" in said


def test_two_measurements_of_one_network_are_compared(found):
    assert repeatability(found) == "No trial's latency was measured a second time."
    trials = [t for t in found.trials if t.latency is not None and t.latency.pairs and t.origin != "dense"][:3]

    def measured(*shifts):
        again = {
            t.number: t.latency.model_copy(
                update={name: getattr(t.latency, name) * shift for name in ("ratio", "ratio_low", "ratio_high")}
            )
            for t, shift in zip(trials, shifts, strict=True)
        }
        return found.model_copy(
            update={"trials": tuple(t.model_copy(update={"again": again.get(t.number)}) for t in found.trials)}
        )

    same = repeatability(measured(1.0, 1.004, 0.999))
    assert "the ratio of 3 trials of the front differs by 0.10 % in the median and by 0.40 % at most" in same
    assert same.endswith("the two 95 % intervals of each overlap.")
    far = repeatability(measured(1.0, 1.5, 0.5))
    assert "by 50 % in the median and by 50 % at most; in 2 of 3 the two 95 % intervals lie apart" in far
    assert ("Latency measured twice", far) in trust(measured(1.0, 1.5, 0.5)).sentences
    (part,) = (part for part in trust_parts(measured(1.0, 1.5, 0.5)) if part.title == "Latency: measured twice")
    assert part.note == far
    points = part.figures[0].series[0].points
    assert [point.y / point.x for point in points] == pytest.approx([1.0, 1.5, 0.5])
    assert "measured twice" not in " ".join(part.title for part in trust_parts(found))


def test_test_drops_are_compared_with_validation_drops(found):
    dense = dense_trial(found)
    trials = [t for t in found.trials if t.test_score is not None and t.origin != "dense"]
    excess = np.mean([(dense.test_score - t.test_score) - t.values["accuracy_drop"] for t in trials])
    said = validation_against_test(found)
    assert f"Over {len(trials)} trials the drop on test data is {abs(excess) * 100:.2f} pp" in said
    assert ("larger" if excess > 0 else "smaller") in said


def test_the_course_of_the_search_is_told(found):
    history = hypervolume_history(found)
    reached = next(i for i, value in enumerate(history) if value >= 0.95 * history[-1])
    assert f"95 % of it was reached at trial {reached}" in course(found)
    assert "may go on" not in course(found)
    part = found.model_copy(update={"trials": found.trials[:20]})
    assert "19 of the 40 trials asked for are recorded" in course(part)


def test_each_rung_is_compared_with_the_last(found):
    first, last = rung_table(found).rows
    both = [t for t in found.trials if t.rungs and len(t.rungs) == 2 and t.origin != "dense"]
    wanted = spearmanr([t.rungs[0].drop for t in both], [t.rungs[1].drop for t in both]).statistic
    assert float(first.cells[3].text) == pytest.approx(wanted, abs=0.006)
    assert first.cells[3].detail == f"{len(both)} trials"
    assert (last.cells[0].text, last.cells[3].text) == ("all", "–")


def test_workers_and_second_starts_are_told(found):
    (row,) = worker_table(found).rows
    assert [cell.text for cell in row.cells] == ["node-1", str(row.cells[1].text), "2", "1", "none"]


def test_a_device_that_turns_the_order_round_has_another_front(found):
    same, turned = device_fronts(found)
    assert (same.agreement, turned.agreement) == (pytest.approx(1), pytest.approx(-1))
    assert {t.number for t in same.front} == {t.number for t in front(found)}
    trials = candidates(found)
    points = {
        t.number: (
            t.values["accuracy_drop"],
            t.values["macs"],
            *[getattr(t.devices["nvidia-h200"], n) for n in ("latency_ms", "energy_mj")],
        )
        for t in trials
    }
    brute = {
        n
        for n, p in points.items()
        if not any(all(x <= y for x, y in zip(q, p, strict=True)) and q != p for q in points.values())
    }
    assert {t.number for t in turned.front} == brute
    assert set(turned.only_here) == brute - {t.number for t in front(found)}
    assert len(device_table(found).rows) == len(ranking_table(found).rows) == 2


def test_what_is_absent_is_one_sentence():
    bare = run_records(12)
    assert why(bare).absent == (
        "This search did not measure what single choices cost in score, which patterns pay on the device or which "
        "widths are worth taking."
    )
    assert trust(bare).tables == ()
    assert device_table(bare) is None
    text = render_markdown(bare)
    assert "The study names no further device." in text
    assert "No trial's latency was both predicted and measured." in text
    empty = render_markdown(run_records(0))
    assert "No trial was run." in empty
