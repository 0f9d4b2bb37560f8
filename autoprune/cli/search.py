"""``autoprune search``."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.text import Text

from autoprune.cli.streams import err, out
from autoprune.errors import AutopruneError, RunError, UsageError

if TYPE_CHECKING:
    from autoprune.search.loggers.guard import Loggers
    from autoprune.search.loop import Progress as StudyProgress
    from autoprune.search.study import Study
    from autoprune.spec.record import RunRecords
    from autoprune.spec.study import StudySpec


@click.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run directory  [default: runs/<name of STUDY>]")
@click.option("--trials", type=click.IntRange(min=1), help="Finished trials wanted, instead of the study's.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed, instead of the study's.")
@click.option(
    "--log",
    "places",
    multiple=True,
    metavar="KEY:WHERE",
    help="Tell trials to mlflow:URI or tensorboard:FOLDER too; may be repeated.",
)
@click.option("--executor", help="Where trials run, instead of the study's: local, ray, or a plug-in's key.")
@click.option("--ray-address", help="Cluster of executor ray: auto, HOST:PORT, or local.")
@click.option("--detach", is_flag=True, help="Hand the search to the cluster as a Ray job, and return.")
def search(
    study: Path,
    output: Path | None,
    trials: int | None,
    seed: int | None,
    places: tuple[str, ...],
    executor: str | None,
    ray_address: str | None,
    detach: bool,
) -> None:
    """Run the study in STUDY (a YAML file), or go on with it.

    A search ends when its trials are done, or before by what STUDY says under search: timeout (wall time), budget
    (trial time), patience (trials without a gain). It may climb rungs and start from earlier runs (rungs, warm_start).

    The run directory gets study.yaml, study.db, records.jsonl and report/. Killing the process loses at most the trial
    in flight; the same command goes on.
    """
    from autoprune.spec.study import load_study

    spec = load_study(study)
    changes = {key: value for key, value in (("trials", trials), ("seed", seed)) if value is not None}
    spec = spec.model_copy(update={"search": spec.search.model_copy(update=changes)})
    spec = _placed(spec, executor, ray_address)
    directory = output or Path("runs") / study.stem

    from autoprune.search.loggers.guard import parsed_place

    for place in places:
        parsed_place(place)
    _check_executor(spec)
    if detach:
        if places:
            raise UsageError("--log is told by the process that searches, which --detach leaves; give one of the two")
        _detach(spec, directory)
        return
    run = _prepared(spec, directory)
    logs = _loggers(places, run)
    _search(run, logs)
    if run.stopped:
        err.print(f"Search ended early: {run.stopped}.", soft_wrap=True)
    if not (directory / "records.jsonl").is_file():
        raise RunError("the search was stopped before the dense model was measured; run the same command again")
    records = run.records()
    logs.catch_up(records.trials)
    logs.close(records)
    _tell_front(records, directory)


def _check_executor(spec: StudySpec) -> None:
    from autoprune.search.executors import EXECUTORS
    from autoprune.spec.executor import LOCAL, executor_key

    key = executor_key(spec.executor)
    if key != LOCAL:
        EXECUTORS.get(key).check(spec)


def _prepared(spec: StudySpec, directory: Path) -> Study:
    from autoprune.search.study import Study
    from autoprune.trial.task import load_task

    with err.status("Loading the task, tracing the model, checking surgery on it ..."):
        directory.mkdir(parents=True, exist_ok=True)
        run = Study(load_task(spec.task, directory), spec, directory)
    graph = run.runner.graph
    told = f"{len(graph.layers)} layers, {len(graph.groups)} groups of coupled channels; {run.runner.proof}."
    err.print(told, soft_wrap=True)
    return run


def _loggers(places: tuple[str, ...], run: Study) -> Loggers:
    from autoprune.search.loggers import LoggedRun
    from autoprune.search.loggers.guard import Loggers

    def warn(said: str) -> None:
        err.print(Text(f"Note: {said}."), soft_wrap=True)

    return Loggers(places, LoggedRun(run.directory, run.spec), warn)


def _search(run: Study, logs: Loggers) -> None:
    """Run the trials; whatever ends the search, what is recorded by then gets its report."""
    from autoprune.results.report import write_report
    from autoprune.search.loggers import Standing

    with ExitStack() as at_exit:
        at_exit.callback(logs.close, None)
        try:
            with _progress_bar(run.spec.search.trials) as show:

                def tell(progress: StudyProgress) -> None:
                    show(progress)
                    if progress.last is not None:
                        logs.log(progress.last, Standing(progress.front_size, progress.hypervolume))

                run.run(tell, lambda sentence: err.print(sentence, soft_wrap=True, highlight=False, markup=False))
        except UsageError:
            raise
        except Exception:  # a task or a plug-in may raise anything; it is raised on
            with suppress(AutopruneError, OSError):  # what went wrong first is what is told
                write_report(run.records(), run.directory / "report")
            raise
        at_exit.pop_all()


def _tell_front(records: RunRecords, directory: Path) -> None:
    from autoprune.results.report import write_report
    from autoprune.results.summary import headline
    from autoprune.results.table import front_table, to_rich

    paths = write_report(records, directory / "report")
    out.print(to_rich(front_table(records), out.width))
    told = headline(records)
    out.print()
    for sentence in (told.main, *told.more):
        out.print(Text(sentence), soft_wrap=True)
    out.print(Text(f"Report: {paths.html}"), soft_wrap=True)


def _placed(spec: StudySpec, executor: str | None, address: str | None) -> StudySpec:
    """Return the study with the executor that the command names."""
    from autoprune.spec.executor import RAY, executor_key, on_ray

    key = executor or executor_key(spec.executor)
    if address is not None and key != RAY:
        raise UsageError(f"--ray-address is for executor ray, and this search runs on {key!r}; add --executor ray")
    if key == RAY:
        return spec.model_copy(update={"executor": on_ray(spec.executor, {"address": address} if address else {})})
    return spec.model_copy(update={"executor": key}) if executor else spec


def _detach(spec: StudySpec, directory: Path) -> None:
    from autoprune.search.ray.submit import submit

    job = submit(spec, directory)
    out.print(
        Text(f"Job {job.name} runs on {job.dashboard}. 'autoprune status {directory}' tells how far it is."),
        soft_wrap=True,
    )


class _progress_bar:  # noqa: N801 - used as a context manager, like a function
    """A live bar on a terminal, one line a trial elsewhere: trials done, front size, hypervolume, time left."""

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._bar: Progress | None = None

    def __enter__(self) -> Callable[[StudyProgress], None]:
        if err.is_terminal:
            self._bar = Progress(
                TextColumn("trials"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=err,
                auto_refresh=False,  # a thread that redraws would run beside the measurements
            )
            self._task = self._bar.add_task("starting", total=self._trials)
            self._bar.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show(self, progress: StudyProgress) -> None:
        for warning in progress.warnings:
            err.print(Text(f"Note: {warning}."), soft_wrap=True)
        volume = "-" if progress.hypervolume is None else f"{progress.hypervolume:.3f}"
        text = f"front {progress.front_size}, hypervolume {volume}, {_time_left(progress)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.finished, description=text, refresh=True)
        elif progress.last is not None:
            state = "" if progress.last.state == "complete" else f" {progress.last.state},"
            err.print(f"trial {progress.finished}/{progress.wanted}:{state} {text}", highlight=False)


def _time_left(progress: StudyProgress) -> str:
    if not progress.done_here:
        return "time left unknown"
    seconds = progress.elapsed_s / progress.done_here * max(0, progress.wanted - progress.finished)
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} left"
