"""The ``latency`` section of a study: what runs a network, under which conditions, and how exactly it is measured."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from autoprune.errors import suggestion
from autoprune.spec.amounts import duration_s
from autoprune.spec.document import Document

_PLACE = re.compile(r"\{\{|\}\}|\{(\w*)\}")

_AGAIN = 10  # measurements after a search that end in seconds

PLACES = ("model", "name", "inputs", "batch", "threads", "runs", "dtype", "cores")
"""What a command may ask for in braces."""


def filled(template: str, values: Mapping[str, str]) -> list[str]:
    """Return a command's words with its places filled; no shell looks at them, so a path may hold anything.

    Args:
        template: Words as a shell would split them; ``{{`` and ``}}`` are braces.
        values: For each of :data:`PLACES`.
    """

    def fill(match: re.Match[str]) -> str:
        return match.group()[0] if match.group(1) is None else values[match.group(1)]

    return [_PLACE.sub(fill, word) for word in shlex.split(template)]


def places(template: str) -> set[str]:
    """Return the names that stand in braces in a command."""
    return {match.group(1) for match in _PLACE.finditer(template) if match.group(1) is not None}


def _check_template(template: str) -> str:
    try:
        words = shlex.split(template)
    except ValueError as error:
        raise ValueError(f"it cannot be split into words ({error}); close the quotation") from None
    if not words:
        raise ValueError("it is empty; write the command")
    for name in sorted(places(template)):
        if name not in PLACES:
            raise ValueError(
                f"{{{name}}} is no place that is filled in{suggestion(name, PLACES)}; braces of your own are doubled, "
                "as in {{...}}"
            )
    return template


class CommandSpec(Document):
    """A command that measures a model file, on this machine or through ssh, adb or a board's own tool.

    It is split into words as a shell would and run without one. It runs the network ``{runs}`` times after a warm-up of
    its own and prints milliseconds as JSON, alone or on the last line: a list of samples, one number, or
    ``{"ms": number or list}``, optionally with ``p90_ms`` and ``p99_ms``.

    Attributes:
        run: The command. ``{model}`` is the path of the file here, ``{name}`` its name alone, the same for the same
            network; ``{inputs}`` a NumPy .npz of the example inputs; ``{batch}``, ``{threads}``, ``{dtype}``,
            ``{cores}`` (as in 0,1) what the study sets; ``{runs}`` how many samples are wanted.
        prepare: Run once for each network before it is measured, in order (``adb push {model} /data/{name}``).
        cleanup: Run once for each pruned network after it was measured.
        export: The file: ONNX, a ``torch.export`` program (.pt2), or the weights alone (.safetensors).
        runs: Of the network in one call of the command.
        timeout: Time after which a call is killed ("90s", "2m").
        retries: Calls more that one failed call may cost before the measurement fails.
    """

    run: str
    prepare: tuple[str, ...] = ()
    cleanup: tuple[str, ...] = ()
    export: Literal["onnx", "pt2", "safetensors"] = "onnx"
    runs: Annotated[int, Field(ge=1)] = 20
    timeout: str = "60s"
    retries: Annotated[int, Field(ge=0)] = 2

    @field_validator("run")
    @classmethod
    def _run(cls, value: str) -> str:
        return _check_template(value)

    @field_validator("prepare", "cleanup")
    @classmethod
    def _steps(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_check_template, value))

    @field_validator("timeout")
    @classmethod
    def _timeout(cls, value: str) -> str:
        if duration_s(value) <= 0:
            raise ValueError("a command needs some time; give more than 0s")
        return value

    @model_validator(mode="after")
    def _names_the_model(self) -> CommandSpec:
        if not places(self.run) & {"model", "name"}:
            raise ValueError(
                "latency.command.run names no model, so it would time the same thing for every trial; put {model} or "
                "{name} where the file belongs"
            )
        return self

    @property
    def timeout_s(self) -> float:
        """The timeout in seconds."""
        return duration_s(self.timeout)

    @property
    def places(self) -> set[str]:
        """What its commands ask for."""
        return set().union(*(places(step) for step in (self.run, *self.prepare)))


class LatencySpec(Document):
    """How latency is measured.

    Attributes:
        runtime: Registry key of what executes the model.
        batch: Samples per run; the example inputs are repeated or cut to it.
        threads: CPU threads of the runtime.
        half_width: Wanted half-width of the 95 % interval of the ratio to dense (0.02 is +-2 %).
        budget_s: Seconds after which one measurement ends in any case; compiling and exporting are not counted.
        wait_s: Seconds that a measurement may wait for a machine that runs slower than it was seen to (a busy host, a
            lowered clock); left out: a third of the budget. 0: it never waits, and all pairs count.
        dtype: Floating type that a copy of the model is cast to for the measurement; left out: the model's own.
        affinity: CPU cores that this process is pinned to while it measures; left out: all that it may use.
        command: For the runtime ``command``: what measures.
        recording: For the runtime ``recorded``: the file that is replayed.
        record: File that every measurement is added to, for the runtime ``recorded``; no part of what a study is.
        energy_meter: Registry key of what measures energy beside latency, or ``none``; left out: what is at hand and
            quick (``rapl``; ``nvml`` takes 40 s a trial).
        survey_s: Seconds of measurements before the first trial, once in a study: what patterns pay, on which widths
            steps lie, and random networks from which latency is predicted. Left out: a fifth of a second for each
            trial asked for, at most 30, and up to four times as long until 40 networks are measured where a runtime
            takes long for each; none in a study of fewer than 20 trials, or with a recording. 0: none.
        again: Trials of the final front that are measured once more after the search, spread over its latencies: what
            two measurements of one network differ by. Left out: ten, none with a recording. 0: none. No part of what a
            study is.
    """

    runtime: str = "torch"
    batch: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] = 1
    half_width: Annotated[float, Field(gt=0, lt=1)] = 0.02
    budget_s: Annotated[float, Field(gt=0)] = 3.0
    # No default but None below: a study of an older version stays the same study.
    wait_s: Annotated[float, Field(ge=0)] | None = None
    dtype: Literal["float64", "float32", "bfloat16", "float16"] | None = None
    affinity: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    command: CommandSpec | None = None
    recording: str | None = None
    record: str | None = None
    energy_meter: str | None = None
    survey_s: Annotated[float, Field(ge=0)] | None = None
    again: Annotated[int, Field(ge=0)] | None = None

    @property
    def measured_again(self) -> int:
        """Most trials of the front that are measured once more."""
        if self.again is not None:
            return self.again
        return 0 if self.runtime == "recorded" else _AGAIN

    @property
    def longest_wait_s(self) -> float:
        """Most seconds that a measurement waits for a slow machine."""
        return self.budget_s / 3 if self.wait_s is None else self.wait_s

    @model_validator(mode="after")
    def _keys_of_runtimes(self) -> LatencySpec:
        for runtime, key in (("command", "command"), ("recorded", "recording")):
            given = getattr(self, key) is not None
            if self.runtime == runtime and not given:
                raise ValueError(f"runtime {runtime} needs latency.{key}; add it")
            if given and self.runtime != runtime:
                raise ValueError(
                    f"latency.{key} is for runtime {runtime} and runtime is {self.runtime!r}; set runtime: {runtime}, "
                    f"or leave {key} out"
                )
        if self.runtime == "recorded" and self.record is not None:
            raise ValueError("runtime recorded replays a file and measures nothing that latency.record could keep")
        if self.command is not None:
            self._check_passed_on(self.command)
        return self

    def _check_passed_on(self, command: CommandSpec) -> None:
        """What the record of a trial says was set must have reached the command."""
        if self.threads > 1 and "threads" not in command.places:
            raise ValueError(
                f"latency.threads is {self.threads} and the command never learns it; put {{threads}} into "
                "latency.command.run, or leave threads out"
            )
        if self.affinity is not None and "cores" not in command.places:
            raise ValueError(
                "latency.affinity is set and the command never learns it; put {cores} into latency.command.run, or "
                "leave affinity out"
            )
