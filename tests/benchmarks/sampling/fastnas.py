"""A row from outside: NVIDIA ModelOpt's FastNAS, which searches widths for one bound on MACs.

ModelOpt is no dependency: give the folder it was installed into. It does not recalibrate batch norm itself; here each
network that it scores is, as in a trial, and what it returns. Its MACs are counted by fvcore.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from autoprune.errors import one_line
from autoprune.trial.recovery import recalibrate_batchnorm
from tests.benchmarks.sampling.evaluations import Evaluations
from tests.benchmarks.sampling.outside import SHARES, Step, measured

DIVISORS = (32, 4)
"""Widths are multiples of this: FastNAS's own choice, and a finer one, nearer to the space of the race."""

BATCHES = 3
"""Of the calibration data, for its order of channels; it re-estimates batch norm on none."""


def fastnas(evaluations: Evaluations, folder: Path) -> Iterator[Step]:
    """Yield what FastNAS finds at each share of the MACs.

    Args:
        evaluations: The problem.
        folder: Where ModelOpt was installed.
    """
    if str(folder) not in sys.path:
        sys.path.append(str(folder))  # last: the project's own packages win
    prune, runner = importlib.import_module("modelopt.torch.prune"), evaluations.runner
    for divisor in DIVISORS:
        for share in SHARES:
            row, asked = f"fastnas/{divisor}", 0

            def score(model: nn.Module) -> float:
                nonlocal asked
                asked += 1
                if runner.recovery.batchnorm_samples:
                    recalibrate_batchnorm(model, runner.data, runner.recovery.batchnorm_samples)
                value = float(runner.task.evaluate(model.eval()))
                return value if runner.task.higher_is_better else -value

            try:
                model = _pruned(prune, evaluations, divisor, share, score)
                step = Step(row, round(1 - share, 2), *measured(evaluations, model.eval()), evaluations=asked)
            except (RuntimeError, ValueError, TypeError, AssertionError) as error:  # that is its result
                step = Step(row, round(1 - share, 2), None, None, one_line(error), asked)
            yield step


def _pruned(prune: object, evaluations: Evaluations, divisor: int, share: float, score: object) -> nn.Module:
    config = prune.fastnas.FastNASConfig().model_dump()  # type: ignore[attr-defined]
    for rules in config.values():  # of norms too: widths that layers share lie in all of their spaces
        for rule in rules.values():
            for width in ("channel_divisor", "feature_divisor"):
                if width in rule:
                    rule[width] = divisor
    data = evaluations.runner.data
    assert data.batches is not None
    batches = [batch for batch, _ in zip(data.batches, range(BATCHES), strict=False)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        model, _ = prune.prune(  # type: ignore[attr-defined]
            model=copy.deepcopy(evaluations.runner.model),
            mode=[("fastnas", config)],
            constraints={"flops": f"{share:.0%}"},
            dummy_input=evaluations.runner.task.example_inputs,
            config={
                "data_loader": batches,
                "score_func": score,
                "collect_func": lambda batch: batch[0],
                "max_iter_data_loader": BATCHES,
            },
        )
    found: nn.Module = model
    return found
