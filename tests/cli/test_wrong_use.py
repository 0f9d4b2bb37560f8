"""The command on bad input: exit 2 for wrong use, 1 where the run failed, one sentence, and nothing lost."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from autoprune import cli

TESTS = Path(__file__).parent.parent
GOLDEN = TESTS / "golden"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in this process and return (exit code, standard error on one line)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["autoprune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr().err

    return call


@pytest.fixture
def finished(tmp_path):
    """A run directory that holds its records only, as on a machine without the storage."""
    (tmp_path / "run").mkdir()
    shutil.copy(GOLDEN / "records-1.jsonl", tmp_path / "run" / "records.jsonl")
    return tmp_path / "run"


def write_study(directory, **changes):
    data = {"task": f"{TESTS / 'small_task.py'}:task", "device": "eyeriss", "space": "channels"} | changes
    path = directory / "study.yaml"
    path.write_text("schema: autoprune/study/1\n" + "".join(f"{key}: {value}\n" for key, value in data.items()))
    return path


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"objektives": "[macs]"}, "study.yaml: unknown key 'objektives'; did you mean 'objectives'?"),
        ({"search": "{trials: many}"}, "study.yaml: key 'search.trials' is 'many': give a whole number"),
        ({"objectives": "[mac]"}, "unknown objective 'mac'; did you mean 'macs'?"),
        ({"device": "eyeris"}, "study.yaml: key 'device': unknown device 'eyeris'; did you mean 'eyeriss'?"),
        ({"space": "chanels"}, "study.yaml: key 'space': unknown space 'chanels'; did you mean 'channels'?"),
        ({"task": "nope.py:task"}, "no such file 'nope.py'"),
        ({"search": "{sampler: tpee}"}, "unknown sampler 'tpee'; did you mean 'tpe'?"),
        ({"latency": "{runtime: torsh}"}, "unknown runtime 'torsh'; did you mean 'torch'?"),
        (
            {"constraints": "{accuracy: at most 0.9}"},
            "higher is better for the score of this task; write 'at least 0.9'",
        ),
        ({"constraints": "{accuracy: >= 0.9}"}, "not valid YAML"),
        ({"constraints": "{macs: at least 5}"}, "less macs is better; give an upper bound, as in 'at most 60%'"),
        ({"constraints": "{accuracy: 0.9, score: 0.8}"}, "accuracy is the score, which is bounded twice"),
        ({"search": "{rungs: [{samples: 9}]}"}, "and the task has no evaluate_sample; give Task.evaluate_sample"),
        (
            {"search": "{rungs: [{}]}"},
            "search.rungs must get dearer: 'all samples' comes before 'all samples' (the last",
        ),
        ({"search": "{warm_start: nope}"}, "nope holds no records.jsonl; give the directory of a run"),
        ({"search": "{budget: long}"}, "a time is a number with s, m or h"),
        ({"constraints": "{macs: 1%}"}, "no config of the space meets the constraint macs at most 1% of dense"),
        ({"recovery": "{batchnorm: shft}"}, "key 'recovery.batchnorm' is 'shft'"),
        ({"storage": "foo"}, "give an Optuna storage URL"),
    ],
)
def test_a_study_that_cannot_be_searched(run, tmp_path, changes, sentence):
    code, said = run("search", write_study(tmp_path, **changes), "-o", "run")
    assert code == 2
    assert sentence in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["select", "run", "--max", "accuracy_drop", "--minimize", "macs"], "give METRIC=NUMBER"),
        (["select", "run", "--max", "macs=x", "--minimize", "macs"], "give METRIC=NUMBER"),
        (["select", "run", "--max", "macs=nan", "--minimize", "macs"], "the bound on macs is"),
        (
            ["select", "run", "--max", "macs=1", "--max", "macs=2", "--minimize", "macs"],
            "macs is bounded twice; bound each metric once",
        ),
        (["select", "run", "--max", "mac=1", "--minimize", "macs"], "unknown metric 'mac'; did you mean 'macs'?"),
        (["select", "run", "--max", "latency_ms=0%"], "which nothing can meet; give a larger percentage"),
        (["select", "run", "--min", "macs=3"], "less macs is better; give an upper bound"),
        (["select", "run", "--min", "accuracy=0.9", "--min", "score=0.8"], "score is bounded twice"),
        (
            ["select", "run", "--max", "accuracy=0.9"],
            "higher is better for the score of this task; write 'at least 0.9'",
        ),
        (["select", "run", "--min", "accuracy=1.01"], "no feasible trial has score >= 1.01; trial "),
        (["select", "run", "--weights", "mac=1"], "unknown metric 'mac'; did you mean 'macs'?"),
        (["select", "run", "--weights", "macs"], "give METRIC=NUMBER, as in --weights accuracy_drop=2,latency_ms=1"),
        (["select", "run", "--weights", "macs=0"], "the weights are all 0 and choose nothing; give one above 0"),
        (["select", "run", "--weights", "macs=-1"], "the weight of macs is -1; give a number of at least 0"),
        (["select", "run", "--weights", "macs=1", "--knee"], "exclude one another"),
        (["select", "run", "--minimize", "mac"], "unknown metric 'mac'; did you mean 'macs'?"),
        (["select", "run", "--max", "macs=1", "--minimize", "macs"], "no feasible trial has macs <= 1; trial "),
        (["select", "nope", "--minimize", "macs"], "nope is no directory"),
        (["select", "run", "--minimize", "macs", "-o", "run"], "(Is a directory); give another path"),
        (["report", "nope"], "nope is no directory"),
        (["report", "run", "run"], "give the folder for it with -o DIR"),
        (["report", "run", "run", "-o", "out", "--parquet"], "--parquet writes the tables of one run"),
        (["search", "study.yaml", "--log", "mlflow"], "study.yaml: no such file"),
        (["report", "run", "-o", "run/records.jsonl"], "no report can be written"),
        (["apply", "nope.yaml", "--task", "a:b", "-o", "x"], "nope.yaml: no such file"),
        (["search", "nope.yaml"], "nope.yaml: no such file"),
    ],
)
def test_a_command_that_cannot_be_followed(run, finished, arguments, sentence):
    before = (finished / "records.jsonl").read_bytes()
    code, said = run(*arguments)
    assert code == 2
    assert sentence in said
    assert "Traceback" not in said
    assert (finished / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--log", "mlflw:x"], "unknown logger 'mlflw'; did you mean 'mlflow'?"),
        (["--log", "tensorboard"], "--log is 'tensorboard'; give KEY:WHERE"),
        (["--log", "tensorboard:x", "--detach"], "--detach leaves; give one of the two"),
    ],
)
def test_a_log_that_cannot_be_kept_is_told_before_anything_runs(run, tmp_path, more, sentence):
    code, said = run("search", write_study(tmp_path), "-o", "run", *more)
    assert code == 2
    assert sentence in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "sentence"), [("", "it is empty"), ("[1]", "where a mapping"), ("{", "is damaged")]
)
def test_damaged_records_are_told(run, finished, content, sentence):
    (finished / "records.jsonl").write_text(content)
    code, said = run("report", finished)
    assert code == 2
    assert sentence in said


def test_a_config_for_another_architecture(run, tmp_path):
    text = (GOLDEN / "config-1.yaml").read_text()
    (tmp_path / "config.yaml").write_text(text.replace("fingerprint: ", "fingerprint: x"))
    code, said = run("apply", "config.yaml", "--task", f"{TESTS / 'small_task.py'}:task", "-o", "p.safetensors")
    assert code == 2
    assert "the config is for the architecture x" in said
    assert not (tmp_path / "p.safetensors").exists()


def test_what_nobody_foresaw_is_one_sentence_without_debug(run, monkeypatch, finished):
    def broken(*_):
        raise RuntimeError("line one\nline two")

    monkeypatch.setattr("autoprune.results.report.write_report", broken)
    code, said = run("report", finished)
    assert code == 1
    assert "RuntimeError: line one line two; this is not foreseen: 'autoprune --debug ...'" in said
    with pytest.raises(RuntimeError):
        CliRunner().invoke(cli.command, ["--debug", "report", str(finished)], catch_exceptions=False)


def test_a_full_disk_is_a_failure_of_the_run(run, monkeypatch, finished):
    def full(*_):
        raise OSError(28, "No space left on device", "report/index.html")

    monkeypatch.setattr("autoprune.results.report.write_whole", full)
    code, said = run("report", finished)
    assert code == 1
    assert "No space left on device" in said
    assert "free some space, then run 'autoprune report'" in said


@pytest.mark.parametrize(
    "kind", ["devices", "spaces", "criteria", "granularities", "runtimes", "samplers", "metrics", "loggers"]
)
def test_everything_that_a_study_may_name_is_listed(kind):
    found = CliRunner().invoke(cli.command, ["list", kind], catch_exceptions=False)
    assert found.exit_code == 0


def test_the_module_is_the_command():
    ran = subprocess.run([sys.executable, "-m", "autoprune", "--help"], capture_output=True, text=True, check=True)
    assert "search" in ran.stdout


def test_a_report_of_records_alone_and_a_choice_from_it(run, finished, tmp_path):
    # Without a storage the records are all there is; they are enough to render and to choose.
    code, _ = run("report", finished)
    assert code == 0
    front = json.loads((finished / "report" / "front.json").read_text())
    assert front["schema"].startswith("autoprune/")
    code, _ = run("select", finished, "--minimize", "macs", "-o", "config.yaml")
    assert code == 0
    assert "layers:" in (tmp_path / "config.yaml").read_text()


def test_profile_refuses_an_unknown_further_device_before_it_runs(run, tmp_path):
    study = write_study(tmp_path)
    code, told = run("profile", study, "--devices", "raspberry-pi-5,nvidia-h20")
    assert code == 2
    assert "unknown device 'nvidia-h20'; did you mean 'nvidia-h200'?" in " ".join(told.split())


def test_profile_of_a_device_that_is_not_here_is_modelled_and_says_what_to_do_next(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = write_study(tmp_path)
    done = CliRunner().invoke(cli.command, ["profile", str(study), "-o", "out", "--devices", "raspberry-pi-5"])
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"profile.html", "profile.json", "profile.md"}
    assert "all times are modelled" in (tmp_path / "out" / "profile.md").read_text()
    profile = json.loads((tmp_path / "out" / "profile.json").read_text())
    assert [other["device"] for other in profile["others"]] == ["raspberry-pi-5"]
