"""After recovery: what each row would pick at a share of the MACs, all fine-tuned the same way, over seeds.

Rungs of a pick: its one-shot score with recalibrated batch norm (what the race saw), and its score after fine-tuning;
fine-tuning never sees validation data, and test data is read once, at the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from autoprune.ranks import spearman
from autoprune.search.proposals import Proposals
from autoprune.spec.config import PruningConfig
from autoprune.trial.pruned import pruned_model, recover_pruned
from autoprune.trial.recovery import recalibrate_batchnorm
from autoprune.trial.task import score
from tests.benchmarks.sampling.evaluations import Evaluations
from tests.benchmarks.sampling.race import Run

SHARES = (0.6, 0.3)
STEPS = {"digits": 40, "resnet20": 50}
"""Of fine-tuning: digits three passes over the data; ResNet-20 one (batches of 100), about 25 s of a core."""


HEAD = """# After recovery

    python -m tests.benchmarks.samplers recover --data DIR --problem digits-channels
    python -m tests.benchmarks.samplers table

What each row would pick at a share of the dense MACs after 80 trials, all fine-tuned alike: digits 40 steps of 64
images, ResNet-20 one pass over 5,000 images in batches of 100; batch norm then recalibrated on 1,000. A row's run with
seed n is fine-tuned with seed n; the others have one config for all seeds. *Uniform* is the least uniform config that
fits, by the first criterion of the space. *Threshold* is FastNAS's search (one common damage threshold, bisected) on
our table of recalibrated probes, not NVIDIA's code. Validation data chose the configs; the test column is other data,
read once. Median, and the least and the most. DS-CNN has no training data here, the GPT no fine-tuning.
"""


@dataclass(frozen=True)
class Pick:
    """One config and what became of it.

    Attributes:
        row: Who picked it.
        share: Of the dense MACs that was asked for.
        macs: Share that it has.
        one_shot: Score with recalibrated batch norm.
        recovered: Score after fine-tuning, by seed.
        test: Score on test data after fine-tuning, by seed.
    """

    row: str
    share: float
    macs: float
    one_shot: float
    recovered: tuple[float, ...]
    test: tuple[float, ...]


def params_of(proposals: Proposals, code: str) -> dict[str, object]:
    """Return the parameters that :func:`tests.benchmarks.sampling.race.code_of` wrote as letters."""
    letters, params = iter(code), dict(proposals.uniform(0.0))
    for knob in proposals.knobs:
        for name, choices in knob.parameters().items():
            if len(choices) > 1:
                params[name] = choices[ord(next(letters)) - ord("a")]
    return params


def best_within(run: Run, share: float, trials: int) -> str:
    """Return the code of the trial with the least drop within a share of the dense MACs."""
    values = np.array(run.values)[:trials]
    inside = np.flatnonzero(values[:, 1] <= share * values[0, 1] * 1.0001)
    return run.codes[int(inside[np.argmin(values[inside, 0])])]


def uniform_within(evaluations: Evaluations, share: float) -> PruningConfig:
    """Return the lightest-handed uniform L2 config within a share of the MACs, on the grid of the space."""
    proposals = evaluations.proposals
    for sparsity in np.arange(0.1, 0.85, 0.1):
        config = proposals.config(proposals.uniform(float(round(sparsity, 1))))
        if evaluations.costs(config)[0] <= share * evaluations.reference[1]:
            return config
    raise ValueError(f"no uniform config has {share:.0%} of the MACs")


def threshold_within(evaluations: Evaluations, share: float) -> tuple[PruningConfig, float]:
    """Return the config of one common damage threshold within a share of the MACs, as FastNAS searches.

    Of each group the highest sparsity whose damage alone stays below a threshold, from the study's own table of single
    choices; the threshold is bisected. (NVIDIA ModelOpt's FastNAS, reimplemented on recalibrated networks: its own code
    scores without recalibration.)
    """
    proposals, best = evaluations.proposals, None
    table = evaluations.table.arrays(proposals)
    low, high = 0.0, max(float(values.max()) for values in table.values())
    for _ in range(30):
        middle = (low + high) / 2
        params = dict(proposals.uniform(0.0))
        for knob in proposals.knobs:
            values = table[knob.name]
            allowed = [(s, -values[m, n], knob.methods[m]) for (m, n), s in _places(knob.sparsities, values, middle)]
            sparsity, _, method = max(allowed, default=(0.0, 0.0, ""))
            if sparsity > 0:
                params[f"{knob.name}|method"], params[f"{knob.name}|sparsity"] = method, sparsity
        config = proposals.config(params)
        if evaluations.costs(config)[0] <= share * evaluations.reference[1]:
            best, high = config, middle
        else:
            low = middle
    assert best is not None, "at the highest threshold everything goes"
    return best, high


def _places(sparsities: Sequence[float], values: np.ndarray, most: float) -> Iterator[tuple[tuple[int, int], float]]:
    for m, n in np.ndindex(values.shape):
        if values[m, n] <= most:
            yield (m, n), sparsities[n]


def recover(evaluations: Evaluations, row: str, share: float, config: PruningConfig, seeds: Sequence[int]) -> Pick:
    """Prune and fine-tune a config with each seed."""
    runner, name = evaluations.runner, evaluations.problem.network
    task = runner.task
    assert task.finetune is not None
    found = evaluations(config)
    sign = 1.0 if task.higher_is_better else -1.0
    scores, tests = [], []
    for seed in seeds:
        pruned = pruned_model(runner.model, runner.graph, runner.book, config)
        recover_pruned(pruned, config, runner.data)
        torch.manual_seed(seed)
        more = {"seed": seed} if name == "digits" else {}  # its draws have a generator of their own
        task.finetune(pruned.model.train(), STEPS[name], **more)
        if runner.recovery.batchnorm_samples:
            recalibrate_batchnorm(pruned.model, runner.data, 1_000)
        scores.append(score(task.evaluate, pruned.model.eval(), "evaluate"))
        assert task.test is not None
        tests.append(score(task.test, pruned.model, "test"))
    return Pick(
        row,
        share,
        found.values[1] / evaluations.reference[1],
        evaluations.dense_score - sign * found.values[0],
        tuple(scores),
        tuple(tests),
    )


def write_page(folder: Path) -> None:
    """Write ``after-recovery.md`` from the recorded picks."""
    lines = [HEAD]
    for path in sorted((folder / "recovered").glob("*.jsonl")):
        picks = [Pick(**json.loads(line)) for line in path.read_text().splitlines()]
        lines += [f"## {path.stem}\n", *_rows(picks), ""]
    (folder / "after-recovery.md").write_text("\n".join(lines).rstrip("\n") + "\n", encoding="utf-8")


def line_of(pick: Pick) -> str:
    """Return it as one line of JSON."""
    return json.dumps(
        {k: [round(x, 5) for x in v] if isinstance(v, tuple) else v for k, v in asdict(pick).items()},
        separators=(",", ":"),
    )


def _rows(picks: Sequence[Pick]) -> Iterator[str]:
    yield "| MACs | row | MACs of the picks | one-shot | recovered | test |\n|---|---|---|---|---|---|"
    for share in SHARES:
        rows = dict.fromkeys(pick.row for pick in picks if pick.share == share)
        for row in rows:
            mine = [pick for pick in picks if pick.share == share and pick.row == row]
            cells = [
                _span([pick.macs for pick in mine], ".0%"),
                _span([pick.one_shot for pick in mine], ".1%"),
                _span([value for pick in mine for value in pick.recovered], ".1%"),
                _span([value for pick in mine for value in pick.test], ".1%"),
            ]
            yield f"| {share:.0%} | {row} | " + " | ".join(cells) + " |"
    yield ""
    for share in SHARES:
        at = [pick for pick in picks if pick.share == share]
        rank = spearman([pick.one_shot for pick in at], [float(np.mean(pick.recovered)) for pick in at])
        told = f"{rank:.2f}" if np.isfinite(rank) else "undefined"
        if at:
            yield f"Rank correlation of one-shot and recovered score at {share:.0%}: {told} ({len(at)} picks).\n"


def _span(values: Sequence[float], form: str) -> str:
    low, middle, high = min(values), float(np.median(values)), max(values)
    return (
        f"{middle:{form}}" if f"{low:{form}}" == f"{high:{form}}" else f"{middle:{form}} ({low:{form}}–{high:{form}})"
    )
