"""The front in characters: every mark at its place, in the width there is, with and without colour and Unicode."""

import io
import re

import pytest
from rich.console import Console
from synthetic_run import run_records

from autoprune.results.picks import picks
from autoprune.results.text_plot import front_in_text
from autoprune.spec.front import front


def shown(text, width=80, **console):
    stream = io.StringIO()
    Console(file=stream, width=width, **console).print(text, soft_wrap=True)
    return stream.getvalue()


def grid(text):
    return [line.partition("│")[2] for line in text.splitlines() if "│" in line]


@pytest.mark.parametrize("cost", ["latency_ms", "macs"])
def test_the_chosen_trial_stands_where_its_numbers_say(records, cost):
    chosen = picks(records).knee
    cells = grid(front_in_text(records, chosen, cost, 80).plain)
    trials = [t for t in records.trials if t.state == "complete"]
    drops, costs = [t.values["accuracy_drop"] for t in trials], [t.values[cost] for t in trials]
    (row,) = [i for i, line in enumerate(cells) if "★" in line]
    columns = len(cells[0])
    up = (max(drops) - chosen.values["accuracy_drop"]) / (max(drops) - min(drops))
    across = (chosen.values[cost] - min(costs)) / (max(costs) - min(costs))
    assert row == round(up * (len(cells) - 1))
    assert cells[row].index("★") == round(across * (columns - 1))
    assert sum(line.count("★") for line in cells) == sum(line.count("◆") for line in cells) == 1
    assert 5 <= sum(line.count("●") for line in cells) <= len(front(records)) - 1


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_it_fits_the_terminal(records, width):
    lines = front_in_text(records, picks(records).knee, None, width).plain.splitlines()
    assert max(len(line) for line in lines) <= max(width, 44), "the heading alone takes 44"
    assert max(len(line) for line in lines) <= 100


def test_ascii_is_ascii_and_colour_is_only_style(records):
    chosen = picks(records).knee
    text = front_in_text(records, chosen, unicode=False)
    assert text.plain.isascii()
    assert text.plain.count("@") == 2, "in the drawing and in its legend"
    assert "\x1b" in shown(text, force_terminal=True, color_system="standard")
    plain = shown(text, force_terminal=True, color_system="standard", no_color=True)
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", plain)


def test_infeasible_trials_are_marked_and_nothing_to_draw_is_none():
    records = run_records(200)
    assert "× breaks a constraint" in front_in_text(records, picks(records).knee).plain
    one = run_records(12, objectives=("accuracy_drop",))
    assert front_in_text(one, one.trials[1]) is None
    assert front_in_text(run_records(1), run_records(1).trials[0]) is None
    same = run_records(12, objectives=("macs",))
    assert "MACs (M), right" in front_in_text(same, same.trials[1], "macs").plain
