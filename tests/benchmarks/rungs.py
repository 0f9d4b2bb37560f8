"""What cheap rungs are worth: rank correlation with the whole trial, seconds, who is stopped; batch-norm statistics.

    python tests/benchmarks/rungs.py record digits resnet20 dscnn --data FOLDER [--configs 24]
    python tests/benchmarks/rungs.py table

The first scores the same configs on every rung, one after another, and writes ``reports/rungs/NAME.jsonl``; it goes on
where it was killed. The second replays them and writes ``reports/rungs/README.md`` in a second. FOLDER holds the data
and networks of the two tasks beside this file.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from statistics import mean, median

import numpy as np
import torch

from autoprune.pareto import hypervolume, nondominated
from autoprune.ranks import spearman
from autoprune.search.proposals import make_proposals
from autoprune.search.rungs import Rungs
from autoprune.spec.findings import RungRecord
from autoprune.spec.record import TrialRecord
from autoprune.spec.study import LAST_RUNG, StudySpec, resolve_study
from autoprune.trial.pruned import pruned_model, recover_pruned
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import load_task, score

HERE = Path(__file__).parent
OUT = HERE.parent.parent / "reports" / "rungs"
ORDERS = 50
CASES = {
    # task, rungs, fine-tune steps of the whole trial
    "digits": ("autoprune.examples.digits:task", [{"samples": 50}, {"samples": 150}, {}, {"finetune_steps": 5}], 30),
    "resnet20": (f"{HERE}/resnet20.py:task", [{"samples": 100}, {"samples": 300}, {}, {"finetune_steps": 5}], 20),
    "dscnn": (f"{HERE}/dscnn.py:task", [{"samples": 50}, {"samples": 150}, {}, {"finetune_steps": 5}], 20),
}


def runner_of(name, samples=256):
    reference, rungs, steps = CASES[name]
    spec = resolve_study(
        StudySpec(
            task=reference,
            device="eyeriss",
            space="cnn-mixed",
            objectives=("accuracy_drop", "macs"),
            search={"rungs": rungs, "sampler": "tpe"},
            recovery={"batchnorm_samples": samples, "finetune_steps": steps},
        )
    )
    directory = Path("runs") / name
    directory.mkdir(parents=True, exist_ok=True)
    return TrialRunner(load_task(reference, directory), spec)


def drawn(proposals, count, seed=0):
    """A ladder, and configs around levels between 10 % and 70 %: what a search proposes, good and bad."""
    rng = np.random.default_rng(seed)
    yield from (("uniform", proposals.config(proposals.uniform(s))) for s in np.linspace(0.1, 0.8, 8))
    for _ in range(count - 8):
        level, params = rng.uniform(0.1, 0.7), {}
        for knob in proposals.knobs:
            choices = knob.parameters()
            params[f"{knob.name}|method"] = choices[f"{knob.name}|method"][rng.integers(len(knob.methods))]
            if knob.sparsities:
                wanted = level + 0.2 * rng.standard_normal()
                params[f"{knob.name}|sparsity"] = min(knob.sparsities, key=lambda s: abs(s - wanted))
        yield "tpe", proposals.config(params)


def record(name, count):
    path = OUT / f"{name}.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    runner = runner_of(name)
    proposals = make_proposals(runner.spec.space, runner.graph, runner.recovery, 0, runner.book)
    dense = runner.run_dense(0)
    for number, (origin, config) in enumerate(drawn(proposals, count), start=1):
        if number < len(lines):
            continue
        if not lines:
            lines.append(json.dumps(about(runner, dense, name)))
        rungs, values = [], {}
        for rung in range(len(runner.rungs) + 1):
            done = runner.run(config, number, origin, dense, rung)
            seconds = done.timings.total_s - done.timings.latency_s
            if done.rungs:
                rungs.append(done.rungs[0].model_copy(update={"seconds": seconds}))
            else:
                values = {key: done.values[key] for key in ("accuracy_drop", "macs")}
                rungs.append(
                    RungRecord(name=LAST_RUNG, score=done.score, drop=values["accuracy_drop"], seconds=seconds)
                )
        row = {"origin": origin, "macs": values["macs"], "rungs": [rung.to_data() for rung in rungs]}
        lines.append(json.dumps(row))
        path.write_text("\n".join(lines) + "\n")
        print(name, number, [round(rung.drop, 4) for rung in rungs], flush=True)


def about(runner, dense, name):
    """The dense model, and what its batch norm does after pruning, without any fine-tuning."""
    rows = []
    proposals = make_proposals(runner.spec.space, runner.graph, runner.recovery, 0, runner.book)
    norms = runner.recovery.batchnorm_samples
    for sparsity in (0.0, 0.2, 0.4, 0.6) if norms else ():
        row = {"sparsity": sparsity}
        for how, changes in (
            ("as trained", {"batchnorm_samples": 0}),
            ("recalibrate", {"batchnorm": None}),
            ("shift", {"batchnorm": "shift"}),
        ):
            config = proposals.config(proposals.uniform(sparsity))
            recovery = config.recovery.model_copy(update={"finetune_steps": 0, **changes})
            config = config.model_copy(update={"recovery": recovery})
            pruned = pruned_model(runner.model, runner.graph, runner.book, config)
            recover_pruned(pruned, config, runner.data)
            row[how] = score(runner.task.evaluate, pruned.model, "evaluate")
        rows.append(row)
    return {"name": name, "score": dense.score, "macs": dense.values["macs"], "samples": norms, "batchnorm": rows}


def trial_of(number, row):
    rungs = tuple(RungRecord(**rung) for rung in row["rungs"])
    return TrialRecord(number=number, state="complete", origin=row["origin"], values={"macs": row["macs"]}, rungs=rungs)


def replay(spec, dense, rows):
    """Many orders of the recorded trials: share stopped below the last rung, seconds, hypervolume kept."""
    whole = [trial_of(number, row) for number, row in enumerate(rows, start=1)]
    best = volume(whole, dense)
    found = []
    for seed in range(ORDERS):
        rng = np.random.default_rng(seed)
        later = [t for t in whole if t.origin != "uniform"]
        order = [t for t in whole if t.origin == "uniform"] + [later[i] for i in rng.permutation(len(later))]
        rungs, seen, kept, seconds = Rungs(spec), [], [], 0.0
        for trial in order:
            for reached in range(1, len(trial.rungs) + 1):
                seconds += trial.rungs[reached - 1].seconds
                part = trial.model_copy(update={"rungs": trial.rungs[:reached]})
                if reached == len(trial.rungs):
                    kept.append(trial)
                elif rungs.verdict(part, seen):
                    break
            seen.append(part)
        alone = sum(t.rungs[-1].seconds for t in whole)
        stopped = (len(whole) - len(kept)) / len(later)
        found.append((stopped, seconds / alone, volume(kept, dense) / best))
    return [mean(column) for column in zip(*found, strict=True)]


def volume(trials, dense):
    points = np.array([(max(t.rungs[-1].drop, 0.0) / dense["score"], t.values["macs"] / dense["macs"]) for t in trials])
    return hypervolume(points[nondominated(points)], [1.0, 1.0])


def ladders(rungs):
    """The rungs one might use: one of them, or the cheapest with the dearest."""
    single = [[rung] for rung in rungs]
    return [*single, [rungs[0], rungs[2]], [rungs[1], rungs[3]], rungs]


def table():
    parts = [HEAD]
    for name in CASES:
        path = OUT / f"{name}.jsonl"
        if not path.exists():
            continue
        dense, *rows = map(json.loads, path.read_text().splitlines())
        names = [rung["name"] for rung in rows[0]["rungs"]]
        last = [row["rungs"][-1]["drop"] for row in rows]
        parts.append(
            f"\n## {name}\n\n{len(rows)} configs; dense {100 * dense['score']:.1f} %; the whole trial fine-tunes "
            f"{CASES[name][2]} steps.\n\n| rung | rank correlation with the whole trial | median seconds | of whole |\n"
            "|:--|--:|--:|--:|"
        )
        cost = [median(row["rungs"][place]["seconds"] for row in rows) for place in range(len(names))]
        for place, rung in enumerate(names):
            here = [row["rungs"][place]["drop"] for row in rows]
            parts.append(
                f"| {rung} | {spearman(here, last):.2f} | {cost[place]:.2f} | {100 * cost[place] / cost[-1]:.0f} % |"
            )
        parts.append("\n| rungs before the whole trial | stopped | seconds | hypervolume |\n|:--|--:|--:|--:|")
        for rungs in ladders(CASES[name][1]):
            spec = StudySpec(
                task="a:b",
                space="channels",
                objectives=("accuracy_drop", "macs"),
                search={"rungs": rungs},
                recovery={"finetune_steps": CASES[name][2]},
            )
            wanted = [rung.name for rung in spec.search.rungs] + [LAST_RUNG]
            short = [row | {"rungs": [r for r in row["rungs"] if r["name"] in wanted]} for row in rows]
            stopped, seconds, kept = replay(spec, dense, short)
            parts.append(
                f"| {', '.join(wanted[:-1])} | {100 * stopped:.0f} % | {100 * seconds:.0f} % | {100 * kept:.1f} % |"
            )
        if dense["batchnorm"]:
            parts.append(
                f"\nScore with batch norm as trained, recalibrated on {dense['samples']} samples, shifted on them:\n\n"
                "| channels gone everywhere | as trained | recalibrate | shift |\n|--:|--:|--:|--:|"
            )
            for row in dense["batchnorm"]:
                shown = (f"{100 * row[how]:.1f} %" for how in ("as trained", "recalibrate", "shift"))
                parts.append(f"| {100 * row['sparsity']:.0f} % | {' | '.join(shown)} |")
    (OUT / "README.md").write_text("\n".join(parts) + "\n")


HEAD = """# What cheap rungs are worth

The same configs of the space `cnn-mixed` (a uniform ladder, and draws around levels from 10 to 70 %) were scored on
every rung and whole. The upper table says how each rung orders them: only where the correlation is high may a rung
decide. The lower one replays them in 50 orders, ladder first, as a search with those rungs would have met them: the
share of the drawn ones that is stopped, the seconds of all rungs against those of the whole trials alone, and the
hypervolume of what came through against that of all. Seconds were taken beside other work:
only their ratios mean something.

Whether a rung pays depends on what recovery does. On ResNet-20 twenty steps mend little, 100 images order the configs
almost as the whole trial does (0.95), and nine in ten of the drawn ones are stopped without a loss. On digits thirty
steps mend nearly everything, no rung foretells it, the margin grows until next to nobody is stopped, and the rungs are
time lost. So a study has no rungs unless it asks, and its own report says what they were worth. The drawn configs are
mostly worse than the ladder here, as weight patterns save no MACs; a sampler's are nearer to the front, and fewer of
them are stopped.

The statistics of batch norm: shifted, the dense network stays exactly what it was, and what lost little is never worse
by more than 0.2 points and up to 31 points better (DS-CNN, which has few and other samples to calibrate on).

```
python tests/benchmarks/rungs.py record digits resnet20 dscnn --data FOLDER
python tests/benchmarks/rungs.py table
```"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["record", "table"])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--data", type=Path, help="folder of data, weights and nets")
    parser.add_argument("--configs", type=int, default=24)
    given = parser.parse_args()
    torch.manual_seed(0)
    OUT.mkdir(parents=True, exist_ok=True)
    if given.data is not None:
        os.environ["AUTOPRUNE_DATA"] = str(given.data)
        sys.path.insert(0, str(given.data / "nets"))
    if given.what == "record":
        for name in given.names:
            record(name, given.configs)
    table()


if __name__ == "__main__":
    main()
