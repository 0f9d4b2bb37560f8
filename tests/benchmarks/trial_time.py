"""Where the wall time of one trial goes: runs a study and prints a Markdown table.

    AUTOPRUNE_DATA=DATA PYTHONPATH=DATA/nets python tests/benchmarks/trial_time.py STUDY.yaml [--trials 24]

Each part is the median over the trials that the sampler proposed and that were run whole.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from autoprune import Study, load_study, load_task
from autoprune.spec.record import Timings

MEASURES = ("evaluate_s", "latency_s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("--trials", type=int, default=24)
    arguments = parser.parse_args()
    spec = load_study(arguments.study)
    spec = spec.model_copy(update={"search": spec.search.model_copy(update={"trials": arguments.trials})})
    with tempfile.TemporaryDirectory() as folder:
        study = Study(load_task(spec.task, Path(folder)), spec, folder)
        study.run()
        records = study.records()
    trials = [t for t in records.trials if t.origin == spec.search.sampler and t.score is not None]
    total = statistics.median(t.timings.total_s for t in trials)
    print("| part | median s | share |\n|:--|--:|--:|")
    overhead = 0.0
    for name in Timings.model_fields:
        seconds = statistics.median(getattr(t.timings, name) for t in trials)
        overhead += 0.0 if name in MEASURES else seconds
        if seconds < 5e-4:
            continue  # a part that this study does not have
        print(f"| {name.removesuffix('_s')} | {seconds:.3f} | {seconds / total:.1%} |")
    print(f"| **trial** | **{total:.3f}** | |")
    print(f"| **all but evaluation and latency** | **{overhead:.3f}** | **{overhead / total:.1%}** |")
    print(f"\n{len(trials)} trials of {spec.search.sampler}, {records.study.machine}.")


if __name__ == "__main__":
    main()
