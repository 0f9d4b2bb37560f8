"""Figures of a profile: the roofline with every module, time by module, and the staircases."""

from __future__ import annotations

import math

from autoprune.results.formats import number
from autoprune.results.plots import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    SKY,
    VERMILION,
    Plot,
    empty_figure,
    figure_json,
    shown_text,
)
from autoprune.results.profile_tables import bottlenecks
from autoprune.spec.profile import DeviceSummary, ProfileRecord, Staircase

_BOUNDS = {"compute": (BLUE, "circle"), "memory": (ORANGE, "diamond"), "launch": (VERMILION, "x-thin")}
_BARS = 25
_TWO_LINES = 84  # pixels over a figure whose legend takes two lines


def profile_plots(profile: ProfileRecord) -> tuple[Plot, ...]:
    """Return the figures that the profile can fill."""
    drawn = (roofline_plot(profile.device), staircase_plot(profile.staircases), time_plot(profile.device))
    return tuple(plot for plot in drawn if plot is not None)


def roofline_plot(device: DeviceSummary) -> Plot | None:
    """Return MAC rate over MACs per byte of every module that multiplies, under the device's two roofs.

    Bytes are weights and activations, each once per operator (the module's own traffic); the roofs are the profile's.
    """
    layers = [layer for layer in bottlenecks(device) if layer.macs]
    if not layers:
        return None
    figure = empty_figure("MACs per byte read or written", "MACs per second")
    places = [layer.macs / max(layer.weight_bytes + layer.activation_bytes, 1.0) for layer in layers]
    low, high = min(places) / 4, max(*places, device.peak_macs_per_s / device.bandwidth) * 4
    ridge = device.peak_macs_per_s / device.bandwidth
    xs = [low, ridge, high] if low < ridge else [low, high]
    figure.add_scatter(
        x=xs,
        y=[min(device.peak_macs_per_s, x * device.bandwidth) for x in xs],
        mode="lines",
        name="roof (device profile)",
        line={"color": GREY, "width": 2},
        hoverinfo="skip",
    )
    for bound, (color, symbol) in _BOUNDS.items():
        chosen = [(x, layer) for x, layer in zip(places, layers, strict=True) if layer.bound == bound]
        if chosen:
            figure.add_scatter(
                x=[x for x, _ in chosen],
                y=[layer.macs / (layer.ms * 1e-3) for _, layer in chosen],
                mode="markers",
                name=f"waits for {bound} ({len(chosen)})",
                marker={"color": color, "symbol": symbol, "size": 9, "line": {"color": color, "width": 2}},
                hovertext=[f"<b>{shown_text(layer.name)}</b><br>{number(layer.ms)} ms" for _, layer in chosen],
                hoverinfo="text",
            )
    figure.update_layout(margin={"t": _TWO_LINES})
    for axis in (figure.update_xaxes, figure.update_yaxes):
        axis(type="log", exponentformat="power", dtick=1)
    figure.update_xaxes(range=[math.log10(low), math.log10(high)])
    how = "measured" if device.measured else "modelled"
    title = f"Roofline ({how} times)"
    text = f"{title}: {len(layers)} modules. A point far below the roof wastes the device; the table has the numbers."
    return Plot("plot-roofline", title, text, figure_json(figure), 420)


def time_plot(device: DeviceSummary) -> Plot | None:
    """Return bars of the slowest modules: measured, and modelled beside it."""
    ranked = bottlenecks(device)
    shown = ranked[:_BARS]
    if not shown:
        return None
    figure = empty_figure("ms", "")
    bars: list[tuple[str, str, list[float | None]]] = [("modelled", SKY, [layer.modelled_ms for layer in shown])]
    if device.measured:
        measured = [layer.measured.ms if layer.measured is not None else None for layer in shown]
        bars.insert(0, ("measured", BLUE, measured))
    for name, color, values in bars:
        figure.add_bar(
            y=list(range(len(shown))),
            x=values,
            orientation="h",
            name=name,
            marker={"color": color},
            hovertext=[
                f"{shown_text(layer.name or 'between modules')}: {number(value)} ms"
                for layer, value in zip(shown, values, strict=True)
            ],
            hoverinfo="text",
        )
    figure.update_layout(barmode="group", bargap=0.25)
    names = [shown_text(layer.name or "between modules", 28) for layer in shown]
    figure.update_yaxes(autorange="reversed", tickmode="array", tickvals=list(range(len(shown))), ticktext=names)
    more = f", the slowest {len(shown)} of {len(ranked)}" if len(ranked) > len(shown) else ""
    title = f"Time by module{more}"
    return Plot("plot-layers", title, f"{title}.", figure_json(figure), 110 + 26 * len(shown))


def staircase_plot(staircases: tuple[Staircase, ...]) -> Plot | None:
    """Return time relative to dense over the share of channels kept, one line a layer, with intervals."""
    if not staircases:
        return None
    figure = empty_figure("output channels kept", "time of the layer alone / dense")
    for stairs, color in zip(staircases, (BLUE, ORANGE, GREEN), strict=False):
        dense = stairs.points[0].channels
        values = [point.ratio.value for point in stairs.points]
        figure.add_scatter(
            x=[point.channels / dense for point in stairs.points],
            y=values,
            mode="lines+markers",
            name=f"{shown_text(stairs.layer, 28)} ({dense})",
            line={"color": color, "width": 1.5},
            marker={"size": [9 if point.on_step else 5 for point in stairs.points]},
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [point.ratio.high - point.ratio.value for point in stairs.points],
                "arrayminus": [point.ratio.value - point.ratio.low for point in stairs.points],
                "thickness": 1,
                "width": 2,
            },
            hovertext=[f"{point.channels} channels: {point.ratio.value:.2f}×" for point in stairs.points],
            hoverinfo="text",
        )
    top = max(point.ratio.value for stairs in staircases for point in stairs.points)
    figure.update_layout(margin={"t": _TWO_LINES})
    figure.update_xaxes(tickformat=".0%", range=[0, 1.03])
    figure.update_yaxes(range=[0, 1.15 * top])
    title = "Staircase: time over width"
    return Plot("plot-stairs", title, f"{title}. Large points are widths worth taking.", figure_json(figure), 420)
