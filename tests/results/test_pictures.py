"""Static plots: valid SVG, the right points at the right places, nothing of users left as markup."""

import re
from xml.dom import minidom

import pytest
from synthetic_run import HOSTILE, run_records, with_findings

from autoprune.results.pictures import front_picture, pictures
from autoprune.results.stairs import stairs
from autoprune.results.svg import Bars, Chart, Label, Line, Points, draw, draw_bars
from autoprune.spec.front import front


def elements(svg, tag, kind=None):
    found = minidom.parseString(svg).getElementsByTagName(tag)
    return [e for e in found if kind is None or kind in e.getAttribute("class").split()]


def test_points_stand_where_their_values_are():
    chart = Chart("t", "x", "y", [Points("p", [0.0, 5.0, 10.0], [0.0, 1.0, 2.0], "blue", "circle")])
    places = [(float(c.getAttribute("cx")), float(c.getAttribute("cy"))) for c in elements(draw(chart), "circle")][1:]
    assert len(places) == 3, "the legend's and three"
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02)
    assert y0 - y1 == pytest.approx(y1 - y2, abs=0.02)
    assert x2 > x0
    assert y2 < y0
    labels = [t.firstChild.data for t in elements(draw(chart), "text")]
    assert {"0", "2", "10", "0.0", "2.0", "x", "y"} <= set(labels)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([1.0, 1.0], ["0.90", "1.10"]),
        ([-1.0, 1.0], ["−1.0", "0.0", "1.0"]),
        ([0.0], ["−1.0", "1.0"]),
        ([1e9, 2e9], ["1.00e+09", "2.00e+09"]),
        ([float("nan"), 3.0, float("inf")], ["2.7", "3.3"]),
        ([], ["0.0", "1.0"]),
    ],
)
def test_axes_end_at_round_numbers_that_hold_the_values(values, wanted):
    svg = draw(Chart("t", "x", "y", [Points("", values, [1.0] * len(values), "blue", "cross")]))
    assert set(wanted) <= {t.firstChild.data for t in elements(svg, "text")}


def test_a_staircase_goes_across_and_then_down():
    svg = draw(Chart("t", "x", "y", lines=[Line([0, 1, 2], [2, 1, 0], "blue", step=True)]))
    (path,) = elements(svg, "path", "line")
    assert re.fullmatch(r"M[\d.]+ [\d.]+(H[\d.]+V[\d.]+){2}", path.getAttribute("d"))


def test_hostile_text_stays_text():
    for name in HOSTILE:
        points = Points(name, [1.0], [1.0], "blue", "diamond", [name])
        for svg in (
            draw(Chart(name, name, name, [points], labels=[Label(1, 1, name)])),
            draw_bars(Bars(name, [name], [(name, "sky", [0.5])])),
        ):
            document = minidom.parseString(svg)
            assert not document.getElementsByTagName("script")
            assert not document.getElementsByTagName("img")
            assert len(document.getElementsByTagName("svg")) == 1
            assert "\u202e" not in svg


def test_the_front_picture_shows_every_trial_once(records):
    svg = front_picture(records, "latency_ms")
    complete = [t for t in records.trials if t.state == "complete"]
    titles = [t.firstChild.data for t in elements(svg, "title") if t.firstChild.data.startswith("trial ")]
    assert sorted(int(re.match(r"trial (\d+)", t).group(1)) for t in titles) == [t.number for t in complete]
    legend = " ".join(t.firstChild.data for t in elements(svg, "text"))
    pruned = [t for t in front(records) if t.origin != "dense"]
    assert f"front ({len(pruned)})" in legend
    assert "knee" in legend


def test_stairs_are_the_front_in_two_numbers(records):
    trials = [t for t in records.trials if t.feasible]
    best = stairs(trials, lambda t: t.values["macs"])
    for trial in trials:
        beaten = any(
            o.values["macs"] <= trial.values["macs"]
            and o.values["accuracy_drop"] <= trial.values["accuracy_drop"]
            and o is not trial
            for o in trials
        )
        assert (trial in best) or beaten


def test_every_finding_has_its_plot_and_2000_trials_stay_small():
    names = {p.path for p in pictures(with_findings(run_records(30)))}
    assert names == {
        f"plots/{n}.svg"
        for n in ("front-macs", "front-latency_ms", "front-energy_mj", "layers", "hypervolume", "predicted", "devices")
    }
    records = run_records(2000)
    many = front_picture(records, "macs")
    assert len(many) < 250_000
    drawn = sum(t.feasible and t.origin == "greybox" for t in records.trials)
    assert len(elements(many, "circle")) == pytest.approx(drawn + 2, abs=6), "two in the legend, some uniform trials"
    assert pictures(run_records(0)) == ()
