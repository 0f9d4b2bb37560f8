"""Race the samplers on real networks, and write the comparison.

    python -m tests.benchmarks.samplers run --data DIR --problem resnet20-channels --row tpe greybox [--seeds 0 1 2]
    python -m tests.benchmarks.samplers recover --data DIR --problem resnet20-channels
    python -m tests.benchmarks.samplers outside --data DIR --modelopt FOLDER --problem resnet20-channels
    python -m tests.benchmarks.samplers damage --data DIR --problem resnet20-channels digits-channels
    python -m tests.benchmarks.samplers table

A row is a sampler, or a variant of it: "greybox, no table" (without the damage table), "tpe, damage" (with the first
trials that follow from it), "tpe, plain" (without first trials but the dense model, repeats scored again).

``run`` appends to ``reports/samplers/recorded/PROBLEM.jsonl``; evaluations are kept in ``--work`` and made once.
``recover`` fine-tunes what rows pick at a share of the MACs and appends to ``reports/samplers/recovered/``.
``outside`` records Torch-Pruning's ladders (``--torch-pruning FOLDER``) and ModelOpt's FastNAS (``--modelopt FOLDER``).
``damage`` holds the damage table against single choices scored whole.
``table`` writes the pages of ``reports/samplers`` and their plots from what was recorded, in seconds.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import optuna
import torch

from autoprune.search.greybox.seeds import MOST_SEEDS, hopeless, seeds
from autoprune.search.opening import opening
from autoprune.search.samplers import SAMPLERS
from autoprune.spec.config import PruningConfig
from tests.benchmarks.sampling import damage, fastnas, outside, recovered
from tests.benchmarks.sampling.evaluations import Evaluations
from tests.benchmarks.sampling.problems import Problem
from tests.benchmarks.sampling.race import Make, race, read_run
from tests.benchmarks.sampling.table import read_probes, read_runs, write_table

REPORT = Path("reports/samplers")
TRIALS = {"gp": 100}


def maker(row: str) -> Make:
    """Return what makes the sampler of a row."""
    if row == "gp":
        return lambda request: optuna.samplers.GPSampler(seed=request.trial_seed)
    return SAMPLERS.get(row).make


def seed_params(evaluations: Evaluations, objectives: int) -> list[dict[str, Any]]:
    """Return the first trials that the damage table gives, as a study of 60 trials or more has them."""
    knowledge = evaluations.knowledge(objectives, damage=True)
    dense = evaluations.proposals.uniform(0.0)
    return [{**dense, **knowledge.domain.decode(row)} for row in seeds(knowledge, MOST_SEEDS)]


def run(options: argparse.Namespace) -> None:
    network, _, space = options.problem.partition("-")
    evaluations = Evaluations(Problem(network, space), options.data, options.work)
    first = opening(evaluations.proposals, evaluations.runner.graph, evaluations.runner.book, 320)
    path = options.out / "recorded" / f"{options.problem}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    done = {
        (known.row, known.objectives, known.seed)
        for known in map(read_run, path.read_text().splitlines() if path.exists() else [])
    }
    for seed in options.seeds:
        for row in options.row:
            if (row, options.objectives, seed) in done:
                continue
            sampler, _, variant = row.partition(", ")
            informed = sampler == "greybox" and variant != "no table"
            trials = min(options.trials, TRIALS.get(row, options.trials))
            params = [each.params for each in first[: 1 if variant == "plain" else None]]
            if informed:
                known = evaluations.knowledge(options.objectives, damage=True)
                params[1:] = [each for each in params[1:] if not hopeless(known, each)]
            if variant == "damage":
                params[1:1] = seed_params(evaluations, options.objectives)
            if informed or variant == "damage":
                evaluations.table  # noqa: B018 - made, or read
                cost = {"probes": len(evaluations.table.records), "seconds": round(evaluations.table_s, 2)}
                probes = {**read_probes(options.out), options.problem: cost}
                (options.out / "probes.json").write_text(json.dumps(probes, indent=1, sort_keys=True) + "\n")
            found = race(
                evaluations,
                row,
                maker(sampler),
                options.objectives,
                seed,
                trials,
                params,
                avoid_repeats=variant != "plain",
                damage=informed,
            )
            with path.open("a") as file:
                file.write(found.line() + "\n")
            print(
                f"{options.problem} {row} seed {seed}: ask {found.ask_s:.0f} s, evaluate {found.evaluate_s:.0f} s",
                flush=True,
            )


def recover_picks(options: argparse.Namespace) -> None:
    """Fine-tune what each row picks; what is recorded is not made again."""
    network, _, space = options.problem.partition("-")
    evaluations = Evaluations(Problem(network, space), options.data, options.work)
    runs = [r for r in read_runs(options.out / "recorded") if r.problem == options.problem and r.objectives == 2]
    path = options.out / "recovered" / f"{options.problem}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    have = {(each["row"], each["share"]) for each in known}
    for share in recovered.SHARES:
        picks: dict[str, list[tuple[PruningConfig, list[int]]]] = {
            "uniform": [(recovered.uniform_within(evaluations, share), options.seeds)],
            "threshold": [(recovered.threshold_within(evaluations, share)[0], options.seeds)],
        }
        for row in options.row:
            mine = {run.seed: run for run in runs if run.row == row}
            for seed in (seed for seed in options.seeds if seed in mine):
                code = recovered.best_within(mine[seed], share, 80)
                config = evaluations.proposals.config(recovered.params_of(evaluations.proposals, code))
                picks.setdefault(row, []).append((config, [seed]))
        for row, found in picks.items():
            if (row, share) in have:
                continue
            done = [recovered.recover(evaluations, row, share, config, seeds) for config, seeds in found]
            with path.open("a") as file:
                file.writelines(recovered.line_of(pick) + "\n" for pick in done)
            print(options.problem, share, row, [pick.recovered for pick in done], flush=True)


def record_outside(options: argparse.Namespace) -> None:
    """Record the tools that are given on a problem, anew; what was recorded of others stays."""
    network, _, space = options.problem.partition("-")
    evaluations = Evaluations(Problem(network, space), options.data, options.work)
    path = options.out / "outside" / f"{options.problem}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    steps = [outside.Step(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    if options.torch_pruning:
        steps = [step for step in steps if step.row.startswith("fastnas")]
        steps[:0] = outside.ladders(evaluations, options.torch_pruning)
    if options.modelopt:
        steps = [step for step in steps if not step.row.startswith("fastnas")]
        steps += fastnas.fastnas(evaluations, options.modelopt)
    path.write_text("".join(outside.line_of(step) + "\n" for step in steps))
    print(options.problem, *steps, sep="\n")


def record_damage(options: argparse.Namespace) -> None:
    """Hold the damage tables of problems against single choices scored whole."""
    runs, lines = read_runs(options.out / "recorded"), []
    for name in options.problem:
        network, _, space = name.partition("-")
        evaluations = Evaluations(Problem(network, space), options.data, options.work)
        lines.append(damage.line(evaluations, [run for run in runs if run.problem == name]))
        print(lines[-1], end="", flush=True)
    damage.write_page(lines, options.out)


def main() -> None:
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=REPORT)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("run")
    one.add_argument("--data", type=Path, required=True)
    one.add_argument("--work", type=Path, default=Path("runs/samplers"))
    one.add_argument("--problem", required=True)
    one.add_argument("--row", nargs="+", required=True)
    one.add_argument("--objectives", type=int, choices=(2, 4), default=2)
    one.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    one.add_argument("--trials", type=int, default=320)
    two = commands.add_parser("recover")
    two.add_argument("--data", type=Path, required=True)
    two.add_argument("--work", type=Path, default=Path("runs/samplers"))
    two.add_argument("--problem", required=True)
    two.add_argument("--row", nargs="+", default=["tpe", "greybox"])
    two.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    three = commands.add_parser("outside")
    three.add_argument("--data", type=Path, required=True)
    three.add_argument("--work", type=Path, default=Path("runs/samplers"))
    three.add_argument("--problem", required=True)
    three.add_argument("--torch-pruning", type=Path, help="folder that it was installed into")
    three.add_argument("--modelopt", type=Path, help="folder that NVIDIA ModelOpt was installed into")
    four = commands.add_parser("damage")
    four.add_argument("--data", type=Path, required=True)
    four.add_argument("--work", type=Path, default=Path("runs/samplers"))
    four.add_argument("--problem", nargs="+", required=True)
    commands.add_parser("table")
    options = parser.parse_args()
    if options.command == "table":
        write_table(read_runs(options.out / "recorded"), read_probes(options.out), options.out)
        recovered.write_page(options.out)
        outside.write_page(options.out, read_runs(options.out / "recorded"))
    elif options.command == "outside":
        record_outside(options)
    elif options.command == "damage":
        record_damage(options)
    elif options.command == "recover":
        recover_picks(options)
    else:
        run(options)


if __name__ == "__main__":
    main()
