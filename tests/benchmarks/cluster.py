"""What a cluster costs: overhead of trivial trials, the driver as a study grows, 256 simulated workers, a busy meter.

    OMP_NUM_THREADS=1 .venv/bin/python -m tests.benchmarks.cluster -o reports/cluster/README.md

Takes about eleven minutes on two quiet cores; ``--only load`` renews one section, ``--quick`` only shows that it runs.
Needs the extras ``ray`` and ``examples``. What was measured is printed at once, section by section.
"""

# ruff: noqa: E402 - Ray reads the environment when it is imported

import argparse
import heapq
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path

TESTS = Path(__file__).parent.parent
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_worker_niceness="0",
    PYTHONPATH=os.pathsep.join((str(TESTS.parent), str(TESTS), str(TESTS / "search"))),
)

import numpy as np
import optuna
import torch

sys.path[:0] = [str(TESTS), str(TESTS / "search")]

from autoprune.cost.host import machine_title
from autoprune.examples.digits import DigitsNet
from autoprune.search.study import Study
from autoprune.spec.record import TrialRecord, read_records
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec
from autoprune.trial.groundwork import PackedNetwork
from autoprune.trial.runner import TrialRunner
from autoprune.trial.task import Task

TRIAL_S = (3.0, 30.0, 300.0)
WORKERS = (4, 16, 64, 256)
LOAD_S, HALF_WIDTH, TURNS = 1.0, 0.005, 15
"""Budget and wanted precision of each measurement beside busy cores, and how often each is made: a host drifts."""

LEAST = 3
"""Measurements at full speed that a median needs at least."""

LOADS = ("quiet", "quiet again", "busy")

ROUNDS = 4
"""Trials of a simulated study for each of its workers."""


def spec_of(trials: int, executor: object = "local", sampler: str = "random", device: str = "raspberry-pi-4"):
    return StudySpec.model_validate(
        {
            "schema": "autoprune/study/1",
            "task": "small_task:task",
            "device": device,
            "space": "channels",
            "objectives": ["accuracy_drop", "macs"],
            "search": {"sampler": sampler, "trials": trials, "seed": 0},
            "latency": {"survey_s": 0},
            "executor": executor,
        }
    )


def overhead(trials: int) -> list[str]:
    """Seconds per trial of a network that is scored in milliseconds, its latency modelled."""
    import ray
    import small_task

    rows = []
    for workers in (0, 1, 2, 4):
        executor = {"ray": {"address": "local", "workers": workers}} if workers else "local"
        if workers:
            ray.init(
                address="local", num_cpus=workers, include_dashboard=False, logging_level="ERROR", log_to_driver=False
            )
        with tempfile.TemporaryDirectory() as directory:
            marks = []
            study = Study(small_task.task(), spec_of(trials, executor), directory)
            began = time.perf_counter()
            study.run(lambda p, marks=marks: marks.append(time.perf_counter()))
            records = study.records().trials
        if workers:
            ray.shutdown()
        own = np.median([r.timings.total_s - r.timings.propose_s - r.timings.record_s for r in records])
        start = marks[1] - began
        each = (marks[-1] - marks[1]) / (trials - 1)
        name = f"Ray, {workers} worker{'s' * (workers > 1)}" if workers else "local"
        rows.append(f"| {name} | {each * 1e3:.0f} | {own * 1e3:.0f} | {start:.1f} |")
    return rows


def growth(counts: list[int], sampler: str, shared: bool = False) -> list[str]:
    """The driver alone: trials that cost nothing, asked and told through the study's own books."""
    from stub_study import StubRunner, make

    import autoprune.search.study as study_module

    kept, study_module.TrialRunner = study_module.TrialRunner, StubRunner
    rows: list[str] = []
    try:
        with tempfile.TemporaryDirectory() as directory:
            storage = f"sqlite:///{directory}/shared.db" if shared else None
            study = make(directory, trials=counts[-1], sampler=sampler, storage=storage)
            name = f"{sampler}, storage in common" if shared else sampler
            last = [time.perf_counter()]
            spans: list[float] = []

            def see(progress, spans=spans, last=last):
                spans.append(time.perf_counter() - last[0])
                last[0] = time.perf_counter()
                if progress.finished in counts:
                    memory = _rss_mb()
                    each = np.median(spans[-min(50, len(spans)) :])
                    rows.append(f"| {name} | {progress.finished:,} | {each * 1e3:.0f} | {memory:.0f} |")

            study.run(see)
    finally:
        study_module.TrialRunner = kept
    return rows


def _rss_mb() -> float:
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def scaling(sampler: str, recorded: list[float], workers: tuple[int, ...], together: int, limit: int) -> list[str]:
    """Run a study with so many trials in flight, and replay what it took the driver beside trials that take time.

    Of these trials ``together`` end at the same moment, as they do where the driver is behind.
    """
    import autoprune.search.study as study_module
    from autoprune.search.loop import Loop

    kept, study_module.TrialRunner = study_module.TrialRunner, CostedRunner
    rows = []
    shape = np.array(recorded) / np.mean(recorded)
    try:
        for count in workers:
            trials = min(ROUNDS * count, limit) if limit else ROUNDS * count
            with tempfile.TemporaryDirectory() as directory:
                spec = spec_of(trials, sampler=sampler)
                spec = spec.model_copy(update={"space": CHANNELS})
                study = Study(digits_task(), spec, directory)
                with study.books() as ledger:
                    ledger.resume()
                    executor = SimulatedCluster(study.runner, count, together)
                    Loop(ledger, executor, study.spec.search, lambda _: None).run()
            each = executor.driven[2:]  # the dense model goes alone
            each = [float(np.mean(each))] * len(each) if together > 1 else each
            parts = [f"{100 * busy(each, count, mean * shape):.0f} %" for mean in TRIAL_S]
            most = [f"{mean / np.mean(each):,.0f}" for mean in TRIAL_S]
            both = " | ".join(f"{part} (of at most {limit})" for part, limit in zip(parts, most, strict=True))
            rows.append(f"| {sampler} | {count} | {together} | {1e3 * np.mean(each):.0f} | {both} |")
    finally:
        study_module.TrialRunner = kept
    return rows


CHANNELS = SpaceSpec.model_validate(
    {
        "schema": "autoprune/space/1",
        "name": "channels-l2",
        "rules": [
            {"granularity": "channel", "criterion": "magnitude_l2", "sparsity": {"low": 0.0, "high": 0.8, "step": 0.1}}
        ],
    }
)


class CostedRunner(TrialRunner):
    """Costs configs of the digits network, and scores them by their sparsities."""

    def run_dense(self, number):
        return self.record(self.score_dense(number), self.modelled(self._dense_costs), None)

    def run(self, config, number, origin, dense, rung=None):
        gone = sum(choice.fraction**2 for _, choice in config.choices()) / len(self.graph.groups)
        values = {"macs": self.costs.of_config(config).values["macs"], "accuracy_drop": gone / 2}
        shared = {"number": number, "state": "complete", "origin": origin, "config": config}
        return TrialRecord(**shared, values=values, score=1 - gone / 2)


def busy(driven: list[float], workers: int, seconds) -> float:
    """Return the part of the time in which workers work, when one driver hands out trials one after the other.

    Args:
        driven: Seconds of the driver for each trial: to take the one that ended, and propose the next.
        workers: How many there are.
        seconds: Of trials, again and again.
    """
    free = [(0.0, number) for number in range(workers)]
    now, worked, turn, until = 0.0, 0.0, 0, 100 * workers
    while turn < until:
        at, number = heapq.heappop(free)
        now = max(now, at) + driven[turn % len(driven)]
        takes = seconds[turn % len(seconds)]
        heapq.heappush(free, (now + takes, number))
        worked += takes
        turn += 1
    return worked / (workers * max(at for at, _ in free))


class SimulatedCluster:
    """An executor whose trials take no time, with so many in flight; it notes what the driver takes between them."""

    has_meter = False

    def __init__(self, runner, workers: int, together: int) -> None:
        self.capacity, self.driven, self.ended = workers, [], 0
        self._together = together
        self._runner, self._jobs = runner, []
        self._left = time.perf_counter()

    def submit(self, job) -> None:
        self._jobs.append(job)

    def wait(self):
        from autoprune.search.local import run_job

        self.driven.append(time.perf_counter() - self._left)
        self.ended = (self.ended or min(self._together, len(self._jobs))) - 1
        job = self._jobs.pop(0)
        record = run_job(self._runner, job)
        self._left = time.perf_counter()
        return job, record

    def close(self) -> None:
        pass


def under_load(networks: int, budget_s: float, turns: int) -> list[str]:
    """Ratios of the meter actor with the other cores idle, idle once more, and with a worker computing on each.

    The three take turns, in an order that turns round each time, so that a host that drifts favours none.
    """
    import ray

    from autoprune.search.ray import cluster
    from autoprune.search.ray.actors import MeterActor, Setup

    torch.manual_seed(0)
    inputs = torch.randn(1, 1, 8, 8)
    task = Task(model=DigitsNet().eval(), example_inputs=inputs, evaluate=lambda model: 1.0)
    spec = spec_of(1, device="local-cpu").model_copy(update={"task": "tests.benchmarks.cluster:digits_task"})
    latency = spec.latency.model_copy(update={"budget_s": budget_s, "wait_s": budget_s, "half_width": HALF_WIDTH})
    spec = spec.model_copy(update={"space": CHANNELS, "latency": latency})
    from autoprune.search.proposals import make_proposals
    from autoprune.spec.study import resolve_study

    spec = resolve_study(spec)
    runner = TrialRunner(task, spec, metered=False)
    proposals = make_proposals(spec.space, runner.graph, runner.recovery, 0, runner.book)
    packed = []
    dense = runner.score_dense(0).record
    for step in range(networks):
        config = proposals.config(proposals.uniform(0.1 + 0.7 * step / max(networks - 1, 1)))
        packed.append(PackedNetwork.of(runner.score(config, step + 1, "uniform", dense).model))
    cores = os.cpu_count() or 1
    ray.init(address="local", num_cpus=cores, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    setup = ray.put(Setup(spec, runner.groundwork, tempfile.gettempdir(), os.getcwd(), cluster.versions_here()))
    meter = ray.remote(MeterActor).options(num_cpus=1).remote(setup)
    place = ray.get(meter.start.remote())
    if isinstance(place, Exception):
        raise place

    flag = Path(tempfile.mkdtemp()) / "burn"
    burners = [_burner(ray, str(flag), place.cores) for _ in range(max(cores - 1, 1))]
    rows: list[list[list[float]]] = []
    ray.get(meter.measure.remote(None, None))
    for network in packed:
        found: dict[str, list[float]] = {load: [] for load in LOADS}
        for turn in range(turns):
            for load in (*LOADS[turn % 3 :], *LOADS[: turn % 3]):
                if load == "busy":
                    flag.touch()
                    time.sleep(0.5)
                measured = ray.get(meter.measure.remote(network, None))
                flag.unlink(missing_ok=True)
                time.sleep(0.1)
                assert measured.latency is not None, measured.error
                if measured.latency.speed is None:  # else the record says itself that the host was slow throughout
                    found[load].append(measured.latency.ratio)
        rows.append([found[load] for load in LOADS])
        print(len(rows), *(f"{np.median(each):.4f} ({len(each)})" for each in rows[-1]), flush=True)
    for burner in burners:
        ray.cancel(burner, force=True)
    ray.shutdown()
    return _load_rows(rows, turns)


def _burner(ray, flag: str, leave: tuple[int, ...]):
    """Start a task that evaluates the digits network without a pause on other cores, while the file ``flag`` exists."""

    @ray.remote(num_cpus=0)
    def burn() -> None:
        left = os.sched_getaffinity(0) - set(leave)
        os.sched_setaffinity(0, left or os.sched_getaffinity(0))
        torch.set_num_threads(1)
        model, data = DigitsNet().eval(), torch.randn(450, 1, 8, 8)
        with torch.no_grad():
            while True:
                if os.path.exists(flag):
                    model(data)
                else:
                    time.sleep(0.02)

    return burn.remote()


def _load_rows(rows: list[list[list[float]]], turns: int) -> list[str]:
    """Return the rows of the table of ratios of each network: quiet, quiet again, busy."""
    lines, changes = [], []
    for number, row in enumerate(rows, 1):
        middle = [float(np.median(each)) if len(each) >= min(LEAST, turns) else float("nan") for each in row]
        # Standard error of a median of normal values.
        errors = [1.253 * np.std(each, ddof=1) / len(each) ** 0.5 / np.median(each) if each[1:] else 0 for each in row]
        changed = [middle[n] / middle[0] - 1 for n in (1, 2)]
        spread = [2 * float(np.hypot(errors[0], errors[n])) for n in (1, 2)]
        changes.append(changed)
        cells = (
            *(f"{ratio:.3f}" for ratio in middle),
            *(f"{change:+.1%} ± {two:.1%}" for change, two in zip(changed, spread, strict=True)),
            ", ".join(str(len(each)) for each in row),
        )
        lines.append(f"| {number} | {' | '.join(cells)} |")
    worst = " | ".join(f"{each:.1%}" for each in np.nanmax(np.abs(changes), axis=0))
    return [*lines, f"| worst | | | | {worst} | |"]


def digits_task() -> Task:
    """The digits network without its data: the meter needs no more."""
    torch.manual_seed(0)
    return Task(model=DigitsNet().eval(), example_inputs=torch.randn(1, 1, 8, 8), evaluate=lambda model: 1.0)


def recorded_times(path: Path) -> list[float]:
    """Return the seconds of the trials of a real study."""
    return [r.timings.total_s for r in read_records(path).trials if r.state == "complete" and r.score is not None]


def overhead_section(quick: bool, _: Path) -> str:
    trials = 20 if quick else 200
    return f"""## Overhead of a trivial trial

The small network of the tests, its latency modelled; milliseconds of wall time per trial of {trials}.
"Own work" is a trial without proposal and bookkeeping. Until the first trial, workers start and import torch.

| executor | ms per trial | own work, ms | seconds to the first trial |
|---|---|---|---|
{chr(10).join(overhead(trials))}
"""


def growth_section(quick: bool, _: Path) -> str:
    rows = growth([20, 40] if quick else [100, 1000, 5000], "random")
    rows += growth([20, 40] if quick else [100, 500], "tpe")
    rows += growth([20, 40] if quick else [100, 1000], "random", shared=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return f"""## The driver as a study grows

Trials that cost nothing; what is left is asking, telling and keeping records in SQLite, last in a file that other
drivers may share: there the driver reads what they have done, six times a trial. Median of the last 50 trials.

| sampler | trials | ms per trial | memory of the driver, MB |
|---|---|---|---|
{chr(10).join(rows)}

Peak of the process: {peak:.0f} MB.
"""


def many_section(quick: bool, records: Path) -> str:
    times = recorded_times(records)
    scale: list[str] = []
    runs = (("random", WORKERS, 1), ("tpe", WORKERS, 1), ("greybox", WORKERS[:3], 1), ("greybox", WORKERS[1:], 8))
    for sampler, workers, together in runs:
        scale += scaling(sampler, times, workers[:2] if quick else workers, together, 24 if quick else 0)
    return f"""## Many workers

Studies with so many trials in flight, four for each worker, whose trials take no time: what is left is the driver's
time for each trial (propose, settle, keep books). With these times one driver is simulated that hands out trials of the
shape that ResNet-20's study recorded: how busy the workers are, and (in brackets) how many workers keep one driver
busy. Where the driver is behind, several trials end before it proposes again; `greybox` then chooses as many together.

| sampler | workers | end together | driver, ms a trial | {" | ".join(f"trials of {s:.0f} s" for s in TRIAL_S)} |
|---|---|---|---|---|---|---|
{chr(10).join(scale)}

The driver saturates where the number in brackets is passed. Against that: batches, trials that take longer (the usual
case), `random` or `qmc`, or several drivers on one storage.
"""


def load_section(quick: bool, _: Path) -> str:
    rows = under_load(2 if quick else 6, 0.3 if quick else LOAD_S, 1 if quick else TURNS)
    return f"""## The meter beside busy cores

The digits network pruned uniformly, batch 1, one thread; ratio to dense with the other cores idle, idle once more (what
the meter's own repeats differ by), and with a worker on each of them that computes without a pause. In turns, each
{TURNS} times until ±{HALF_WIDTH:.1%} or for {LOAD_S:g} s, twice that where the host runs slow meanwhile. Medians of
those that the meter did not mark as made while the host was slow throughout (*counted*), ± two standard errors.

| network | quiet | quiet again | busy | quiet again against quiet | busy against quiet | counted |
|---|--:|--:|--:|--:|--:|--:|
{chr(10).join(rows)}
"""


SECTIONS = {"overhead": overhead_section, "growth": growth_section, "many": many_section, "load": load_section}


def renewed(text: str, sections: list[str]) -> str:
    """Return the report with some of its sections in the place of those with the same heading."""
    parts = ["## " + part for part in text.split("\n## ")]
    parts[0] = parts[0].removeprefix("## ")
    for section in sections:
        heading = section.partition("\n")[0]
        places = [place for place, part in enumerate(parts) if part.partition("\n")[0] == heading]
        assert places, f"the report has no section {heading!r} yet; make it whole first"
        parts[places[0]] = section
    return "\n".join(part if part.endswith("\n") else part + "\n" for part in parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="renew these sections of the report alone")
    parser.add_argument("--records", type=Path, default=Path("reports/resnet20-cifar10/records.jsonl"))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    torch.set_num_threads(1)
    made: list[str] = []
    for name in options.only or SECTIONS:
        made.append(SECTIONS[name](options.quick, options.records))
        print(made[-1], flush=True)
    heading = f"""# What a cluster costs

Made by `OMP_NUM_THREADS=1 .venv/bin/python -m tests.benchmarks.cluster -o reports/cluster/README.md` on
{machine_title()}; torch {torch.__version__}. Faults, one a row: [faults.md](faults.md).
"""
    text = renewed(options.output.read_text(), made) if options.only else "\n".join((heading, *made))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text)


if __name__ == "__main__":
    main()
