"""The command ``autoprune``.

Exit codes: 0 success, 1 the run failed, 2 wrong use. An error is one readable sentence; ``--debug`` adds the traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from autoprune.errors import AutopruneError, RunDirectoryError, RunError, UsageError, one_line
from autoprune.spec.record import RunRecords, read_records, write_records, write_whole

if TYPE_CHECKING:
    from autoprune.search.study import Progress as StudyProgress
    from autoprune.trial.task import Task

_out = Console()
_err = Console(stderr=True)


def main() -> None:
    """Run the command and exit with its code."""
    debug = "--debug" in sys.argv
    try:
        code = command.main(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        _err.print("autoprune: interrupted")
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        _err.print(Text.assemble(("autoprune: error: ", "bold red"), _sentence(error)), soft_wrap=True)
        sys.exit(2 if isinstance(error, (UsageError, *_WRONG_PATHS)) else 1)


_WRONG_PATHS = (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)


def _sentence(error: Exception) -> str:
    if isinstance(error, AutopruneError):
        return str(error)
    if not isinstance(error, OSError):
        return f"{one_line(error)}; this is not foreseen: 'autoprune --debug ...' shows where it comes from"
    where = f" {error.filename2 or error.filename}" if error.filename else ""
    refusal = f"the system refused to read or write{where} ({error.strerror or error})"
    if isinstance(error, _WRONG_PATHS):
        return f"{refusal}; give another path"
    return f"{refusal}; free some space, then run the same command again: what was finished is kept"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="autoprune")
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
def command(debug: bool) -> None:
    """Search which layers of a trained network to prune, how much, and in which pattern, for a device."""


@command.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run directory  [default: runs/<name of STUDY>]")
@click.option("--devices", default="", metavar="A,B,C", help="Further devices to model the same network on.")
def profile(study: Path, output: Path | None, devices: str) -> None:
    """Show where time, bytes and energy go in the dense model of STUDY, and what pruning pays on its device.

    The run directory gets profile.html, profile.md and profile.json.
    """
    from autoprune.spec.study import load_study

    spec = load_study(study)
    directory = output or Path("runs") / study.stem

    from autoprune.results import profile_tables as tables
    from autoprune.results.profile_report import write_profile
    from autoprune.results.table import to_rich
    from autoprune.trial.profile.run import profile_study
    from autoprune.trial.task import load_task

    with _err.status("Running the network, its modules and pruned versions of them ..."):
        directory.mkdir(parents=True, exist_ok=True)
        others = [name.strip() for name in devices.split(",") if name.strip()]
        found = profile_study(load_task(spec.task, directory), spec, others, str(study))
    paths = write_profile(found, directory)
    shown = (tables.layer_table(found.device, most=12), *tables.findings(found))
    for table in shown:
        _out.print(to_rich(table, _out.width))
    for sentence in (tables.headline(found), f"Profile: {paths.html}", tables.next_step(found)):
        _out.print(Text(sentence), soft_wrap=True)


@command.command()
@click.argument("study", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Run directory  [default: runs/<name of STUDY>]")
@click.option("--trials", type=click.IntRange(min=1), help="Finished trials wanted, instead of the study's.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed, instead of the study's.")
def search(study: Path, output: Path | None, trials: int | None, seed: int | None) -> None:
    """Run the study in STUDY (a YAML file), or go on with it.

    The run directory gets study.yaml, study.db, records.jsonl and report/. Killing the process loses at most the trial
    in flight; the same command goes on.
    """
    from autoprune.spec.study import load_study

    spec = load_study(study)
    changes = {key: value for key, value in (("trials", trials), ("seed", seed)) if value is not None}
    spec = spec.model_copy(update={"search": spec.search.model_copy(update=changes)})
    directory = output or Path("runs") / study.stem

    from autoprune.results.report import write_report
    from autoprune.results.summary import headline
    from autoprune.results.table import front_table, to_rich
    from autoprune.search.study import Study
    from autoprune.trial.task import load_task

    with _err.status("Loading the task, tracing the model, checking surgery on it ..."):
        directory.mkdir(parents=True, exist_ok=True)
        task: Task = load_task(spec.task, directory)
        run = Study(task, spec, directory)
    groups, layers = run.runner.graph.groups, run.runner.graph.layers
    _err.print(f"{len(layers)} layers, {len(groups)} groups of coupled channels; {run.runner.proof}.")
    try:
        with _progress_bar(spec.search.trials) as show:
            run.run(show)
    except UsageError:
        raise
    except Exception:
        with suppress(AutopruneError, OSError):  # what went wrong first is what is told
            write_report(run.records(), directory / "report")
        raise
    if run.stopped:
        _err.print(f"Search ended early: {run.stopped}.", soft_wrap=True)
    if not (directory / "records.jsonl").is_file():
        raise RunError("the search was stopped before the dense model was measured; run the same command again")
    records = run.records()
    paths = write_report(records, directory / "report")
    _out.print(to_rich(front_table(records), _out.width))
    told = headline(records)
    _out.print()
    for sentence in (told.main, *told.more):
        _out.print(Text(sentence), soft_wrap=True)
    _out.print(Text(f"Report: {paths.html}"), soft_wrap=True)


class _progress_bar:  # noqa: N801 - used as a context manager, like a function
    """A live bar on a terminal, one line a trial elsewhere: trials done, front size, hypervolume, time left."""

    def __init__(self, trials: int) -> None:
        self._trials = trials
        self._bar: Progress | None = None

    def __enter__(self) -> Callable[[StudyProgress], None]:
        if _err.is_terminal:
            self._bar = Progress(
                TextColumn("trials"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeElapsedColumn(),
                console=_err,
                auto_refresh=False,  # a thread that redraws would run beside the measurements
            )
            self._task = self._bar.add_task("starting", total=self._trials)
            self._bar.start()
        return self._show

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _show(self, progress: StudyProgress) -> None:
        volume = "-" if progress.hypervolume is None else f"{progress.hypervolume:.3f}"
        text = f"front {progress.front_size}, hypervolume {volume}, {_time_left(progress)}"
        if self._bar is not None:
            self._bar.update(self._task, completed=progress.finished, description=text, refresh=True)
        elif progress.last is not None:
            state = "" if progress.last.state == "complete" else f" {progress.last.state},"
            _err.print(f"trial {progress.finished}/{progress.wanted}:{state} {text}", highlight=False)


def _time_left(progress: StudyProgress) -> str:
    if not progress.done_here:
        return "time left unknown"
    seconds = progress.elapsed_s / progress.done_here * max(0, progress.wanted - progress.finished)
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} left"


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder of the report  [default: DIRECTORY/report]"
)
def report(directory: Path, output: Path | None) -> None:
    """Render the report of a run DIRECTORY anew from its records."""
    from autoprune.results.report import write_report
    from autoprune.results.summary import headline

    records = _records(directory)
    paths = write_report(records, output or directory / "report")
    _out.print(Text(headline(records).main), soft_wrap=True)
    _out.print(Text(f"Report: {paths.html}"), soft_wrap=True)


def _records(directory: Path) -> RunRecords:
    """Read the records of a run: from its storage where that is at hand, else from ``records.jsonl``."""
    if not directory.is_dir():
        raise RunDirectoryError(f"{directory} is no directory; give the directory of a run of 'autoprune search'")
    try:
        from autoprune.search.storage import load_existing, shown_url, storage_errors
        from autoprune.search.study import read_study
    except ImportError:  # a bare machine re-renders from the records alone
        return read_records(directory / "records.jsonl")
    from autoprune.spec.document import load_document
    from autoprune.spec.study import StudySpec

    resolved = directory / "study.yaml"
    url = load_document(StudySpec, resolved).storage if resolved.is_file() else None
    with storage_errors(shown_url(url, directory)):
        study = load_existing(url, directory)
        records = read_study(study) if study is not None else None
    if study is not None and records is None:
        raise RunDirectoryError(f"{directory} holds no finished trial yet; run 'autoprune search' again to go on")
    if records is None:
        return read_records(directory / "records.jsonl")
    write_records(records, directory / "records.jsonl")
    return records


@command.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option(
    "--max", "maxima", multiple=True, metavar="METRIC=VALUE", help="Upper bound on a metric; may be repeated."
)
@click.option("--minimize", required=True, metavar="METRIC", help="Metric to minimise within the bounds.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Where the config goes  [default: standard output]"
)
def select(directory: Path, maxima: tuple[str, ...], minimize: str, output: Path | None) -> None:
    """Choose a config from the run DIRECTORY by bounds and one metric to minimise."""
    from autoprune.results.picks import select as choose
    from autoprune.results.table import to_rich, trial_table

    records = _records(directory)
    bounds = [_bound(text) for text in maxima]
    if len(dict(bounds)) < len(bounds):
        raise UsageError("--max bounds a metric twice; bound each once")
    trial = choose(records, dict(bounds), minimize)
    assert trial.config is not None
    _err.print(to_rich(trial_table(records, [trial], f"Trial {trial.number}"), _err.width))
    if output is None:
        click.echo(trial.config.to_yaml(), nl=False)
    else:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, trial.config.to_yaml())
        _err.print(Text(f"Config: {output}"), soft_wrap=True)


def _bound(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise UsageError(f"--max is {text!r}; give METRIC=NUMBER, as in --max accuracy_drop=0.01") from None


@command.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--task", "reference", required=True, metavar="MODULE:FUNCTION", help="The task, as in the study.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The safetensors file to write.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    help="Where the task keeps its files  [default: the run that the config names, if it is there]",
)
def apply(config: Path, reference: str, output: Path, directory: Path | None) -> None:
    """Build the smaller network of a CONFIG from the task's checkpoint, check it, and save it."""
    from autoprune.spec.config import load_config

    chosen = load_config(config)

    from autoprune.cost.macs import count_macs
    from autoprune.deploy.apply import apply as build
    from autoprune.deploy.save import load_pruned, save_pruned
    from autoprune.trial.task import load_task, score

    if directory is None and chosen.provenance is not None and chosen.provenance.run is not None:
        directory = Path(chosen.provenance.run) if Path(chosen.provenance.run).is_dir() else None
    task = load_task(reference, directory)
    smaller = build(
        task.model, chosen, task.example_inputs, batches=task.batches, loss=task.loss, finetune=task.finetune
    )
    output.parent.mkdir(parents=True, exist_ok=True)
    size = save_pruned(smaller, output, chosen)
    loaded = load_pruned(task.model, output)  # what is told is told of the file, as its user will load it
    table = Table("", "dense", "pruned", title="Applied", title_justify="left")
    for name, evaluate in (("validation score", task.evaluate), ("test score", task.test)):
        if evaluate is not None:
            before, after = (score(evaluate, model, "evaluate") for model in (task.model, loaded))
            table.add_row(name, f"{before:.4f}", f"{after:.4f}")
    macs = [count_macs(model, task.args, task.kwargs).total for model in (task.model, loaded)]
    table.add_row("MACs (example inputs)", *(f"{value:,}" for value in macs))
    sizes = [sum(parameter.numel() for parameter in model.parameters()) for model in (task.model, loaded)]
    table.add_row("parameters", *(f"{value:,}" for value in sizes))
    table.add_row("file", "", f"{size:,} B")
    _out.print(table)
    _out.print(Text(f"Saved: {output} (load with autoprune.load_pruned(model, {str(output)!r}))"), soft_wrap=True)


_KINDS = ("devices", "spaces", "criteria", "granularities", "runtimes", "samplers", "metrics", "schedules", "methods")


@command.command(name="list")
@click.argument("kind", type=click.Choice(_KINDS))
def list_(kind: str) -> None:
    """List what a study may name."""
    table = Table("key", "meaning", box=None, header_style="bold", pad_edge=False)
    for key, meaning in _entries(kind):
        table.add_row(Text(key), Text(meaning))
    _out.print(table)


def _entries(kind: str) -> list[tuple[str, str]]:
    if kind == "devices":
        from autoprune.spec.hardware import load_device
        from autoprune.spec.library import names

        profiles = [(name, load_device(name)) for name in names("hw_models")]
        return [(name, f"{p.title}; latency {'measured' if p.meters else 'modelled'}") for name, p in profiles]
    if kind == "spaces":
        from autoprune.spec.document import load_document
        from autoprune.spec.library import find, names
        from autoprune.spec.space import SpaceSpec

        found = [load_document(SpaceSpec, find("space", "search_spaces", name)) for name in names("search_spaces")]
        return [(space.name, space.description) for space in found]
    if kind == "criteria":
        from autoprune.pruning.criteria import CRITERIA

        return [
            (
                name,
                rule.summary
                + ("; needs batches and loss" if rule.needs_loss else "; needs batches" if rule.needs_data else "")
                + (f"; {', '.join(rule.granularities)} only" if rule.granularities else ""),
            )
            for name, rule in CRITERIA
        ]
    if kind == "granularities":
        from autoprune.pruning.granularity import catalogue

        return catalogue()
    if kind == "runtimes":
        from autoprune.cost.latency import RUNTIMES

        return [(name, (meter.__doc__ or "").splitlines()[0]) for name, meter in RUNTIMES]
    if kind == "samplers":
        from autoprune.search.samplers import SAMPLERS

        return [(name, entry.summary) for name, entry in SAMPLERS]
    if kind == "schedules":
        from autoprune.training.schedules import SCHEDULES

        return [(name, schedule.summary) for name, schedule in SCHEDULES]
    if kind == "methods":
        from autoprune.training.methods import METHODS

        return [(name, method.summary) for name, method in METHODS]
    from autoprune.spec.objectives import METRICS

    return [(metric.name, metric.meaning) for metric in METRICS.values()]
