"""The comparison of recorded runs: what each sampler reached, after how many trials, in a README and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoprune.pareto import hypervolume, nondominated
from tests.benchmarks.sampling.problems import WORST_DROP
from tests.benchmarks.sampling.race import Run, read_run

AT = (20, 40, 80, 160, 320)
DROPS = (0.01, 0.03)
OPTUNA = ("tpe", "nsga2", "random", "gp")

HEAD = """# Samplers compared

    python -m tests.benchmarks.samplers run --data DIR --problem resnet20-channels --row tpe greybox [--seeds 0 1 2 3 4]
    python -m tests.benchmarks.samplers table

The second command makes this page and its plots from the recorded trials in `recorded/`, in seconds. One trial is
one-shot pruning, batch norm recalibrated on 100 images where that does not hurt the dense network, and the score on
300 to 500 validation samples; test data is not touched. Costs are those of a Raspberry Pi 4 by the models. The
hypervolume is scaled to [0, 1]; its reference point, fixed before any run, is the dense costs and an accuracy drop of
0.5 (GPT: 1 nat a character). Every row starts with the same trials (dense, eight uniform, six allocations: for
repeats fewer) and skips repeated configs as a study does; "tpe, plain" starts with the dense model alone and scores
repeats again. `greybox` first tries single choices on small batches (the damage table), reads it, and leaves out the
first trials that are hopeless by it; `greybox, no table` does without. What the table took, in time, is given in
trials: the columns "table counted" have as many trials less. Seeds are 0 to 4 in order, none left out; the last section
says what was not run. `greybox` was tuned on the two-objective races of channels: their seeds, and its own parts that
were tried, are no fresh evidence for it; mixed spaces and four objectives decided nothing.

[What the picks are worth after fine-tuning](after-recovery.md) · [rows from outside](outside.md) ·
[how good the damage table is](damage.md) · [time of a proposal](ask-time.md)
"""


NOT_RUN = ('Optuna\'s GP (`--row gp`) and "tpe, plain", but for the digits',)


def read_runs(folder: Path) -> list[Run]:
    """Read all recorded runs, by file and line."""
    return [read_run(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def read_probes(folder: Path) -> dict[str, dict[str, float]]:
    """Read what damage tables cost, as ``run`` wrote it."""
    path = folder / "probes.json"
    return dict(json.loads(path.read_text())) if path.exists() else {}


def volumes(run: Run) -> NDArray[np.float64]:
    """Return the hypervolume after each trial, shape (trials,)."""
    values = np.array(run.values)[:, : run.objectives]
    reference = np.array([WORST_DROP[run.problem.partition("-")[0]], *values[0, 1:]])
    scaled = np.maximum(values, 0.0) / reference
    reached, front = [], np.empty((0, run.objectives))
    for point in scaled:
        if not (front <= point).all(axis=1).any():
            front = np.vstack([front, point])
            front = front[nondominated(front)]
            volume = hypervolume(front, np.ones(run.objectives))
        reached.append(volume)
    return np.array(reached)


def smallest_macs(run: Run, drop: float, trials: int) -> float:
    """Return the least share of dense MACs within an accuracy drop, after so many trials."""
    values = np.array(run.values)[:trials]
    return float((values[values[:, 0] <= drop, 1] / values[0, 1]).min())


def write_table(runs: Sequence[Run], probes: Mapping[str, Mapping[str, float]], out: Path) -> None:
    """Write ``README.md`` and a plot for each problem.

    Args:
        runs: Recorded.
        probes: Problem to the number of probes of its damage table and the processor seconds that they took.
        out: Folder.
    """
    parts, missing = [HEAD], []
    races: dict[tuple[str, int], dict[str, list[Run]]] = {}
    for run in runs:
        races.setdefault((run.problem, run.objectives), {}).setdefault(run.row, []).append(run)
    parts += _goal(races, probes)
    for (problem, objectives), rows in sorted(races.items()):
        parts += [f"\n## {problem}, {objectives} objectives\n", *_table(rows)]
        if problem in probes:
            taken = table_trials(rows, probes[problem])
            parts.append(f"\nThe damage table took {probes[problem]['probes']:.0f} probes, in time {taken} trials.\n")
        picture = f"{problem}-{objectives}.svg"
        (out / picture).write_text(_plot(rows), encoding="utf-8")
        parts.append(f"\n![hypervolume over trials]({picture})\n")
        for row, found in rows.items():
            if len(found) < 5:
                missing.append(f"{problem}, {row}: seeds {', '.join(str(run.seed) for run in found)} only")
            shortest = min(len(run.values) for run in found)
            if shortest < AT[-1]:
                missing.append(f"{problem}, {row}: run to {shortest} trials")
    parts.append("\n## What is missing\n")
    parts += [f"- {line}\n" for line in (*NOT_RUN, *missing)]
    (out / "README.md").write_text("\n".join(part.rstrip("\n") for part in parts) + "\n", encoding="utf-8")


def table_trials(rows: Mapping[str, Sequence[Run]], cost: Mapping[str, float]) -> int:
    """Return how many trials take as long as the damage table took."""
    each = np.mean([run.evaluate_s / len(run.values) for found in rows.values() for run in found])
    return round(cost["seconds"] / float(each))


def _goal(
    races: Mapping[tuple[str, int], Mapping[str, Sequence[Run]]], probes: Mapping[str, Mapping[str, float]]
) -> list[str]:
    """Return what greybox reaches with fewer trials, beside the best Optuna sampler with as many and with all."""
    lines = [
        "\n## Fewer trials\n",
        "| problem | greybox at 40 | greybox at 80 | 80, table counted | best of Optuna at 80 | at 320 |",
        "|---|---|---|---|---|---|",
    ]
    for (problem, objectives), rows in sorted(races.items()):
        curves = {row: [volumes(run) for run in found] for row, found in rows.items()}
        counted = 80 - table_trials(rows, probes[problem]) if problem in probes else 80
        ours = [
            _cell(_median(curves.get("greybox", ()), count)) if count > 0 else "none left"
            for count in (40, 80, counted)
        ]
        theirs = []
        for count in (80, AT[-1]):
            row = max((name for name in rows if name in OPTUNA), key=lambda n: _median(curves[n], count), default="")
            best = _median(curves[row], count) if row else 0.0
            theirs.append(f"{best:.3f} ({row})" if best else "not run")
        lines.append(f"| {problem}, {objectives} objectives | {' | '.join([*ours, *theirs])} |")
    return [*lines, ""]


def _table(rows: Mapping[str, Sequence[Run]]) -> list[str]:
    curves = {row: [volumes(run) for run in found] for row, found in rows.items()}
    finished = [
        float(np.median([curve[AT[-1] - 1] for curve in found if len(curve) >= AT[-1]]))
        for row, found in curves.items()
        if row in OPTUNA and any(len(curve) >= AT[-1] for curve in found)
    ]
    goal = max(finished, default=np.inf)
    heads = [f"at {count}" for count in AT]
    picks = [f"MACs at {drop:.0%}, 80" for drop in DROPS]
    lines = [
        "\n| sampler | seeds | " + " | ".join([*heads, *picks, f"trials to {goal:.3f}", "asking, s a trial"]) + " |",
        "|---" * (len(heads) + len(picks) + 4) + "|",
    ]
    for row in sorted(rows, key=lambda name: -_median(curves[name], 80)):
        found = rows[row]
        cells = [row, str(len(found))]
        cells += [_spread([curve[count - 1] for curve in curves[row] if len(curve) >= count], ".3f") for count in AT]
        cells += [_spread([smallest_macs(run, drop, 80) for run in found], ".0%") for drop in DROPS]
        reached = [float(np.argmax(curve >= goal)) + 1 if (curve >= goal).any() else np.inf for curve in curves[row]]
        middle = float(np.median(reached))
        cells.append(f"{middle:.0f}" if np.isfinite(middle) else "not reached")
        cells.append(f"{np.mean([run.ask_s / len(run.values) for run in found]):.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _cell(value: float) -> str:
    return f"{value:.3f}" if value else "not run"


def _median(curves: Sequence[NDArray[np.float64]], count: int) -> float:
    found = [curve[count - 1] for curve in curves if len(curve) >= count]
    return float(np.median(found)) if found else 0.0


def _spread(values: Sequence[float], form: str) -> str:
    if not values:
        return "–"
    low, middle, high = np.quantile(values, [0.25, 0.5, 0.75])
    return f"{middle:{form}} ({low:{form}}–{high:{form}})" if len(values) > 1 else f"{middle:{form}}"


def _plot(rows: Mapping[str, Sequence[Run]]) -> str:
    """Draw median curves over a logarithmic axis of trials."""
    width, height, left, bottom = 640, 320, 50, 40
    curves = {}
    for row, found in rows.items():
        whole = [volumes(run) for run in found]
        curves[row] = np.median([curve[: min(map(len, whole))] for curve in whole], axis=0)
    low = min(float(curve[14]) for curve in curves.values())
    high = max(float(curve[-1]) for curve in curves.values())
    colours = ("#0b6e4f", "#1f77b4", "#d1495b", "#8d6a9f", "#e09f3e", "#555555", "#7a5c2e")

    def at(trial: int, value: float) -> str:
        x = left + (width - left - 120) * np.log(trial / 15) / np.log(320 / 15)
        y = height - bottom - (height - bottom - 15) * (value - low) / max(high - low, 1e-9)
        return f"{x:.1f},{y:.1f}"

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for trial in AT:
        x = at(trial, low).split(",")[0]
        parts.append(f'<line x1="{x}" x2="{x}" y1="15" y2="{height - bottom}" stroke="#ddd"/>')
        parts.append(f'<text x="{x}" y="{height - bottom + 16}" text-anchor="middle">{trial}</text>')
    for value in np.linspace(low, high, 5):
        y = at(15, float(value)).split(",")[1]
        parts.append(f'<text x="{left - 6}" y="{y}" text-anchor="end" dominant-baseline="middle">{value:.3f}</text>')
    parts.append(f'<text x="{(width - 70) / 2}" y="{height - 6}" text-anchor="middle">trials</text>')
    for (row, curve), colour in zip(sorted(curves.items()), colours, strict=False):
        points = " ".join(at(n, float(curve[n - 1])) for n in range(15, len(curve) + 1))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x, y = at(len(curve), float(curve[-1])).split(",")
        parts.append(f'<text x="{float(x) + 5:.1f}" y="{y}" fill="{colour}" dominant-baseline="middle">{row}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
