"""Figures of the dense model on a device: the roofline with every module, time by module, and the staircases."""

from __future__ import annotations

from autoprune.results.formats import number, plain
from autoprune.results.page.figure import Axis, Figure, Point, Series
from autoprune.results.profile_tables import bottlenecks
from autoprune.spec.profile import DeviceSummary, ProfileRecord, Staircase

_NAME = 60
_BOUNDS = (("compute", 0, "circle"), ("memory", 1, "diamond"), ("launch", 3, "cross"), ("fused", 7, "square"))
_BARS = 20


def profile_figures(profile: ProfileRecord) -> tuple[Figure, ...]:
    """Return the figures that a profile can fill."""
    drawn = (roofline(profile.device), staircases(profile.staircases), time_by_module(profile.device))
    return tuple(figure for figure in drawn if figure is not None)


def roofline(device: DeviceSummary) -> Figure | None:
    """Return the MAC rate over MACs per byte of every module that multiplies, under the device's two roofs.

    Bytes are weights and activations, each once per operator (the module's own traffic); the roofs are the profile's
    (Williams, Waterman and Patterson 2009, doi:10.1145/1498765.1498785).
    """
    layers = [layer for layer in bottlenecks(device) if layer.macs]
    if not layers:
        return None
    places = [layer.macs / max(layer.weight_bytes + layer.activation_bytes, 1.0) for layer in layers]
    ridge = device.peak_macs_per_s / device.bandwidth
    low, high = min(*places, ridge) / 2, max(*places, ridge) * 2
    roof = tuple(Point(x, min(device.peak_macs_per_s, x * device.bandwidth)) for x in (low, ridge, high))
    series = [Series("roof (device profile)", "muted", "line", roof)]
    for bound, color, mark in _BOUNDS:
        points = tuple(
            Point(
                x,
                layer.macs / (layer.ms * 1e-3),
                f"{plain(layer.name, _NAME)}: {number(layer.ms)} ms",
            )
            for x, layer in zip(places, layers, strict=True)
            if layer.bound == bound
        )
        if points:
            series.append(Series(f"waits for {bound} ({len(points)})", color, "points", points, mark))
    how = "measured" if device.measured else "modelled"
    return Figure(
        "plot-roofline",
        f"Roofline, {how} times",
        f"MACs per second over MACs per byte of {len(layers)} modules; the table has the numbers.",
        Axis("MACs per byte read or written", log=True),
        Axis("MACs per second", log=True),
        tuple(series),
        note="A point far below the roof wastes the device.",
    )


def staircases(found: tuple[Staircase, ...]) -> Figure | None:
    """Return time relative to dense over the share of channels kept, one line a layer, with intervals."""
    if not found:
        return None
    series = []
    for i, stairs in enumerate(found[:6]):
        dense = stairs.points[0].channels
        series.append(
            Series(
                f"{plain(stairs.layer, 30)} ({dense})",
                i,
                "line",
                tuple(
                    Point(
                        p.channels / dense,
                        p.ratio.value,
                        f"{plain(stairs.layer, _NAME)}: {p.channels} of {dense} channels"
                        + (", a width worth taking" if p.on_step and p.channels != dense else ""),
                        p.ratio.low,
                        p.ratio.high,
                        p.on_step,
                    )
                    for p in sorted(stairs.points, key=lambda p: p.channels)
                ),
            )
        )
    return Figure(
        "plot-stairs",
        "Staircase: time over width",
        f"Time of {len(series)} layers alone over their output channels, relative to all of them.",
        Axis("output channels kept", "%"),
        Axis("time of the layer / dense", zero=True),
        tuple(series),
        note="Large points are widths worth taking: no wider layer is as quick.",
    )


def time_by_module(device: DeviceSummary) -> Figure | None:
    """Return bars of the slowest modules: measured, and modelled beside it."""
    ranked = bottlenecks(device)
    shown = ranked[:_BARS]
    if not shown:
        return None
    bars = [("modelled", 5, [layer.modelled_ms for layer in shown])]
    if device.measured:
        bars.insert(0, ("measured", 0, [layer.measured.ms if layer.measured is not None else 0.0 for layer in shown]))
    names = tuple(plain(layer.name, _NAME) or "between modules" for layer in shown)
    more = f", the slowest {len(shown)} of {len(ranked)}" if len(ranked) > len(shown) else ""
    return Figure(
        "plot-layers",
        f"Time by module{more}",
        f"Milliseconds of {len(shown)} modules; the table of modules has the same numbers.",
        Axis("ms", "ms", zero=True),
        Axis("", names=names),
        tuple(
            Series(
                name,
                color,
                "bars",
                tuple(
                    Point(value, place, f"{names[place]}: {number(value)} ms, {name}")
                    for place, value in enumerate(values)
                ),
            )
            for name, color, values in bars
        ),
    )
