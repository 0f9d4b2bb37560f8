"""Every built-in runtime passes the suite that plug-ins run, and proves that it ran what it says."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.cost.meters import (
    RUNTIMES,
    CompiledMeter,
    CudaMeter,
    ModelInputs,
    OnnxRuntimeMeter,
    TorchMeter,
    compiled,
    onnx_runtime,
)
from autoprune.cost.meters.choice import choose_meter
from autoprune.cost.meters.parity import check_parity
from autoprune.cost.meters.protocol import missing
from autoprune.errors import MeterError, TraceError, UsageError
from autoprune.spec.hardware import load_device
from autoprune.spec.latency import LatencySpec
from autoprune.testing import check_meter

needs_compiler = pytest.mark.skipif(bool(CompiledMeter.missing()), reason="no C++ compiler is here")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU is here")


def test_every_runtime_is_listed_with_what_it_lacks() -> None:
    assert set(RUNTIMES.names()) >= {"torch", "torch_compile", "onnxruntime", "cuda", "command", "recorded"}
    for name, factory in RUNTIMES:
        lacking = missing(factory)
        assert not lacking or name in lacking
        assert (factory.__doc__ or "").splitlines()[0].endswith(".")


def test_torch_passes_the_suite() -> None:
    check_meter(TorchMeter)


def test_onnxruntime_passes_the_suite() -> None:
    check_meter(OnnxRuntimeMeter, "onnxruntime")


@needs_compiler
@pytest.mark.slow
def test_torch_compile_passes_the_suite() -> None:
    check_meter(CompiledMeter, "torch_compile")


@needs_gpu
def test_cuda_passes_the_suite() -> None:
    check_meter(CudaMeter, "cuda")


class Square(nn.Module):
    """Tells whether Python runs its forward: compiled code does not."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(4, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        return (y * y).relu()


class UncompiledGraphs(compiled._Graphs):
    """What dynamo found, run as it is."""

    def compile(self, graph, examples):
        def run(*args):
            self.ran += 1
            return graph(*args)

        return run


@needs_compiler
def test_the_ninth_candidate_is_compiled_like_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo gives up after eight versions of one forward; here after one, and nobody must notice."""
    monkeypatch.setattr(compiled, "_Graphs", UncompiledGraphs)  # inductor is not at stake
    with torch._dynamo.config.patch(recompile_limit=1):
        check_recompiling()


def check_recompiling() -> None:
    meter = CompiledMeter(LatencySpec(runtime="torch_compile", half_width=0.9, budget_s=0.02))
    dense, inputs = Square(8), ModelInputs((torch.randn(1, 4),))
    for width in (7, 6, 5):
        found = meter.measure_pair(dense, Square(width), inputs)
        assert "compiled by inductor, 1 graph," in found.meter
        assert found.prepare_s is not None
    # The control: compiled as everyone does it, the second version falls back to eager, in silence.
    ran: list[int] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> object:
        def run(*args: object) -> object:
            ran.append(1)
            return graph(*args)

        return run

    x = torch.randn(1, 4)
    for width in (8, 7, 6):
        torch.compile(Square(width).eval(), backend=backend, dynamic=False)(x)
    assert len(ran) < 3


@needs_compiler
def test_a_sample_in_which_eager_code_ran_is_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    class Counted(compiled._Graphs):
        def compile(self, graph, examples):
            def run(*args):
                self.ran += self.ran < 2  # counted while it is prepared, and then no more: as if eager code ran
                return graph(*args)

            return run

    monkeypatch.setattr(compiled, "_Graphs", Counted)
    model = Square(8)
    with pytest.raises(MeterError, match="fell back to eager torch"):
        CompiledMeter(LatencySpec(budget_s=0.02)).measure_pair(model, model, ModelInputs((torch.randn(1, 4),)))


def test_without_a_compiler_torch_compile_says_how_to_get_one() -> None:
    import torch._inductor.config as config

    with config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert "install one (apt install g++" in CompiledMeter.missing()
        with pytest.raises(UsageError, match="found none"):
            CompiledMeter(LatencySpec())
        with pytest.raises(UsageError, match="C\\+\\+ compiler"):
            choose_meter(LatencySpec(runtime="torch_compile"), load_device("local-cpu"))


def test_onnxruntime_without_its_packages_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr("autoprune.graph.export.find_spec", lambda name: None if name == "onnxruntime" else object())
    with pytest.raises(UsageError, match=r"needs onnxruntime; pip install 'autoprune\[onnx\]'"):
        OnnxRuntimeMeter(LatencySpec())


def test_onnxruntime_gets_threads_batch_type_and_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, object] = {}

    class Watching(OnnxRuntimeMeter):
        def prepare(self, model, inputs):
            prepared = super().prepare(model, inputs)
            seen["shape"], seen["dtype"] = tuple(inputs.args[0].shape), inputs.args[0].dtype
            if hasattr(os, "sched_getaffinity"):
                seen["cores"] = os.sched_getaffinity(0)
            return prepared

    asked: list[int] = []
    real = onnx_runtime.onnx_session

    def session(data: bytes, threads: int) -> object:
        made = real(data, threads)
        asked.append(made.get_session_options().intra_op_num_threads)
        return made

    monkeypatch.setattr(onnx_runtime, "onnx_session", session)
    core = max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
    cores = None if core is None else (core,)
    spec = LatencySpec(batch=3, threads=2, dtype="float16", affinity=cores, half_width=0.9, budget_s=0.05)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU())
    found = Watching(spec).measure_pair(model, model, ModelInputs((torch.randn(1, 4),)))
    assert asked == [2]
    assert (seen["shape"], seen["dtype"]) == ((3, 4), torch.float16)
    assert core is None or seen["cores"] == {core}
    assert found.conditions is not None
    assert str(found.conditions).startswith("2 threads")


class Branches(nn.Module):
    """What tracing freezes: a Python branch over data, which torch.export refuses, and a keyword input."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, width), nn.Linear(width, 2)

    def forward(self, x: torch.Tensor, *, mask: torch.Tensor, unused: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.first(x) * mask
        if hidden.sum() > 1e9:
            return {"out": hidden, "sum": hidden}
        return {"out": self.second(hidden), "sum": hidden.sum()}


def test_onnxruntime_takes_keywords_unused_inputs_and_several_outputs() -> None:
    meter = OnnxRuntimeMeter(LatencySpec(half_width=0.9, budget_s=0.05))
    inputs = ModelInputs((torch.randn(2, 4),), {"mask": torch.ones(1, 1), "unused": torch.zeros(1)})
    found = meter.measure_pair(Branches(), Branches(3), inputs)
    assert (meter.way, found.ratio > 0) == ("traced", True)


class OffByOne(nn.Module):
    """Exports as a file that computes something else, whatever exports it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + float(torch.onnx.is_in_onnx_export() or torch.compiler.is_exporting())


def test_a_runtime_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "onnx_bytes", onnx_runtime.traced_onnx_bytes)
    meter = OnnxRuntimeMeter(LatencySpec(half_width=0.9, budget_s=0.05))
    model = OffByOne()
    with pytest.raises(MeterError, match="differs from torch by"):
        meter.measure_pair(model, model, ModelInputs((torch.randn(1, 4),)))
    assert meter.way == "torch.export"  # both ways were tried
    with pytest.raises(MeterError, match="differs from torch by inf"):
        check_parity([torch.zeros(2)], [torch.zeros(3)], "float32", "a runtime")
    check_parity([torch.ones(2) + 1e-5], [torch.ones(2)], "float32", "a runtime")


def test_both_sides_of_a_pair_are_exported_the_same_way(monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnx_runtime.traced_onnx_bytes

    def traced(model, args, kwargs):
        if model[0].out_features == 5:
            raise TraceError("not this one")
        return real(model, args, kwargs)

    ways: list[tuple[int, str]] = []

    class Watching(OnnxRuntimeMeter):
        def prepare(self, model, inputs):
            prepared = super().prepare(model, inputs)
            ways.append((model[0].out_features, self.way))
            return prepared

    monkeypatch.setattr(onnx_runtime, "traced_onnx_bytes", traced)
    monkeypatch.setattr(onnx_runtime, "onnx_bytes", real)  # 2 s where tracing takes 0.1
    meter = Watching(LatencySpec(half_width=0.9, budget_s=0.05))
    dense, odd = (nn.Sequential(nn.Linear(4, width)) for width in (8, 5))
    meter.measure_pair(dense, odd, ModelInputs((torch.randn(1, 4),)))
    assert ways == [(8, "traced"), (8, "torch.export"), (5, "torch.export")]


def test_onnxruntime_refuses_a_type_that_it_lacks() -> None:
    with pytest.raises(UsageError, match="does not compute in on a CPU; set float32"):
        OnnxRuntimeMeter(LatencySpec(dtype="bfloat16"))


def test_without_a_gpu_cuda_says_so_and_a_gpu_profile_is_modelled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="needs an NVIDIA GPU and torch"):
        CudaMeter(LatencySpec())
    for runtime in ("torch", "cuda"):
        choice = choose_meter(LatencySpec(runtime=runtime), load_device("nvidia-h200"))
        assert choice.meter is None
        assert choice.modelled_because.startswith("latency is modelled: ")
        assert "torch sees no GPU" in choice.modelled_because
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "NVIDIA GeForce RTX 4090")
    other = choose_meter(LatencySpec(runtime="cuda"), load_device("nvidia-h200"))
    assert "calls itself NVIDIA GeForce RTX 4090" in other.modelled_because
    assert isinstance(choose_meter(LatencySpec(runtime="cuda"), load_device("rtx-4090")).meter, CudaMeter)
    assert "latency.runtime: cuda would" in choose_meter(LatencySpec(), load_device("rtx-4090")).modelled_because
    with pytest.raises(UsageError, match="measures on the GPU; leave it out"):
        CudaMeter(LatencySpec(affinity=(0,)))


def test_more_threads_than_cores_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert isinstance(choose_meter(LatencySpec(threads=2), load_device("local-cpu")).meter, TorchMeter)
    with pytest.raises(UsageError, match=r"latency.threads is 3 and this machine has 2 cores, .* set at most 2"):
        choose_meter(LatencySpec(threads=3), load_device("local-cpu"))


def test_a_device_refuses_runtimes_that_do_not_measure_it() -> None:
    with pytest.raises(
        UsageError, match="'local-cpu' is measured by torch, torch_compile, onnxruntime, not by runtime"
    ):
        choose_meter(LatencySpec(runtime="cuda"), load_device("local-cpu"))
    assert isinstance(
        choose_meter(LatencySpec(runtime="onnxruntime"), load_device("local-cpu")).meter, OnnxRuntimeMeter
    )


def test_threads_of_one_session_do_not_spin_into_the_other() -> None:
    """After a run of two threads, this process must not go on burning a core."""
    from autoprune.graph.export import traced_onnx_bytes
    from autoprune.graph.session import onnx_session

    model = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 512))
    x = torch.randn(64, 512)
    session = onnx_session(traced_onnx_bytes(model, (x,)), threads=2)
    for _ in range(20):
        session.run(None, {session.get_inputs()[0].name: x.numpy()})
    before = time.process_time()
    time.sleep(0.1)
    assert time.process_time() - before < 0.05


def test_a_plug_in_may_measure_any_device(tmp_path: Path) -> None:
    class Anywhere(TorchMeter):
        any_device = True

    RUNTIMES.add("anywhere", Anywhere)
    try:
        assert isinstance(choose_meter(LatencySpec(runtime="anywhere"), load_device("raspberry-pi-5")).meter, Anywhere)
    finally:
        RUNTIMES._items.pop("anywhere")
