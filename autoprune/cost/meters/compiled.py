"""``torch.compile`` with inductor, each network on its own, and the proof that what was compiled is what ran."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import torch
from torch import nn

from autoprune.cost.meters.eager import device_of, timed, torch_version
from autoprune.cost.meters.interleaved import InterleavedMeter, Prepared
from autoprune.cost.meters.parity import check_parity
from autoprune.cost.meters.protocol import ModelInputs
from autoprune.cost.meters.settings import dtype_of
from autoprune.errors import MeterError, one_line
from autoprune.graph.trace import output_tensors


class CompiledMeter(InterleavedMeter):
    """torch.compile with inductor; compiling is preparation, and every sample proves that the compiled graphs ran."""

    runtime = "torch_compile"

    @classmethod
    def missing(cls) -> str:
        """Return that a C++ compiler is missing, for inductor writes C++."""
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler:
            return (
                "runtime 'torch_compile' needs a C++ compiler and found none; install one (apt install g++, or Xcode's "
                "command line tools) or name it in the environment variable CXX, or set runtime: torch"
            )
        return ""

    def prepare(self, model: nn.Module, inputs: ModelInputs) -> Prepared:
        """Compile, run, and compare with eager outputs."""
        graphs = _Graphs()
        # Without automatic dynamic shapes: they are learned by source line, so one candidate's width would change how
        # the next is compiled.
        call = torch.compile(_apart(model), backend=graphs.compile, dynamic=False)
        args, kwargs = inputs.args, dict(inputs.kwargs)
        try:
            # In inference mode, as the samples are taken: compiled code holds for one mode.
            with torch.inference_mode(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = output_tensors(call(*args, **kwargs))
                before = graphs.ran
                call(*args, **kwargs)
                wanted = output_tensors(model(*args, **kwargs))
        except Exception as error:
            raise MeterError(
                f"torch.compile cannot compile the model ({one_line(error)}); set runtime: torch"
            ) from error
        each = graphs.ran - before
        if not each:
            raise MeterError("torch.compile left the whole model to eager torch; set runtime: torch")
        name = f"torch {torch_version()} compiled by inductor"
        check_parity(found, wanted, dtype_of(model, inputs), name)
        where = device_of(model, inputs)
        sample = timed(call, inputs, where)

        def run(repeats: int) -> float:
            before = graphs.ran
            seconds = sample(repeats)
            if graphs.ran - before != each * repeats:
                raise MeterError(
                    f"{graphs.ran - before} compiled graphs ran in {repeats} runs where {each * repeats} are due: part "
                    "of the model fell back to eager torch; set runtime: torch"
                )
            return seconds

        on = f", {where}" if where.type != "cpu" else ""
        return Prepared(run, f"{name}{on}, {each} graph{'s' * (each != 1)}")


class _Graphs:
    """Counts the runs of compiled graphs.

    Attributes:
        ran: Calls of any of them.
    """

    def __init__(self) -> None:
        self.ran = 0

    def compile(self, graph: torch.fx.GraphModule, examples: Sequence[Any]) -> Callable[..., Any]:
        """Compile one graph by inductor; a backend of ``torch.compile``."""
        from torch._inductor.compile_fx import compile_fx

        compiled: Any = compile_fx(graph, list(examples))

        def run(*args: Any) -> Any:
            self.ran += 1
            return compiled(*args)

        return run


def _apart(model: nn.Module) -> Callable[..., Any]:
    """Return a function that calls the model and has a code object of its own.

    Dynamo keeps compiled code by code object, and all pruned versions of a network share that of ``forward``: after
    eight of them it would give up and run the ninth eagerly, without a word.
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return model(*args, **kwargs)

    return FunctionType(call.__code__.replace(), call.__globals__, "call", None, call.__closure__)
