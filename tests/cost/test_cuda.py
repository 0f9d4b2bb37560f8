"""The CUDA meter against a fake of torch.cuda that keeps its books: no GPU is at hand where the tests run."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from autoprune.cost.meters import CudaMeter, ModelInputs
from autoprune.cost.meters import cuda as cuda_meter
from autoprune.errors import MeterError
from autoprune.spec.latency import LatencySpec


class Fake:
    """Streams, events, graphs: a replay copies what the model makes of the tensors at the addresses it was given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stream = "default"
        self.waits: list[tuple[str, str]] = []
        self.capturing = False
        self.replays: list[bool] = []
        self.now_ms = 0.0
        for name, value in {
            "is_available": lambda: True,
            "current_device": lambda: 0,
            "get_device_name": lambda *_: "Fake GPU",
            "current_stream": lambda: Stream(self, self.stream),
            "set_stream": self._set_stream,
            "Stream": lambda: Stream(self, "side"),
            "stream": self._on,
            "CUDAGraph": lambda: Graph(self),
            "graph": self._capture,
            "Event": lambda enable_timing: Event(self),
            "synchronize": self._synchronise,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        monkeypatch.setattr(cuda_meter, "on_device", lambda model, inputs, device: (copy.deepcopy(model), inputs))

    def _set_stream(self, stream: Stream) -> None:
        self.stream = stream.name

    @contextmanager
    def _on(self, stream: Stream) -> Iterator[None]:
        before, self.stream = self.stream, stream.name
        yield
        self.stream = before

    @contextmanager
    def _capture(self, graph: Graph) -> Iterator[None]:
        self.stream, self.capturing = "capture", True
        yield  # like torch's, it leaves the stream behind where what it captures raises
        self.stream, self.capturing = "default", False

    def _synchronise(self) -> None:
        if self.capturing:
            self.capturing = False
            raise RuntimeError("operation not permitted when stream is capturing")


class Stream:
    def __init__(self, cuda: Fake, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: Stream) -> None:
        self.cuda.waits.append((self.name, other.name))


class Graph:
    def __init__(self, cuda: Fake) -> None:
        self.cuda = cuda

    def replay(self) -> None:
        self.cuda.replays.append(torch.is_inference_mode_enabled())
        self.cuda.now_ms += 0.25


class Event:
    def __init__(self, cuda: Fake) -> None:
        self.cuda, self.at, self.waited = cuda, -1.0, False

    def record(self) -> None:
        self.at = self.cuda.now_ms

    def synchronize(self) -> None:
        self.waited = True

    def elapsed_time(self, end: Event) -> float:
        assert end.waited, "the time of an event is known when it has passed"
        return end.at - self.at


class Net(nn.Module):
    copies: list[weakref.ref[Net]]

    def __init__(self, width: int = 6, synchronises: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(4, width)
        self.synchronises = synchronises

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Net.copies.append(weakref.ref(self))
        if self.synchronises:
            torch.cuda.synchronize()
        return self.layer(x)


@pytest.fixture(autouse=True)
def _no_copies() -> None:
    Net.copies = []


def test_a_graph_holds_what_it_reads_and_is_replayed_in_inference_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = Fake(monkeypatch)
    x = torch.randn(2, 4)
    inputs = ModelInputs((x,))
    prepared = CudaMeter(LatencySpec(runtime="cuda")).prepare(Net().eval(), inputs)
    assert "CUDA graph, CUDA events" in prepared.about
    assert fake.waits == [("side", "default"), ("default", "side")]  # the warm-up comes after all before it
    assert len(Net.copies) == 1 + 3 + 1  # for comparison, to warm up, and once captured
    read = weakref.ref(x)
    del x, inputs
    gc.collect()
    assert Net.copies[-1]() is not None
    assert read() is not None
    assert fake.replays == [True]
    assert prepared.run(8) == pytest.approx(0.25e-3)
    assert len(fake.replays) == 9
    assert len(Net.copies) == 5


def test_a_model_that_synchronises_is_launched_operator_by_operator_on_the_stream_from_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = Fake(monkeypatch)
    meter = CudaMeter(LatencySpec(runtime="cuda", budget_s=0.02))
    ticks = iter(range(1, 10**9))
    monkeypatch.setattr(Event, "record", lambda self: setattr(self, "at", float(next(ticks))))
    dense, candidate = Net(8).eval(), Net(6, synchronises=True).eval()
    found = meter.measure_pair(dense, candidate, ModelInputs((torch.randn(2, 4),)))
    assert "launched operator by operator" in found.meter
    assert meter.way == "launched operator by operator"
    assert fake.stream == "default"


def test_a_model_that_does_not_run_there_or_does_not_fit_is_told_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    Fake(monkeypatch)
    meter, inputs = CudaMeter(LatencySpec(runtime="cuda")), ModelInputs((torch.randn(2, 5),))
    with pytest.raises(MeterError, match=r"does not run on the GPU \(RuntimeError: mat1 and mat2"):
        meter.prepare(Net().eval(), inputs)

    def full(*_: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(cuda_meter, "on_device", full)
    with pytest.raises(MeterError, match=r"no room for both networks of a pair; set a smaller latency\.batch"):
        meter.prepare(Net().eval(), inputs)
