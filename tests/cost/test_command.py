"""The command meter, on a real command in its own process, with every fault that one can have."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.cost.meters import CommandMeter, ModelInputs
from autoprune.cost.meters.choice import choose_meter
from autoprune.cost.meters.command_output import read_output
from autoprune.errors import MeterError, SpecError, UsageError
from autoprune.spec.document import parse_document
from autoprune.spec.hardware import load_device
from autoprune.spec.latency import LatencySpec, filled, places
from autoprune.testing import check_meter

BENCH = Path(__file__).with_name("bench.py")
INPUTS = ModelInputs((torch.ones(1, 8),))


def asked(how: str, *, extra: str = "", budget_s: float = 0.2, **command: object) -> LatencySpec:
    run = f"{sys.executable} -S {BENCH} {how} {{model}} {{runs}} {extra}"
    given = {"run": run, "export": "safetensors", "timeout": "20s", "retries": 0, "runs": 5, **command}
    latency = {"runtime": "command", "half_width": 0.9, "budget_s": budget_s, "command": given}
    return parse_document(LatencySpec, latency, "study.yaml")


def linear(width: int) -> nn.Module:
    return nn.Linear(8, width)


def test_a_command_passes_the_suite() -> None:
    given = asked("pretend").command

    def make(spec: LatencySpec) -> CommandMeter:
        return CommandMeter(spec.model_copy(update={"runtime": "command", "command": given}))

    check_meter(make, "command")


def test_the_ratio_is_that_of_the_files_and_any_device_may_be_measured() -> None:
    chosen = choose_meter(asked("pretend"), load_device("raspberry-pi-5"))
    assert isinstance(chosen.meter, CommandMeter)
    found = chosen.meter.measure_pair(linear(4096), linear(1024), INPUTS)
    assert found.ratio == pytest.approx(0.25, rel=0.02)  # the pretended time is the size of the weights
    assert found.dense_ms == pytest.approx(4096 * 9 * 4e-6, rel=0.02)
    assert found.conditions is not None
    assert str(found.conditions) == "its own threads, batch 1, float32"
    assert (found.retries, found.converged or bool(found.reason)) == (0, True)


@pytest.mark.slow
def test_a_real_benchmark_in_its_own_process() -> None:
    spec = asked("onnx", export="onnx", budget_s=1e-9)
    spec = spec.model_copy(
        update={"command": spec.command.model_copy(update={"run": spec.command.run.replace("-S ", "")})}
    )
    found = CommandMeter(spec).measure_pair(
        nn.Linear(2048, 2048), nn.Linear(2048, 64), ModelInputs((torch.ones(1, 2048),))
    )
    assert found.ratio < 0.5  # four million MACs against an eighth of a million
    assert found.candidate_p90_ms >= found.candidate_ms


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("die", "ended with code 3 and said 'no such accelerator'"),
        ("rubbish", "printed 'rubbish' where milliseconds as JSON are needed"),
        ("0", "says that a run took 0 ms where a positive number is needed"),
        ("-2.5", "took -2.5 ms where a positive number"),
        ("NaN", "took nan ms where a positive number"),
        ("[1,0]", "took 0 ms"),
        ("[]", "an empty list"),
        ("[true]", "took True where a number of milliseconds"),
        ("'{\"us\":3}'", "keys us where one of ms, samples_ms"),
        ("1e6", "which is longer; is it printing another unit than milliseconds"),
    ],
)
def test_a_fault_is_one_sentence(how: str, said: str) -> None:
    with pytest.raises(MeterError) as caught:
        CommandMeter(asked(how)).measure_pair(linear(4), linear(2), INPUTS)
    text = str(caught.value)
    assert said in text
    assert "its only call failed" in text
    assert "\n" not in text


def test_a_command_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    script, mark = tmp_path / "hang.sh", tmp_path / "child"
    script.write_text(f"sleep 30 &\necho $! > {mark}\nwait\n")
    spec = asked("pretend", run=f"/bin/sh {script} {{model}}", timeout="0.3s")
    begun = time.perf_counter()
    with pytest.raises(MeterError, match=r"was killed after 0.3s"):
        CommandMeter(spec).measure_pair(linear(4), linear(2), INPUTS)
    assert time.perf_counter() - begun < 15
    child = Path("/proc") / mark.read_text().strip()
    if Path("/proc/self").exists():
        for _ in range(100):
            state = (child / "stat").read_text().split()[2] if child.exists() else "gone"
            if state in ("gone", "Z"):
                break
            time.sleep(0.02)
        assert state in ("gone", "Z")


def test_a_failed_call_is_repeated_and_counted(tmp_path: Path) -> None:
    spec = asked("flaky", extra=str(tmp_path / "flag"), retries=1, budget_s=1e-9)
    found = CommandMeter(spec).measure_pair(linear(64), linear(32), INPUTS)
    assert found.retries == 2 + 2 * found.pairs  # every call failed once: two to warm up, two a pair
    assert found.to_record(1.0).retries == found.retries


def test_a_command_may_tell_its_own_percentiles() -> None:
    found = CommandMeter(asked("summary", budget_s=1e-9)).measure_pair(linear(64), linear(32), INPUTS)
    assert (found.candidate_p90_ms, found.candidate_p99_ms) == (7.0, 9.0)


def test_steps_bring_the_file_to_the_device_and_take_it_away(tmp_path: Path) -> None:
    there = tmp_path / "on the board"
    there.mkdir()
    spec = asked(
        "pretend",
        run=f"{sys.executable} -S {BENCH} pretend '{there}/{{name}}' 3 {{batch}} {{dtype}} {{inputs}}",
        prepare=[f"cp {{model}} '{there}/{{name}}'"],
        cleanup=[f"rm '{there}/{{name}}'"],
        export="pt2",
        budget_s=1e-9,
    )
    meter = CommandMeter(spec)
    dense = linear(64)
    meter.measure_pair(dense, linear(32), INPUTS)
    kept = list(there.iterdir())
    assert [path.suffix for path in kept] == [".pt2"]  # the dense network stays: every trial has it
    program = torch.export.load(kept[0])
    assert torch.equal(program.module()(INPUTS.args[0]), dense(INPUTS.args[0]))
    meter.measure_pair(dense, linear(16), INPUTS)
    assert list(there.iterdir()) == kept
    folder = meter._folder
    assert {path.suffix for path in folder.iterdir()} == {".pt2", ".npz"}
    del meter
    assert not folder.exists()


def test_a_step_that_fails_is_told() -> None:
    with pytest.raises(MeterError, match=r"'cp /no/such/file there'.*ended with code 1"):
        CommandMeter(asked("pretend", prepare=["cp /no/such/file there"])).measure(linear(4), INPUTS)
    with pytest.raises(UsageError, match="starts 'no-such-tool', which is no program here"):
        CommandMeter(asked("pretend", run="no-such-tool {model}"))


@pytest.mark.parametrize(
    ("latency", "said"),
    [
        ({"runtime": "command"}, "runtime command needs latency.command; add it"),
        ({"command": {"run": "x {model}"}}, "set runtime: command, or leave command out"),
        ({"runtime": "recorded"}, "runtime recorded needs latency.recording"),
        ({"runtime": "command", "command": {"run": "bench"}}, "names no model"),
        ({"runtime": "command", "command": {"run": "bench {modle}"}}, "did you mean 'model'"),
        ({"runtime": "command", "command": {"run": "bench '{model}"}}, "close the quotation"),
        ({"runtime": "command", "command": {"run": " "}}, "it is empty; write the command"),
        (
            {"runtime": "command", "command": {"run": "b {model}", "timeout": "soon"}},
            "a time is a number with s, m or h",
        ),
        ({"runtime": "command", "command": {"run": "b {model}", "timeout": "0s"}}, "give more than 0s"),
        ({"runtime": "command", "command": {"run": "b {model}", "export": "tflite"}}, "command.export"),
        ({"runtime": "command", "threads": 4, "command": {"run": "b {model}"}}, "put {threads} into"),
        ({"runtime": "command", "affinity": [0], "command": {"run": "b {model}"}}, "put {cores} into"),
        ({"runtime": "command", "command": {"run": "b {model}", "retry": 1}}, "did you mean 'retries'"),
    ],
)
def test_a_wrong_section_is_one_sentence(latency: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_document(LatencySpec, latency, "study.yaml")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_places_are_filled_after_the_words_are_split() -> None:
    values = {"model": "/a b/c;rm -rf.onnx", "runs": "3"}
    assert filled("bench --json '{{\"n\": {runs}}}' {model}", values) == [
        "bench",
        "--json",
        '{"n": 3}',
        values["model"],
    ]
    assert places("x {model} {{runs}}") == {"model"}


def test_json_is_found_on_the_last_line_that_is_json() -> None:
    assert read_output('loading\n{"ms": [1.0, 3.0]}\nbye\n', 1.0, 2).samples_ms == (1.0, 3.0)
    assert read_output(json.dumps([2, 4], indent=1), 1.0, 2).median_ms == 3
    assert read_output("2.5", 1.0, 20).samples_ms == (2.5,)
    with pytest.raises(ValueError, match=r"together, which is longer"):
        read_output("2.5", 0.01, 20)
