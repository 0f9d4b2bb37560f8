"""A command of the user's: through ssh, adb or a board's own benchmark tool, any device becomes measurable."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import signal
import subprocess
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autoprune.cost.meters.command_output import Reading, read_output
from autoprune.cost.meters.interleaved import reference_key
from autoprune.cost.meters.pairing import Side, measure_blocks, measure_samples
from autoprune.cost.meters.protocol import ModelInputs, rebatch
from autoprune.cost.meters.result import PairedLatency, SingleLatency, outlier_count
from autoprune.cost.meters.settings import cast_model, dtype_of, on_device
from autoprune.errors import MeterError, TraceError, UsageError
from autoprune.graph.export import exported_program, need_onnx, onnx_bytes, traced_onnx_bytes
from autoprune.graph.session import OnnxModule
from autoprune.graph.trace import evaluation_mode
from autoprune.spec.latency import LatencySpec, filled
from autoprune.spec.record import LatencyConditions

_SUFFIXES = {"onnx": ".onnx", "pt2": ".pt2", "safetensors": ".safetensors"}
_TAIL = 160


@dataclass(frozen=True)
class _Deployed:
    """A network where the command can reach it: what its places are filled with."""

    values: Mapping[str, str]


class CommandMeter:
    """A command of your own that times a model file and prints milliseconds, for any device.

    Calls alternate A B B A, and the median of a call is one sample of a pair; percentiles are those of all runs that
    the calls told. A call that hangs, dies or prints something else is repeated as often as the study allows. Threads,
    type and cores reach the command through its places alone.

    Args:
        spec: Its ``command`` section says what is run.
        seed: Of the bootstrap.

    Raises:
        UsageError: A program does not exist, or an export needs packages that are missing.
    """

    runtime: ClassVar[str] = "command"
    any_device: ClassVar[bool] = True

    def __init__(self, spec: LatencySpec, seed: int = 0) -> None:
        if spec.command is None:
            raise UsageError("runtime command needs latency.command; add it")
        self.spec, self.seed, self.command = spec, seed, spec.command
        if self.command.export == "onnx":
            need_onnx()
        for step in (self.command.run, *self.command.prepare, *self.command.cleanup):
            program = filled(step, dict.fromkeys(("model", "name", "inputs", *_SET), "x"))[0]
            if "{" not in step.split()[0] and shutil.which(program) is None:
                raise UsageError(
                    f"latency.command starts {program!r}, which is no program here; install it or give its path"
                )
        self._folder = Path(tempfile.mkdtemp(prefix="autoprune-"))
        weakref.finalize(self, shutil.rmtree, self._folder, True)
        self._kept: tuple[nn.Module, str, _Deployed] | None = None
        self._retries = 0

    def measure_pair(
        self, dense: nn.Module, candidate: nn.Module, inputs: ModelInputs, candidate_inputs: ModelInputs | None = None
    ) -> PairedLatency:
        """Measure ``candidate`` against ``dense``; see :meth:`autoprune.cost.meters.Meter.measure_pair`.

        Raises:
            MeterError: The command gave no usable number, however often it was tried.
        """
        self._retries, begun = 0, time.perf_counter()
        first = self._deploy_reference(dense, inputs)
        same = candidate is dense and candidate_inputs is None
        second = first if same else self._deploy(candidate, candidate_inputs or inputs)
        sides: dict[Side, _Deployed] = {"dense": first, "candidate": second}
        readings: dict[Side, list[Reading]] = {"dense": [], "candidate": []}
        start = time.perf_counter()

        def sample(side: Side) -> float:
            readings[side].append(self._read(sides[side]))
            return readings[side][-1].median_ms * 1e-3

        try:
            for side in dict.fromkeys(sides if not same else ("dense",)):
                self._read(sides[side])  # the first call loads the tool and its libraries
            meter = f"{self._description(dense, inputs)}, A B B A"
            found = measure_blocks(sample, lambda: time.perf_counter() - start, self.spec, meter, self.seed)
        finally:
            if not same:
                self._clean_up(second)
        told = readings["candidate"]
        runs = {side: [ms for reading in seen for ms in reading.samples_ms] for side, seen in readings.items()}
        return replace(
            found,
            candidate_p90_ms=_percentile(runs["candidate"], 90, [reading.p90_ms for reading in told]),
            candidate_p99_ms=_percentile(runs["candidate"], 99, [reading.p99_ms for reading in told]),
            outliers=sum(map(outlier_count, runs.values())),
            warmup_rounds=1,
            prepare_s=start - begun,
            retries=self._retries,
            conditions=self._conditions(dense, inputs),
        )

    def measure(self, model: nn.Module, inputs: ModelInputs, budget_s: float = 0.2) -> SingleLatency:
        """Measure one model alone; see :meth:`autoprune.cost.meters.Meter.measure`.

        Raises:
            MeterError: As for :meth:`measure_pair`.
        """
        begun = time.perf_counter()
        deployed = self._deploy(model, inputs)
        start = time.perf_counter()
        try:
            self._read(deployed)
            found = measure_samples(
                lambda: self._read(deployed).median_ms * 1e-3,
                lambda: time.perf_counter() - start,
                self.spec.half_width,
                budget_s,
                self._description(model, inputs),
                self.seed,
            )
        finally:
            self._clean_up(deployed)
        return replace(found, warmup_rounds=1, prepare_s=start - begun)

    def _deploy_reference(self, model: nn.Module, inputs: ModelInputs) -> _Deployed:
        key = reference_key(model, inputs)
        if self._kept is None or self._kept[:2] != (model, key):
            self._kept = None
            self._kept = (model, key, self._deploy(model, inputs))
        return self._kept[2]

    def _deploy(self, model: nn.Module, inputs: ModelInputs) -> _Deployed:
        """Export a network and run the steps that bring it to the device."""
        call = rebatch(inputs.args, inputs.kwargs, self.spec.batch)
        with evaluation_mode(model), torch.no_grad():
            ready, call = on_device(*cast_model(model, call, self.spec.dtype), torch.device("cpu"))
            ready.eval()
            data = _EXPORTS[self.command.export](ready, call)
        name = hashlib.sha256(data).hexdigest()[:12] + _SUFFIXES[self.command.export]
        path = self._folder / name
        path.write_bytes(data)
        arrays = path.with_suffix(".npz")
        if "inputs" in self.command.places:
            np.savez(arrays, *map(_array, _tensors(call)))
        values = {
            "model": str(path),
            "name": name,
            "inputs": str(arrays),
            "batch": str(self.spec.batch),
            "threads": str(self.spec.threads),
            "runs": str(self.command.runs),
            "dtype": self.spec.dtype or dtype_of(model, inputs),
            "cores": ",".join(map(str, self.spec.affinity or ())),
        }
        deployed = _Deployed(values)
        for step in self.command.prepare:
            self._retried(filled(step, values), lambda text, wall_s: None)
        return deployed

    def _clean_up(self, deployed: _Deployed) -> None:
        """Remove a network here and, by the user's own steps, on the device; a failure there costs no measurement."""
        for step in self.command.cleanup:
            with suppress(_FailedCallError):
                self._call(filled(step, deployed.values))
        path = Path(deployed.values["model"])
        if self._kept is None or self._kept[2].values["model"] != str(path):
            path.unlink(missing_ok=True)
            Path(deployed.values["inputs"]).unlink(missing_ok=True)

    def _read(self, deployed: _Deployed) -> Reading:
        def read(text: str, wall_s: float) -> Reading:
            return read_output(text, wall_s, self.command.runs if "runs" in self.command.places else 1)

        found = self._retried(filled(self.command.run, deployed.values), read)
        assert found is not None
        return found

    def _retried(self, words: list[str], read: Callable[[str, float], Reading | None]) -> Reading | None:
        failures: list[str] = []
        while len(failures) <= self.command.retries:
            try:
                return read(*self._call(words))
            except (_FailedCallError, ValueError) as error:
                failures.append(str(error))
                self._retries += 1
                time.sleep(min(0.05 * 2 ** len(failures), 2.0) if len(failures) <= self.command.retries else 0.0)
        tries = f"{len(failures)} calls in a row failed" if len(failures) > 1 else "its only call failed"
        raise MeterError(
            f"the command {' '.join(words)!r} gave no usable time, {tries}: it {failures[-1]}; run it by hand to see "
            "more, or allow it more (latency.command.timeout, latency.command.retries)"
        )

    def _call(self, words: list[str]) -> tuple[str, float]:
        """Run one command to its end; return what it printed, and its seconds."""
        begun = time.perf_counter()
        try:
            process = subprocess.Popen(  # noqa: S603 - the user's own command, without a shell
                words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
            )
        except OSError as error:
            raise MeterError(
                f"the command {words[0]!r} cannot be started ({error.strerror or error}); check latency.command"
            ) from error
        with process:
            try:
                printed, said = process.communicate(timeout=self.command.timeout_s)
            except subprocess.TimeoutExpired:
                _kill(process)
                raise _FailedCallError(f"was killed after {self.command.timeout}") from None
            except BaseException:  # Ctrl-C too: what was started must not go on using the device
                _kill(process)
                raise
        if process.returncode:
            told = " ".join(said.decode(errors="replace").split())[-_TAIL:]
            how = f"with code {process.returncode}" if process.returncode > 0 else f"by signal {-process.returncode}"
            raise _FailedCallError(f"ended {how}" + (f" and said {told!r}" if told else ""))
        return printed.decode(errors="replace"), time.perf_counter() - begun

    def _conditions(self, model: nn.Module, inputs: ModelInputs) -> LatencyConditions:
        return LatencyConditions(
            runtime=self.runtime,
            batch=self.spec.batch,
            threads=self.spec.threads if "threads" in self.command.places else None,
            dtype=self.spec.dtype or dtype_of(model, inputs),
            affinity=self.spec.affinity,
        )

    def _description(self, model: nn.Module, inputs: ModelInputs) -> str:
        program = Path(filled(self.command.run, dict.fromkeys(("model", "name", "inputs", *_SET), "x"))[0]).name
        return f"measured: command {program} ({self.command.export} file), {self._conditions(model, inputs)}"


_SET = ("batch", "threads", "runs", "dtype", "cores")


class _FailedCallError(Exception):
    """One call failed; another may not."""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a command and all that it started; what it started may hold its output open."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=5)


def _percentile(runs: list[float], which: int, told: list[float | None]) -> float:
    """Return the command's own percentile where it told one, else that of all runs."""
    given = [value for value in told if value is not None]
    return float(np.median(given)) if given else float(np.percentile(runs, which))


def _tensors(inputs: ModelInputs) -> list[Tensor]:
    return [leaf for leaf in tree_leaves((inputs.args, dict(inputs.kwargs))) if isinstance(leaf, Tensor)]


def _array(tensor: Tensor) -> Any:
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()


def _onnx(model: nn.Module, inputs: ModelInputs) -> bytes:
    if isinstance(model, OnnxModule):  # int8: the file is what was made of the network
        return model.data
    with suppress(TraceError):
        return traced_onnx_bytes(model, inputs.args, inputs.kwargs)
    return onnx_bytes(model, inputs.args, inputs.kwargs)


def _program(model: nn.Module, inputs: ModelInputs) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(exported_program(model, inputs.args, inputs.kwargs), buffer)
    return buffer.getvalue()


def _weights(model: nn.Module, _: ModelInputs) -> bytes:
    tensors = {name: t.detach().clone().contiguous() for name, t in model.state_dict().items() if isinstance(t, Tensor)}
    return save(tensors)


_EXPORTS: dict[str, Callable[[nn.Module, ModelInputs], bytes]] = {
    "onnx": _onnx,
    "pt2": _program,
    "safetensors": _weights,
}
