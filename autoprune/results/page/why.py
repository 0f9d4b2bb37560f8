"""The figures of "why": damage of single choices, what moves the objectives, what was refused, the dense model."""

from __future__ import annotations

from collections.abc import Sequence

from autoprune.results.formats import ScoreFormat, number, percent, plain
from autoprune.results.importance import importance
from autoprune.results.page.dense import roofline, staircases, time_by_module
from autoprune.results.page.figure import Axis, Figure, Point, Series
from autoprune.results.page.part import Heat, HeatCell, Part
from autoprune.results.profile_tables import layer_table, payoff_table, staircase_table
from autoprune.results.table import Table
from autoprune.results.why import dropped_table
from autoprune.spec.findings import DamageRecord
from autoprune.spec.objectives import METRICS
from autoprune.spec.record import RunRecords

NAME = 60
_LEVELS = (0.0, 0.04, 0.12, 0.25, 0.5, 0.8)  # of the constraint, or of the largest drop
_BARS = 14
_ROWS = 80


def why_parts(records: RunRecords) -> tuple[Part, ...]:
    """Return the parts of "why", in the order of a reader's questions; each says what it lacks."""
    return (_damage(records), _importance(records), _refused(records), _dense(records))


def _damage(records: RunRecords) -> Part:
    title = "What each choice costs alone"
    found = records.study.damage
    if not found:
        return Part(
            title,
            absent="No table of damage is in the records: the search did not try single choices. "
            "The sampler greybox tries them first (search: {sampler: greybox}).",
        )
    heats = tuple(
        _heat(granularity, [entry for entry in found if entry.granularity == granularity], records)
        for granularity in dict.fromkeys(entry.granularity for entry in found)
    )
    return Part(
        title,
        "Estimated accuracy drop when one group or layer is pruned and everything else stays dense; of several "
        "criteria the best. What is pale can go, what is strong must stay.",
        heats=heats,
    )


def _heat(granularity: str, entries: Sequence[DamageRecord], records: RunRecords) -> Heat:
    scores = ScoreFormat.of(records.study)
    best: dict[tuple[str, float], DamageRecord] = {}
    for entry in entries:
        key = (entry.name, round(entry.sparsity, 4))
        if key not in best or entry.drop < best[key].drop:
            best[key] = entry
    names = list(dict.fromkeys(entry.name for entry in entries))
    columns = sorted({sparsity for _, sparsity in best if sparsity > 0})
    bound = next((b.value for b in records.study.spec.bounds if b.metric == "accuracy_drop" and not b.relative), 0.0)
    scale = bound or max((abs(entry.drop) for entry in entries), default=0.0) or 1.0

    def cell(name: str, sparsity: float) -> HeatCell:
        entry = best.get((name, sparsity))
        if entry is None:
            return HeatCell("")
        level: int | str = "g" if entry.drop < 0 else sum(entry.drop > scale * step for step in _LEVELS)
        text = scores.drop(entry.drop).removesuffix(" pp")
        return HeatCell(
            text, level, f"{plain(name, NAME)}: {scores.drop(entry.drop)} by {plain(entry.criterion, NAME)}"
        )

    unit = " in percentage points" if scores.percent else ""
    left_out = f"; the first {_ROWS} of {len(names)} groups" if len(names) > _ROWS else ""
    return Heat(
        f"{plain(granularity, NAME)}: accuracy drop{unit} by sparsity{left_out}",
        "group or layer",
        tuple(percent(sparsity) for sparsity in columns),
        tuple((plain(name, NAME), tuple(cell(name, sparsity) for sparsity in columns)) for name in names[:_ROWS]),
    )


def _importance(records: RunRecords) -> Part:
    title = "Which groups move the objectives"
    found = importance(records)
    if not found:
        return Part(title, absent="Too few complete trials to tell which groups matter: at least 12 are needed.")
    told, silent = [one for one in found if one.tells], [one for one in found if not one.tells]
    method = (
        "A ridge regression of each objective's ranks on sparsity, granularity and criterion of every group; a bar is "
        "the variance that one group contributes to the fit, of the sum of all. Effects that groups have only together "
        "are not in it."
    )
    if silent:
        names = ", ".join(f"{_title(one.metric)} ({percent(max(one.explained, 0))})" for one in silent)
        method += f" Not shown, for the regression explains too little of it in trials left out: {names}."
    figures = tuple(
        Figure(
            f"importance-{one.metric.replace('_', '-')}",
            f"{_title(one.metric)}: {percent(one.explained)} of the variance explained",
            f"Share of each group in what the choices do to {_title(one.metric)}, of {one.trials} trials.",
            Axis("share", "%"),
            Axis("", names=tuple(plain(name, NAME) for name, _ in one.shares[:_BARS])),
            (
                Series(
                    "",
                    0,
                    "bars",
                    tuple(
                        Point(share, place, f"{plain(name, NAME)}: {percent(share)}")
                        for place, (name, share) in enumerate(one.shares[:_BARS])
                    ),
                ),
            ),
            note=f"{one.trials} trials, leave one out."
            + (f" {len(one.shares) - _BARS} smaller ones are left out." if len(one.shares) > _BARS else ""),
        )
        for one in told
    )
    return Part(title, method, figures=figures)


def _refused(records: RunRecords) -> Part:
    title = "What does not pay here"
    study = records.study
    if study.payoffs is None and study.dropped is None:
        return Part(
            title,
            absent="This run did not try its patterns on the device first, so nothing was refused; "
            "autoprune profile STUDY.yaml tries each and gives the ratios.",
        )
    step = study.dense.channel_step if study.dense is not None else 1
    tables = (payoff_table(study.payoffs or (), step), dropped_table(study.dropped or ()))
    if not any(tables):
        return Part(title, absent="Every pattern of the space was tried on the device, and none was refused.")
    idle = [tried for tried in study.payoffs or () if not tried.pays and tried.layer is None]
    refused = ", ".join(f"{plain(tried.granularity, NAME)} ({tried.ratio.value:.2f}× the time)" for tried in idle)
    return Part(
        title,
        f"Refused as speed-ups: {refused}." if refused else "",
        tables=tuple(table for table in tables if table is not None),
    )


def _dense(records: RunRecords) -> Part:
    title = "Where the dense model waits"
    study = records.study
    drawn = [staircases(study.staircases)] if study.staircases else []
    if study.dense is None and not drawn:
        return Part(
            title,
            absent="The dense model was not taken apart in this run; autoprune profile STUDY.yaml says where its time, "
            "bytes and energy go.",
        )
    stairs = staircase_table(study.staircases or ())
    tables: tuple[Table, ...] = (stairs,) if stairs else ()
    note = ""
    if study.dense is not None:
        drawn = [roofline(study.dense), *drawn, time_by_module(study.dense)]
        tables = (*tables, layer_table(study.dense, 12))
        note = (
            f"{number(study.dense.latency_ms)} ms on {plain(study.dense.title)}; "
            f"{'measured' if study.dense.measured else 'modelled'}. A module far below the roof wastes the device; "
            "what waits for launch gains nothing from fewer MACs."
        )
    return Part(title, note, figures=tuple(figure for figure in drawn if figure is not None), tables=tables)


def _title(metric: str) -> str:
    return METRICS[metric].title if metric in METRICS else plain(metric, NAME)
