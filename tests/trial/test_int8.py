"""int8 as a choice of the search: what the cost model says is int8 is what ONNX Runtime makes int8."""

from __future__ import annotations

import pickle

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_task import agreement, images, labelled, small_net, task
from test_costs import CONFIGS, config, network
from torch import nn

from autoprune.cost.int8 import int8_scales, int8_workload
from autoprune.cost.storage import size_bytes
from autoprune.cost.workload import workload_of
from autoprune.errors import ExportError, TaskError
from autoprune.graph.groups import find_groups
from autoprune.pruning.plan import make_plan
from autoprune.pruning.scores import ScoreBook
from autoprune.pruning.surgery import prune
from autoprune.spec.config import PruningConfig
from autoprune.spec.hardware import load_device
from autoprune.spec.study import StudySpec, resolve_study
from autoprune.trial.costs import TrialCosts
from autoprune.trial.int8 import quantized
from autoprune.trial.runner import TrialRunner
from autoprune.trial.shipped import check_precisions
from autoprune.trial.task import Calibration, Task


class Mixed(nn.Module):
    """An embedding, a grouped, a depthwise and a transposed convolution, attention, a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(7, 8)
        self.grouped = nn.Conv1d(8, 12, 3, padding=1, groups=2)
        self.depthwise = nn.Conv1d(12, 12, 3, padding=1, groups=12)
        self.up = nn.ConvTranspose1d(12, 6, 2, stride=2)
        self.norm = nn.LayerNorm(6)
        self.query, self.key = nn.Linear(6, 4), nn.Linear(6, 4, bias=False)
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.depthwise(self.grouped(self.table(tokens).mT).relu()).relu()
        x = self.norm(self.up(x).mT)
        weights = (self.query(x) @ self.key(x).mT).softmax(-1)
        return self.head((weights @ x).mean(1))


def tokens(count: int, seed: int) -> torch.Tensor:
    return torch.randint(0, 7, (count, 6), generator=torch.Generator().manual_seed(seed))


def int8_file(data: bytes) -> tuple[int, int]:
    """Return the elements of all int8 tensors of rank 2 and more in a file, and the scales of those of rank above 2."""
    held = {item.name: numpy_helper.to_array(item) for item in onnx.load_from_string(data).graph.initializer}
    whole = {name: value for name, value in held.items() if value.dtype == np.int8 and value.ndim > 1}
    scales = sum(held[name.replace("_quantized", "_scale")].size for name in whole)
    return sum(value.size for value in whole.values()), scales


@pytest.mark.parametrize(("make", "inputs"), [(Mixed, tokens(2, 0)), (small_net, images(2, 0))], ids=["mixed", "small"])
def test_the_bytes_are_those_of_the_file_that_onnx_runtime_writes(make, inputs):
    torch.manual_seed(0)
    net = make().eval()
    for tensor in net.state_dict().values():
        tensor[tensor == 0] = 1  # nothing is stored as a bitmask
    scales = int8_scales(workload_of(net, (inputs,)))
    weights = dict(net.named_parameters())
    made = quantized(net, Calibration(inputs, [inputs]))
    assert int8_file(made.module.data) == (sum(weights[name].numel() for name in scales), sum(scales.values()))
    rest = sum(t.numel() * t.element_size() for name, t in net.state_dict().items() if name not in scales)
    quantised = sum(weights[name].numel() for name in scales)
    assert size_bytes(net, scales) == rest + quantised + 4 * sum(scales.values())


def test_a_sparse_int8_weight_is_stored_with_a_bitmask_of_one_byte_values():
    net = nn.Linear(64, 64, bias=False)
    net.weight.data[:48] = 0  # 1024 of 4096 stay
    assert size_bytes(net, {"weight": 64}) == 1024 + 4096 // 8 + 4 * 64


def test_a_product_reads_a_quarter_of_the_bytes_and_a_softmax_all_of_them():
    net = Mixed().eval()
    before = workload_of(net, (tokens(2, 0),))
    after = int8_workload(before)
    assert [(op.macs, op.c_in, op.c_out) for op in after.ops] == [(op.macs, op.c_in, op.c_out) for op in before.ops]
    ops = {op.weight_name or op.operator: (op, new) for op, new in zip(before.ops, after.ops, strict=True)}
    old, new = ops["key.weight"]
    assert (new.dtype, new.weight_bytes, new.input_bytes) == ("int8", old.weight_bytes // 4, old.input_bytes // 4)
    old, new = ops["head.weight"]
    assert new.weight_bytes == 3 * 6 + 4 * 3, "a bias is 32 bits wide"
    old, new = next(pair for name, pair in ops.items() if "softmax" in name)
    assert new == old
    assert after.dtype == "int8"


@pytest.mark.parametrize("device", ["raspberry-pi-5", "nvidia-h200", "eyeriss"])
@pytest.mark.parametrize("layers", CONFIGS)
def test_int8_costs_before_building_are_what_counting_gives(layers, device):
    net = network()
    inputs = (torch.randn(2, 3, 12, 12),)
    graph = find_groups(net, inputs)
    book = ScoreBook(Calibration(inputs).evidence(net, graph, 0))
    elsewhere = {"raspberry-pi-4": load_device("raspberry-pi-4")}
    costs = TrialCosts(
        net, graph, (inputs, {}), load_device(device), "torch", precisions=("fp32", "int8"), devices=elsewhere
    )
    asked = config(graph, **layers)
    in_int8 = asked.model_copy(update={"precision": "int8"})
    plan = make_plan(asked, graph, book)
    told, counted = costs.of_config(in_int8), costs.count(prune(net, plan), plan, "int8")
    assert told is not None
    assert told.values == counted.values
    assert told.executed == pytest.approx(counted.executed)
    assert told.level_bytes == pytest.approx(counted.level_bytes)
    assert told.prediction.seconds == pytest.approx(counted.prediction.seconds)
    assert told.elsewhere["raspberry-pi-4"].latency_s == pytest.approx(counted.elsewhere["raspberry-pi-4"].latency_s)
    assert told.elsewhere["raspberry-pi-4"].energy_j == pytest.approx(counted.elsewhere["raspberry-pi-4"].energy_j)
    as_float = costs.of_config(asked)
    assert as_float is not None
    assert told.values["macs"] == as_float.values["macs"]
    assert told.values["size_bytes"] < 0.5 * as_float.values["size_bytes"]
    assert told.values["dram_bytes"] < 0.5 * as_float.values["dram_bytes"]
    assert set(told.executed) >= {"int8"}


def spec(**more) -> StudySpec:
    rules = [{"granularity": "channel", "criterion": "magnitude_l1", "sparsity": [0.0, 0.5]}]
    data = {
        "schema": "autoprune/study/1",
        "task": "small_task.py:task",
        "device": "raspberry-pi-5",
        "space": {"schema": "autoprune/space/1", "name": "s", "rules": rules},
        "objectives": ["accuracy_drop", "size_bytes"],
        "precision": ["fp32", "int8"],
    }
    return resolve_study(StudySpec.model_validate(data | more))


@pytest.fixture(scope="module")
def runner():
    return TrialRunner(task(), spec(devices=["nvidia-h200", "raspberry-pi-4"]))


def half(runner, precision) -> PruningConfig:
    layers = {"inner": [{"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5}]}
    data = runner.dense_config.to_data() | {"layers": layers, "precision": precision}
    return PruningConfig.model_validate(data)


def test_a_trial_scores_the_file_that_production_ships(runner, tmp_path):
    import autoprune

    dense = runner.run_dense(0)
    as_float, in_int8 = (runner.run(half(runner, p), n, "uniform", dense) for n, p in ((1, "fp32"), (2, "int8")))
    known = task()
    smaller = autoprune.apply(known.model, in_int8.config, known.example_inputs, batches=known.batches)
    record = autoprune.quantize(
        smaller, tmp_path / "n.onnx", known.example_inputs, known.batches, evaluate=known.evaluate
    )
    assert in_int8.score == record.score
    assert as_float.score == record.float_score
    assert "int8 calibrated on 32 samples" in in_int8.recovery
    assert runner.test_score(in_int8.config) is not None
    assert in_int8.values["size_bytes"] < as_float.values["size_bytes"] / 2
    assert in_int8.values["latency_ms"] < as_float.values["latency_ms"]
    assert in_int8.energy.mj < as_float.energy.mj
    assert "int8" in in_int8.latency.meter


def test_every_trial_is_costed_on_the_further_devices(runner):
    dense = runner.run_dense(0)
    assert [value.ratio for value in dense.devices.values()] == [1.0, 1.0]
    record = runner.run(half(runner, "fp32"), 1, "uniform", dense)
    assert list(record.devices) == ["nvidia-h200", "raspberry-pi-4"]
    other = TrialRunner(task(), spec(device="raspberry-pi-4", precision=None))
    there = other.run(half(runner, "fp32"), 1, "uniform", other.run_dense(0))
    value = record.devices["raspberry-pi-4"]
    assert value.latency_ms == pytest.approx(there.latency.ms)
    assert value.ratio == pytest.approx(there.latency.ratio)
    assert value.energy_mj == pytest.approx(there.energy.mj)
    assert not value.measured
    assert other.run_dense(0).devices is None


class Sorter(nn.Module):
    """Sums what a product gives along the batch: one sample of a file for any batch size computes something else."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(self.inner(x).mT @ self.inner(x)).abs()


def test_a_network_that_cannot_be_quantised_is_the_failure_of_its_trial():
    net = Sorter().eval()
    x = torch.randn(5, 4)
    known = Task(net, x, evaluate=lambda model: float(model(x).sum()), batches=[x])
    rules = [{"granularity": "weight", "criterion": "magnitude_l1", "sparsity": [0.0, 0.5]}]
    run = TrialRunner(known, spec(space={"schema": "autoprune/space/1", "name": "s", "rules": rules}))
    dense = run.run_dense(0)
    asked = run.dense_config.model_copy(update={"precision": "int8"})
    with pytest.raises(Exception, match=r"torch.onnx cannot translate the model|ONNX Runtime cannot quantise"):
        run.run(asked, 1, "int8", dense)


def test_int8_without_calibration_data_is_told_before_any_trial():
    with pytest.raises(TaskError, match=r"the task has no batches; give Task\.batches, or take int8 out"):
        check_precisions(("fp32", "int8"), Calibration(images(1, 0)))
    check_precisions(("fp32",), Calibration(images(1, 0)))


def test_the_file_stands_for_the_network_wherever_one_is_scored():
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = small_net()

        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"logits": self.net(x), "twice": 2 * self.net(x)}

    net = Named().eval()
    module = quantized(net, Calibration(images(2, 0), [images(8, 3)])).module
    found = module(images(5, 1))
    assert set(found) == {"logits", "twice"}
    assert next(module.parameters()).device.type == "cpu"
    data = labelled(net.net, 64, 1)
    assert agreement(lambda x: module(x)["logits"], data) > 0.9  # type: ignore[arg-type]
    there = pickle.loads(pickle.dumps(module))
    assert torch.equal(there(images(5, 1))["twice"], found["twice"]), "it may be sent to where latency is measured"


def test_a_network_that_is_off_by_too_much_is_refused(monkeypatch):
    monkeypatch.setattr("autoprune.trial.int8.MAX_DIFFERENCE", 1e-6)
    with pytest.raises(ExportError, match=r"differ by .* export in float32"):
        quantized(small_net(), Calibration(images(2, 0), [images(8, 3)]))


def test_what_was_measured_on_a_further_device_stands_with_its_energy_at_that_latency(runner):
    dense = runner.run_dense(0)
    scored = runner.score(half(runner, "fp32"), 1, "uniform", dense)
    there = runner.modelled(scored.costs).model_copy(
        update={"ms": 7.0, "ratio": 0.7, "ratio_low": 0.6, "ratio_high": 0.8, "meter": "measured: by hand", "pairs": 5}
    )
    own = runner.modelled(scored.costs)
    record = runner.record(scored, own, dense, 0.0, {"raspberry-pi-4": there})
    other = TrialRunner(task(), spec(device="raspberry-pi-4", precision=None))
    expected = other.record(other.score(half(runner, "fp32"), 1, "uniform", other.run_dense(0)), there, None)
    value = record.devices["raspberry-pi-4"]
    assert (value.latency_ms, value.ratio, value.ratio_low, value.ratio_high) == (7.0, 0.7, 0.6, 0.8)
    assert value.energy_mj == pytest.approx(expected.energy.mj), "as if it were the study's own device"
    assert value.measured
    assert value.meter == "measured: by hand"
    assert not record.devices["nvidia-h200"].measured
    assert record.latency == own
