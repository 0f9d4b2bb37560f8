"""Exported files compute what the pruned network computes, under the runtime they are for, or are not written."""

import json

import architectures
import onnx
import pytest
import torch
from small_task import images, small_net, task

import autoprune
from autoprune.deploy import export as exporting
from autoprune.errors import ExportError, TraceError, UsageError
from autoprune.graph.export import onnx_bytes
from autoprune.graph.trace import fingerprint
from autoprune.spec.config import PruningConfig


def small_config():
    layers = {
        "inner": {"granularity": "channel", "criterion": "magnitude_l2", "sparsity": 0.5},
        "stem": {"granularity": "channel", "criterion": "magnitude_l2", "sparsity": 0.25},
    }
    data = {"schema": "autoprune/config/1", "model": {"fingerprint": fingerprint(small_net())}, "layers": layers}
    return PruningConfig.model_validate(data)


@pytest.fixture(scope="module")
def smaller():
    known = task()
    return autoprune.apply(known.model, small_config(), known.example_inputs, batches=known.batches)


def run_file(path, x):
    """Run an exported file by the runtime itself, not by ours."""
    if path.suffix == ".pt2":
        return torch.export.load(path).module()(x)
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_file_computes_the_same_at_any_batch_size(smaller, tmp_path, suffix):
    path = tmp_path / f"net{suffix}"
    made = autoprune.export(smaller, path, images(1, 0), config=small_config(), dynamic_batch=True)
    assert made.size_bytes == path.stat().st_size
    assert made.difference <= made.tolerance == 1e-4
    for count in (1, 2, 7):
        x = images(count, 9)
        torch.testing.assert_close(run_file(path, x), smaller(x).detach(), rtol=1e-4, atol=1e-5)


def test_removed_channels_are_gone_from_the_file_and_the_config_is_in_it(smaller, tmp_path):
    autoprune.export(smaller, tmp_path / "n.onnx", images(1, 0), config=small_config())
    held = onnx.load(tmp_path / "n.onnx")
    shapes = {item.name: tuple(item.dims) for item in held.graph.initializer}
    assert shapes["inner.weight"] == (6, 6, 3, 3) == tuple(smaller.inner.weight.shape)
    about = next(item.value for item in held.metadata_props if item.key == "autoprune")
    assert PruningConfig.model_validate(json.loads(about)) == small_config()


def test_a_file_that_computes_something_else_is_not_written(smaller, tmp_path, monkeypatch):
    data = onnx_bytes(small_net(), (images(1, 0),))
    monkeypatch.setattr(exporting, "onnx_bytes", lambda *_, **__: data)
    with pytest.raises(ExportError, match=r"differs from the model by .* where 1e-04 is allowed; nothing was written"):
        autoprune.export(smaller, tmp_path / "n.onnx", images(1, 0))
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_told(smaller, tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"ends in '\.bin'; name the file \.onnx"):
        autoprune.export(smaller, tmp_path / "n.bin", images(1, 0))
    with pytest.raises(ExportError, match="the exported model does not run"):  # no convolution of doubles there
        autoprune.export(small_net().double(), tmp_path / "n.onnx", images(1, 0).double())

    class Looping(torch.nn.Module):
        def forward(self, x):
            return x * 2 if x.sum() > 0 else x

    with pytest.raises(TraceError, match=r"torch\.export cannot follow the model"):
        autoprune.export(Looping(), tmp_path / "n.pt2", torch.ones(2, 2))
    monkeypatch.setattr("autoprune.graph.export.find_spec", lambda name: None if name == "onnxruntime" else name)
    with pytest.raises(UsageError, match=r"ONNX needs onnxruntime; pip install 'autoprune\[onnx\]'"):
        autoprune.export(smaller, tmp_path / "n.onnx", images(1, 0))
    assert not list(tmp_path.iterdir())


def test_several_inputs_by_position_or_by_name(tmp_path):
    model = architectures.randomised(architectures.TwoBranch()).eval()
    image, sound = torch.randn(2, 3, 8, 8), torch.randn(2, 2, 12)
    for inputs in ((image, sound), {"image": image, "sound": sound}):
        assert autoprune.export(model, tmp_path / "n.onnx", inputs, dynamic_batch=True).difference < 1e-5


def test_a_model_that_trains_is_exported_for_use_and_left_alone(smaller, tmp_path):
    smaller.train()
    before = smaller.norm.running_mean.clone()
    autoprune.export(smaller, tmp_path / "n.pt2", images(2, 0))
    assert smaller.training
    assert smaller.norm.training
    assert torch.equal(smaller.norm.running_mean, before)
    smaller.eval()
