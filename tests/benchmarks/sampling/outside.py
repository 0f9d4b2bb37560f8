"""Rows from outside: Torch-Pruning's ladders (Fang et al. 2023), uniform and global, on the problems of the race.

Torch-Pruning is no dependency: give the folder it was installed into (``pip install --no-deps --target DIR
torch-pruning``). What it returns is recalibrated and scored as a trial is; its MACs are counted by fvcore.
"""

from __future__ import annotations

import copy
import importlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autoprune.cost.macs import count_macs
from autoprune.errors import one_line
from autoprune.trial.recovery import recalibrate_batchnorm
from autoprune.trial.task import score
from tests.benchmarks.sampling.evaluations import Evaluations
from tests.benchmarks.sampling.race import Run

RATIOS = tuple(round(0.05 * n, 2) for n in range(1, 17))
SHARES = (0.6, 0.3)


@dataclass(frozen=True)
class Step:
    """One network of a ladder.

    Attributes:
        row: "uniform" or "global" of Torch-Pruning, both by L2 magnitude; "fastnas/D", widths by D.
        ratio: Channels that Torch-Pruning was told to remove, or share of the MACs that FastNAS was.
        macs: Share of the dense MACs by fvcore; None where the network does not run.
        drop: Accuracy drop on validation data; None likewise.
        note: Why there is no number.
        evaluations: Networks that were scored to find it, where it was searched.
    """

    row: str
    ratio: float
    macs: float | None
    drop: float | None
    note: str = ""
    evaluations: int = 0


def ladders(evaluations: Evaluations, folder: Path) -> Iterator[Step]:
    """Yield the networks of both ladders.

    Args:
        evaluations: The problem.
        folder: Where Torch-Pruning was installed.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: the project's own packages win
    pruning = importlib.import_module("torch_pruning")
    for name in ("uniform", "global"):
        for ratio in RATIOS:
            try:
                model = _pruned(pruning, evaluations, ratio, name == "global")
                yield Step(name, ratio, *measured(evaluations, model))
            except (RuntimeError, ValueError, IndexError) as error:  # its network does not run: that is its result
                yield Step(name, ratio, None, None, one_line(error))


def _pruned(pruning: object, evaluations: Evaluations, ratio: float, everywhere: bool) -> nn.Module:
    task = evaluations.runner.task
    model = copy.deepcopy(evaluations.runner.model)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    pruner = pruning.pruner.MagnitudePruner(  # type: ignore[attr-defined]
        model,
        task.example_inputs,
        importance=pruning.importance.MagnitudeImportance(p=2),  # type: ignore[attr-defined]
        pruning_ratio=ratio,
        global_pruning=everywhere,
        ignored_layers=[last],
    )
    pruner.step()
    return model.eval()


def measured(evaluations: Evaluations, model: nn.Module) -> tuple[float, float]:
    """Return a network's share of the dense MACs, by fvcore, and its accuracy drop after recalibration."""
    runner = evaluations.runner
    if runner.recovery.batchnorm_samples:
        recalibrate_batchnorm(model, runner.data, runner.recovery.batchnorm_samples)
    value = score(runner.task.evaluate, model, "evaluate")
    drop = evaluations.dense_score - value if runner.task.higher_is_better else value - evaluations.dense_score
    example = runner.task.example_inputs
    with torch.no_grad():
        macs, dense = (count_macs(each, (example,)).total for each in (model, runner.model))
    return macs / dense, drop


def write_page(folder: Path, runs: Sequence[Run]) -> None:
    """Write ``outside.md`` from the recorded ladders and the runs of the race."""
    lines = [HEAD]
    for path in sorted((folder / "outside").glob("*.jsonl")):
        steps = [Step(**json.loads(line)) for line in path.read_text().splitlines()]
        lines += [f"## {path.stem}\n", "| row | drop at 60% of the MACs | at 30% |\n|---|---|---|"]
        for row in dict.fromkeys(step.row for step in steps):
            points = [(s.macs, s.drop) for s in steps if s.row == row and s.macs is not None and s.drop is not None]
            asked = max(step.evaluations for step in steps if step.row == row)
            lines.append(f"| {_name(row, asked)} | " + " | ".join(_least(points, share) for share in SHARES) + " |")
        for row, trials in (("tpe", 80), ("tpe", 320), ("greybox", 80)):
            found = [
                r for r in runs if (r.problem, r.row, r.objectives) == (path.stem, row, 2) and len(r.codes) >= trials
            ]
            if found:
                cells = [_of_runs(found, trials, share) for share in SHARES]
                lines.append(f"| {row}, {trials} trials | " + " | ".join(cells) + " |")
        failed = [step for step in steps if step.note and not step.row.startswith("fastnas")]
        lines.append("")
        if failed:
            lines.append(
                f"{len(failed)} of {len(steps)} networks of Torch-Pruning do not run; the first: {failed[0].note}\n"
            )
    (folder / "outside.md").write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")


def _name(row: str, asked: int) -> str:
    tool, _, divisor = row.partition("/")
    if tool != "fastnas":
        return f"Torch-Pruning, {row}"
    return f"ModelOpt FastNAS, widths by {divisor}, {asked} evaluations"


def _least(points: Sequence[tuple[float, float]], share: float) -> str:
    inside = [drop for macs, drop in points if macs <= share * 1.0001]
    return f"{min(inside):.3f}" if inside else "none"


def _of_runs(runs: Sequence[Run], trials: int, share: float) -> str:
    drops = []
    for run in runs:
        values = np.array(run.values)[:trials]
        inside = values[values[:, 1] <= share * values[0, 1] * 1.0001, 0]
        drops.append(float(inside.min()) if len(inside) else math.inf)
    if math.isinf(float(np.median(drops))):
        return "none"
    low, middle, high = min(drops), float(np.median(drops)), max(drops)
    most = "none" if math.isinf(high) else f"{high:.3f}"
    return f"{middle:.3f} ({low:.3f}–{most})" if len(drops) > 1 else f"{middle:.3f}"


def line_of(step: Step) -> str:
    """Return it as one line of JSON."""
    return json.dumps(asdict(step), separators=(",", ":"))


HEAD = """# Rows from outside

    pip install --no-deps --target DIR torch-pruning
    pip install --no-deps --target DIR nvidia-modelopt torchprofile==0.0.4 pulp omegaconf \\
        antlr4-python3-runtime==4.9.3 regex ninja nvidia-ml-py
    python -m tests.benchmarks.samplers outside --data DATA --torch-pruning DIR --modelopt DIR --problem NAME
    python -m tests.benchmarks.samplers table

The least accuracy drop (GPT: nats) on validation data within a share of the dense MACs, before any fine-tuning; batch
norm is recalibrated for all rows alike. Torch-Pruning's ladders are MagnitudePruner with L2 importance at ratios 0.05
to 0.8, its MACs counted by fvcore on the network that it returns. For runs of the race: median over seeds, and the
least and the most. NVIDIA ModelOpt 0.47's FastNAS searches once for each share (`--modelopt`), with scores
after recalibration, which it does not do itself. `greybox` looks for nothing beyond the reference drop (0.5), so it may
have no config as small as a share asks. FastNAS's search on our probes stands in
[after-recovery.md](after-recovery.md).
"""
