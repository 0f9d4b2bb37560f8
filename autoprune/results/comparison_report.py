"""The page of a comparison, the same in Markdown, and its plots."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from autoprune.errors import RunDirectoryError
from autoprune.results.comparison import Comparison, coverage_table, picks_table, run_table, share
from autoprune.results.formats import ScoreFormat, plain
from autoprune.results.pictures import Picture
from autoprune.results.stairs import stairs
from autoprune.results.svg import Chart, Line, Points, Shape, Tone, draw
from autoprune.results.templating import template
from autoprune.spec.front import DENSE, DROP, front, hypervolume_history
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import write_whole

_TONES: tuple[Tone, ...] = ("blue", "vermilion", "green", "orange", "sky", "grey")
_SHAPES: tuple[Shape, ...] = ("circle", "triangle", "square", "diamond", "ring", "cross")


def write_comparison(comparison: Comparison, directory: Path) -> Path:
    """Write ``comparison.html``, ``comparison.md`` and its plots into ``directory``; other files stay.

    Returns:
        The page.

    Raises:
        RunDirectoryError: The folder cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        for name, text in comparison_files(comparison).items():
            write_whole(directory / name, text)
    except OSError as error:
        raise RunDirectoryError(
            f"no comparison can be written to {directory} ({error}); give a writable folder"
        ) from error
    return directory / "comparison.html"


def comparison_files(comparison: Comparison) -> dict[str, str]:
    """Return every file by its name: the same records give the same texts."""
    drawn = comparison_pictures(comparison)
    content: dict[str, Any] = {
        "comparison": comparison,
        "tables": [
            table
            for table in (run_table(comparison), picks_table(comparison), coverage_table(comparison))
            if table is not None
        ],
        "pictures": drawn,
    }
    sources = {p.path: base64.b64encode(p.svg.encode()).decode() for p in drawn}
    return {
        "comparison.html": template("comparison.html.j2").render(**content, sources=sources),
        "comparison.md": template("comparison.md.j2").render(**content),
        **{picture.path: picture.svg for picture in drawn},
    }


def comparison_pictures(comparison: Comparison) -> tuple[Picture, ...]:
    """Return the fronts over one another in each common cost, and the hypervolumes over trials."""
    if not comparison.objectives:
        return ()
    scores = ScoreFormat.of(comparison.runs[0].records.study)
    drawn = []
    for cost in (name for name in comparison.objectives if name != DROP and DROP in comparison.objectives):
        groups, lines = [], []
        for i, run in enumerate(comparison.runs):
            trials = [t for t in front(run.common) if t.origin == DENSE or share(t, run, cost) is not None]
            best = stairs(trials, lambda t, run=run, cost=cost: share(t, run, cost) or 1.0)  # type: ignore[misc]
            xs = [share(t, run, cost) or 1.0 for t in best]
            ys = [t.values[DROP] * (100 if scores.percent else 1) for t in best]
            tone, shape = _TONES[i % len(_TONES)], _SHAPES[(i + i // len(_TONES)) % len(_SHAPES)]
            lines.append(Line(xs, ys, tone, step=True))
            groups.append(Points(plain(run.label, 40), xs, ys, tone, shape, [f"trial {t.number}" for t in best]))
        title = f"Accuracy drop against {METRICS[cost].title} of each run's own dense model"
        drop = "accuracy drop (pp)" if scores.percent else "accuracy drop"
        chart = Chart(title, f"{METRICS[cost].title} / dense", drop, groups, lines)
        drawn.append(Picture(f"comparison-{cost}.svg", "front", title, draw(chart)))
    courses = []
    for i, run in enumerate(comparison.runs):
        numbers = [float(n) for n in sorted(trial.number for trial in run.records.trials)]
        courses.append(
            Line(
                numbers,
                hypervolume_history(run.common),
                _TONES[i % len(_TONES)],
                step=True,
                name=plain(run.label, 40),
                dashed=i >= len(_TONES),
            )
        )
    title = "Hypervolume over trials, with a common reference point"
    chart = Chart(title, "trial", "hypervolume", (), courses, height=320, from_zero=True)
    drawn.append(Picture("comparison-hypervolume.svg", "trust", title, draw(chart)))
    return tuple(drawn)
