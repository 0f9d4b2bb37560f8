"""Plotly figures as JSON: the front in every cost, the hypervolume over trials, what the picks keep of each layer.

Colours are those of Okabe and Ito 2008 ("Color Universal Design"), told apart by colour-blind eyes, and each kind of
point has a shape of its own. Backgrounds are transparent and axes carry no colour: the page sets both, for light and
dark. Plotly draws a subset of HTML in every text, so text of users is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from autoprune.results.details import is_changed
from autoprune.results.formats import ScoreFormat, plain
from autoprune.results.picks import picks
from autoprune.results.stairs import stairs
from autoprune.spec.front import DENSE, DROP, candidates, dense_trial, front, hypervolume_history
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import RunRecords, TrialRecord

BLUE, ORANGE, GREEN, VERMILION, SKY, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#8C8C8C"
MOST_LAYERS = 60
_NAME = 44
_SCALES = {"macs": (1e6, "M"), "params": (1e3, "k"), "size_bytes": (1e3, "kB"), "dram_bytes": (1e3, "kB")}


@dataclass(frozen=True)
class Plot:
    """One figure.

    Attributes:
        key: Stable id in the page.
        title: Its caption.
        description: What it shows, for those who do not see it.
        figure: JSON object with ``data`` and ``layout``.
        height: Pixels.
    """

    key: str
    title: str
    description: str
    figure: str
    height: int


def plots(records: RunRecords) -> tuple[Plot, ...]:
    """Return the figures that the records can fill: one scatter for each cost, the hypervolume, the layers."""
    spec = records.study.spec
    costs = [name for name in spec.objectives if name != DROP]
    listed = [scatter_plot(records, name) for name in costs]
    listed += [hypervolume_plot(records), layers_plot(records)]
    return tuple(plot for plot in listed if plot is not None)


def scatter_plot(records: RunRecords, cost: str) -> Plot | None:
    """Return accuracy drop against one cost for every trial that has both, or None if no trial has."""
    trials = [t for t in records.trials if t.state == "complete" and DROP in t.values and cost in t.values]
    if not trials:
        return None
    on_front = {trial.number for trial in front(records)} if len(candidates(records)) else set()
    infeasible = [t for t in trials if not t.feasible and t.origin != DENSE]
    dominated = [t for t in trials if t.feasible and t.number not in on_front and t.origin != DENSE]
    best = sorted((t for t in trials if t.number in on_front and t.origin != DENSE), key=lambda t: t.values[cost])
    dense = [t for t in trials if t.origin == DENSE]
    scores = ScoreFormat.of(records.study)
    figure = empty_figure(_axis_title(cost, trials), "accuracy drop (pp)" if scores.percent else "accuracy drop")
    steps = stairs([*best, *(t for t in dense if t.number in on_front)], lambda t: t.values[cost])
    if len(steps) > 1:
        xs, ys = _xs(steps, cost, trials), _ys(steps, scores)
        figure.add_scatter(
            x=xs,
            y=ys,
            mode="lines",
            line={"color": BLUE, "width": 1.5, "shape": "hv"},
            hoverinfo="skip",
            showlegend=False,
        )
    kinds = (
        (
            "infeasible",
            infeasible,
            {"color": VERMILION, "symbol": "x-thin", "size": 7, "line": {"color": VERMILION, "width": 1.5}},
        ),
        ("dominated", dominated, {"color": GREY, "symbol": "circle-open", "size": 7}),
        ("front", best, {"color": BLUE, "symbol": "circle", "size": 8}),
        ("dense", dense, {"color": ORANGE, "symbol": "diamond", "size": 12, "line": {"color": "#7A5300", "width": 1}}),
    )
    for name, group, marker in kinds:
        if group:
            figure.add_scatter(
                x=_xs(group, cost, trials),
                y=_ys(group, scores),
                mode="markers",
                name=f"{name} ({len(group)})" if name != "dense" else name,
                marker=marker,
                error_x=_error_bars(group) if cost == "latency_ms" and name in ("front", "dense") else None,
                hovertext=[_hover(trial, records) for trial in group],
                hoverinfo="text",
            )
    chosen = picks(records)
    for trial in chosen.trials():
        if cost in trial.values and DROP in trial.values:
            # Below and left of a front is empty by definition; the fastest stands at the axis, so its name goes up.
            up = trial is chosen.fastest
            figure.add_annotation(
                x=_xs([trial], cost, trials)[0],
                y=_ys([trial], scores)[0],
                text=", ".join(chosen.titles(trial)),
                ax=8 if up else -14,
                ay=-24 if up else 18,
                xanchor="left" if up else "right",
                arrowwidth=1,
                arrowhead=0,
            )
    title = f"Accuracy drop against {METRICS[cost].title}"
    counts = f"{len(best)} front, {len(dominated)} dominated and {len(infeasible)} infeasible trials"
    text = f"{title}: {counts}. Down and left is better."
    return Plot(f"plot-{cost.replace('_', '-')}", title, text, figure_json(figure), 380)


def hypervolume_plot(records: RunRecords) -> Plot | None:
    """Return the hypervolume after each trial, or None where there is no reference point or no trial."""
    history = hypervolume_history(records)
    if not history:
        return None
    numbers = sorted(trial.number for trial in records.trials)
    figure = empty_figure("trial", "hypervolume")
    figure.add_scatter(
        x=numbers,
        y=list(history),
        mode="lines+markers" if len(history) < 3 else "lines",
        line={"color": GREEN, "width": 2, "shape": "hv"},
        hovertemplate="after trial %{x}: %{y:.4f}<extra></extra>",
        showlegend=False,
    )
    figure.update_yaxes(rangemode="tozero")
    course = f"from {history[0]:.3g} to {history[-1]:.3g}"
    text = f"Hypervolume of the front over {len(history)} trials, {course}. Up is better."
    return Plot("plot-hypervolume", "Hypervolume over trials", text, figure_json(figure), 380)


def layers_plot(records: RunRecords) -> Plot | None:
    """Return bars of what each pick keeps of each changed layer, in model order; None where no pick changes a layer.

    A bar is the share of output channels kept times the share of the remaining weights that is not zero. Of more than
    60 changed layers the 60 with the most dense channels are drawn.
    """
    chosen = picks(records)
    trials = chosen.trials()
    names = [n for n in dict.fromkeys(n for t in trials for n in t.layers) if any(is_changed(t, n) for t in trials)]
    if not names:
        return None
    left_out = len(names) - MOST_LAYERS
    if left_out > 0:
        widest = sorted(names, key=lambda n: -max(t.layers[n].dense_channels for t in trials if n in t.layers))
        kept_names = set(widest[:MOST_LAYERS])
        names = [name for name in names if name in kept_names]
    figure = empty_figure("kept of dense", "")
    for trial, color in zip(trials, (GREEN, BLUE, VERMILION), strict=False):
        layers = [trial.layers.get(name) for name in names]
        figure.add_bar(
            x=[
                layer.channels / layer.dense_channels * (1 - layer.weight_sparsity) if layer else None
                for layer in layers
            ],
            y=list(range(len(names))),
            orientation="h",
            name=f"{', '.join(chosen.titles(trial))} ({trial.number})",
            marker={"color": color},
            hovertext=[
                f"{shown_text(name)}<br>{layer.channels} of {layer.dense_channels} channels"
                + (f"<br>{layer.weight_sparsity:.0%} of their weights zero" if layer.weight_sparsity else "")
                if layer
                else ""
                for name, layer in zip(names, layers, strict=True)
            ],
            hoverinfo="text",
        )
    figure.update_layout(barmode="group", bargap=0.25, bargroupgap=0.1)
    figure.update_xaxes(range=[0, 1.01], tickformat=".0%")
    figure.update_yaxes(
        autorange="reversed",
        tickmode="array",
        tickvals=list(range(len(names))),
        ticktext=[shown_text(n, 28) for n in names],
    )
    more = f" {left_out} narrower layers are left out." if left_out > 0 else ""
    text = f"Share of each layer that the picks keep; the table of layers below has the same numbers.{more}"
    height = 110 + len(names) * (8 + 11 * len(trials))
    return Plot(
        "plot-layers", f"What the picks keep of each layer.{more}".removesuffix("."), text, figure_json(figure), height
    )


def empty_figure(x_title: str, y_title: str) -> go.Figure:
    """Return a figure with the margins, legend and axes that all share."""
    figure = go.Figure(layout={"template": "none"})
    figure.update_layout(
        margin={"l": 8, "r": 16, "t": 58, "b": 8},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"},
        hovermode="closest",
        font={"size": 13},
    )
    figure.update_xaxes(title={"text": x_title, "standoff": 10}, automargin=True, zeroline=False)
    figure.update_yaxes(title={"text": y_title, "standoff": 10}, automargin=True, zeroline=False)
    return figure


def _axis_title(cost: str, trials: Sequence[TrialRecord]) -> str:
    metric = METRICS[cost]
    unit = _scale(cost, trials)[1] or metric.unit
    return f"{metric.title} ({unit})" if unit else metric.title


def _scale(cost: str, trials: Sequence[TrialRecord]) -> tuple[float, str]:
    """Divisor and unit that keep the axis short; MB and G where the largest value needs them."""
    if cost not in _SCALES:
        return 1.0, ""
    factor, prefix = _SCALES[cost]
    if max(t.values[cost] for t in trials) >= factor * 1000:
        return factor * 1e3, {"k": "M", "kB": "MB", "M": "G"}[prefix]
    return factor, prefix


def _xs(group: Sequence[TrialRecord], cost: str, trials: Sequence[TrialRecord]) -> list[float]:
    factor = _scale(cost, trials)[0]
    return [trial.values[cost] / factor for trial in group]


def _ys(group: Sequence[TrialRecord], scores: ScoreFormat) -> list[float]:
    return [trial.values[DROP] * (100 if scores.percent else 1) for trial in group]


def _error_bars(group: Sequence[TrialRecord]) -> dict[str, Any]:
    """95 % interval of the ratio to dense, in milliseconds of the study's dense latency."""
    above, below = [], []
    for trial in group:
        latency = trial.latency
        unit = latency.ms / latency.ratio if latency and latency.ratio else 0.0
        above.append((latency.ratio_high - latency.ratio) * unit if latency else 0.0)
        below.append((latency.ratio - latency.ratio_low) * unit if latency else 0.0)
    return {"type": "data", "array": above, "arrayminus": below, "symmetric": False, "thickness": 1, "width": 3}


def _hover(trial: TrialRecord, records: RunRecords) -> str:
    scores, dense = ScoreFormat.of(records.study), dense_trial(records)
    lines = [f"<b>trial {trial.number}</b> {shown_text(trial.origin)}"]
    for name, value in trial.values.items():
        base = dense.values.get(name) if dense and name != DROP else None
        share = f" ({value / base:.0%} of dense)" if base and trial.origin != DENSE else ""
        lines.append(
            f"{shown_text(METRICS[name].title if name in METRICS else name)}: {scores.metric(name, value)}{share}"
        )
    for name in sorted(trial.violations):
        lines.append(f"breaks {shown_text(name)}")
    return "<br>".join([*lines, *_config_summary(trial)])


def _config_summary(trial: TrialRecord, most: int = 5) -> list[str]:
    """The most pruned layers of a config, one line each."""
    if trial.config is None:
        return []
    pruned = [(name, choice) for name, choice in trial.config.choices() if choice.fraction > 0]
    pruned.sort(key=lambda pair: -pair[1].fraction)
    lines = [
        f"{shown_text(name, 32)}: {choice.fraction:.0%} {shown_text(choice.granularity, 16)}"
        for name, choice in pruned[:most]
    ]
    return [*lines, f"and {len(pruned) - most} more"] if len(pruned) > most else lines


def shown_text(text: str, limit: int = _NAME) -> str:
    """Return text of users as plotly may draw it: escaped, without control characters, cut."""
    return html.escape(plain(text, limit).replace("\n", " "), quote=False)


def figure_json(figure: go.Figure) -> str:
    """Return the figure as JSON with ``data`` and ``layout``."""
    return str(figure.to_json(engine="json"))
