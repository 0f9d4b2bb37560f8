"""The report of a profile: what its sentences and tables say of known numbers, on a machine without torch."""

import json
import re

import pytest
from rich.console import Console

from autoprune.errors import RunDirectoryError, SpecError
from autoprune.results.profile_report import render_profile_html, render_profile_markdown, write_profile
from autoprune.results.profile_tables import (
    bottlenecks,
    device_table,
    headline,
    layer_table,
    next_step,
    out_of_reach,
    payoff_table,
    staircase_table,
    verdict,
)
from autoprune.results.table import to_rich
from autoprune.spec.profile import (
    DeviceSummary,
    LayerCosts,
    LayerShare,
    Payoff,
    ProfileRecord,
    Ratio,
    Staircase,
    StairPoint,
    read_profile,
)


def ratio(value, width=0.0):
    return Ratio(value=value, low=value - width, high=value + width)


def layer(name, ms, share=None, like=None, **changes):
    measured = None if share is None else LayerShare(share=ratio(share, 0.01), ms=share * 10, like=like)
    base = {"type_name": "Conv2d", "prunable": True, "calls": 1, "macs": 1e6, "params": 100, "weight_bytes": 400}
    rest = {"activation_bytes": 600, "dram_bytes": 1000, "launch_ms": 0.1, "compute_ms": ms, "memory_ms": 0.2}
    return LayerCosts(
        **{"name": name, "modelled_ms": ms, "measured": measured, "bound": "compute", "energy_mj": 1.0}
        | base
        | rest
        | changes
    )


def device(layers, *, measured=True, **changes):
    base = {"device": "board", "title": "A board", "meter": "measured: x", "energy_basis": "uncalibrated: ranking only"}
    costs = {"energy_mj": 5.0, "energy_low_mj": 1.0, "energy_high_mj": 9.0, "dram_bytes": 3e3, "rest_ms": 2.5}
    return DeviceSummary(
        **{"measured": measured, "latency_ms": 10.0, "modelled_ms": 3.0, "peak_macs_per_s": 1e9, "bandwidth": 1e9}
        | base
        | costs
        | {"layers": tuple(layers)}
        | changes
    )


@pytest.fixture
def profile():
    here = device(
        [layer("a", 1.0, 0.2), layer("b", 1.0, 0.2, like="a"), layer("<c>", 1.0, 0.35), layer("", 0.5)],
        channel_step=8,
    )
    payoffs = (
        Payoff(granularity="channel", sparsity=0.5, ratio=ratio(0.6, 0.01), measured=True),
        Payoff(granularity="2:4", sparsity=0.5, ratio=ratio(1.0, 0.01), measured=True, listed=False),
        Payoff(layer="a", granularity="channel", sparsity=0.5, channels=9, of=16, ratio=ratio(1.2, 0.1), measured=True),
    )
    points = (
        StairPoint(channels=16, ratio=ratio(1.0), on_step=True),
        StairPoint(channels=9, ratio=ratio(1.2, 0.1), on_step=False),
        StairPoint(channels=8, ratio=ratio(0.5, 0.01), on_step=True),
    )
    return ProfileRecord(
        task="m:task",
        study="my study.yaml",
        space="channels",
        batch=1,
        macs=3e6,
        params=300,
        size_bytes=1200,
        uncounted_ops={"aten::gelu": 2},
        device=here,
        others=(device([layer("a", 2.0)], measured=False, device="other"),),
        payoffs=payoffs,
        staircases=(Staircase(layer="a", measured=True, points=points),),
    )


def test_layers_of_one_shape_are_one_bottleneck_in_the_headline(profile):
    assert headline(profile) == (
        "The dense network takes 10.0 ms on A board; most in: a and 1 of the same shape (40 %), <c> (35 %)."
    )


def test_what_was_not_measured_alone_is_rest_and_shares_add_up(profile):
    names = [found.name for found in bottlenecks(profile.device)]
    assert names == ["<c>", "a", "b"]
    shares = [float(row.cells[2].text.removesuffix(" %")) for row in layer_table(profile.device).rows]
    assert shares[-1] == 100
    assert sum(shares[:-1]) == 100
    assert [row.cells[0].text for row in layer_table(profile.device, most=1).rows][1] == "2 other modules"


def test_the_next_step_names_what_pays_and_what_does_not(profile):
    told = next_step(profile)
    assert "autoprune search 'my study.yaml'" in told
    assert "channel pays (half of it: 0.60× the time)" in told
    assert "round_to: 8" in told
    assert "leave 2:4 out" in told


def test_the_next_step_where_nothing_pays(profile):
    idle = profile.model_copy(update={"payoffs": profile.payoffs[1:]})
    assert "nothing in the space 'channels' makes this network faster here (2:4)" in next_step(idle)
    assert "nothing" not in next_step(profile)


def test_time_that_the_space_does_not_reach_is_told(profile):
    assert out_of_reach(profile.device) == ""
    known = [
        layer("gru", 6.0, share=0.6, type_name="GRU", prunable=False),
        layer("lstm", 1.0, share=0.1, type_name="LSTM", prunable=False),
        layer("norm", 2.0, share=0.2, macs=0.0, prunable=False),  # smaller where channels before it go
        layer("fc", 1.0, share=0.1),
    ]
    speech = profile.model_copy(update={"device": device(known, rest_ms=0.0)})
    assert next_step(speech).endswith(
        ". 70 % of the time is in gru and 1 more, which this space does not prune; cuts elsewhere shorten that at most "
        "by narrower inputs."
    )


def test_a_narrow_terminal_loses_columns_and_no_digits(profile):
    console = Console(width=80, record=True)
    others = (device(profile.device.layers, device="jetson-agx-orin", latency_ms=1234.5),)
    console.print(to_rich(device_table(profile.model_copy(update={"others": others})), 80))
    line = next(line for line in console.export_text().splitlines() if "jetson" in line)
    assert re.match(r"\s*jetson-agx-orin +1[,.]?23\d*[^ ]* m?s +measured +5\.00 mJ ", line)


def test_a_ratio_too_wide_to_tell_is_not_said_to_gain_nothing(profile):
    wide = Payoff(granularity="channel", sparsity=0.5, ratio=ratio(0.9, 0.2), measured=True, converged=False)
    assert "profile again on a quiet machine" in next_step(profile.model_copy(update={"payoffs": (wide,)}))


@pytest.mark.parametrize(
    ("place", "words"),
    [(0, "1.67× faster"), (1, "no gain: not exploited by this runtime"), (2, "slower; 9 is no multiple of 8")],
)
def test_verdicts(profile, place, words):
    assert verdict(profile.payoffs[place], profile.device.channel_step) == words


def test_an_interval_that_holds_one_does_not_pay():
    tried = Payoff(granularity="channel", sparsity=0.5, ratio=Ratio(value=0.9, low=0.7, high=1.01), measured=True)
    assert not tried.pays
    assert tried.model_copy(update={"ratio": ratio(0.9, 0.05)}).pays


def test_steps_and_slow_widths_stand_in_the_staircase_table(profile):
    (row,) = staircase_table(profile.staircases).rows
    assert [str(cell) for cell in row.cells] == ["a", "16", "8 (0.50×)", "9"]


def test_other_devices_are_said_to_be_modelled(profile):
    here, other = device_table(profile).rows
    assert here.cells[2].text == "measured"
    assert other.cells[2].text == "modelled"


def test_the_document_round_trips_and_refuses_another_schema(profile, tmp_path):
    paths = write_profile(profile, tmp_path / "new")
    assert read_profile(paths.json) == profile
    data = json.loads(paths.json.read_text()) | {"schema": "autoprune/profile/2"}
    paths.json.write_text(json.dumps(data))
    with pytest.raises(SpecError, match="autoprune/profile/1"):
        read_profile(paths.json)
    with pytest.raises(RunDirectoryError, match="autoprune profile"):
        read_profile(tmp_path / "none.json")


def test_the_page_loads_nothing_and_escapes_names(profile):
    page = render_profile_html(profile)
    visible = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "&lt;c&gt;" in visible
    assert "<c>" not in visible
    assert not re.search(r"(?:src|href)=[\"']?https?:", visible)
    assert all(f'id="{key}"' in visible for key in ("plot-roofline", "plot-stairs", "plot-layers"))


def test_markdown_and_page_hold_the_same_tables(profile):
    text, page = render_profile_markdown(profile), render_profile_html(profile)
    for row in payoff_table(profile.payoffs).rows:
        assert row.cells[-1].text in page
        assert row.cells[-1].text in text
    assert "aten::gelu (2)" in page


def test_modelled_times_stand_with_their_interval(profile: ProfileRecord) -> None:
    ends = {"modelled_low_ms": 1.5, "modelled_high_ms": 6.25}
    here, there = device([layer("a", 2.0, 0.2)], **ends), device([layer("a", 2.0)], measured=False, **ends)
    assert layer_table(here).rows[-1].cells[3].detail == "1.50–6.25"
    assert layer_table(there).rows[-1].cells[1].detail == "1.50–6.25"
    table = device_table(profile.model_copy(update={"device": here, "others": (there,)}))
    assert [row.cells[1].detail for row in table.rows] == ["", "1.50–6.25"]
    assert layer_table(device([layer("a", 2.0)], measured=False)).rows[-1].cells[1].detail == ""  # an old profile


def test_the_headline_says_when_most_time_is_in_no_module() -> None:
    small = [layer("a", 2.0, 0.2), layer("b", 1.0, 0.1)]
    base = ProfileRecord.model_construct(device=device(small, rest_ms=7.0))
    assert headline(base).endswith("most in: what runs between modules (70 %), a (20 %), b (10 %).")
    assert "between modules" not in headline(ProfileRecord.model_construct(device=device(small, rest_ms=1.0)))
