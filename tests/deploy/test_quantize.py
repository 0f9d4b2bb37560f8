"""int8 files: smaller, close, and measured beside float32 in the same record."""

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_task import agreement, images, labelled, small_net, task
from test_export import small_config

import autoprune
from autoprune.errors import ConfigError, ExportError, UsageError
from autoprune.spec.document import parse_document
from autoprune.spec.study import LatencySpec

QUICK = LatencySpec(budget_s=0.3)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    known = task()
    smaller = autoprune.apply(known.model, small_config(), known.example_inputs, batches=known.batches)
    path = tmp_path_factory.mktemp("int8") / "n.onnx"
    data = labelled(smaller, 256, 7)
    record = autoprune.quantize(
        smaller,
        path,
        images(1, 0),
        known.batches,
        config=small_config(),
        evaluate=lambda model: agreement(model, data),
        latency=QUICK,
    )
    return smaller, path, record


def test_score_size_and_latency_stand_in_one_record(made):
    _, path, record = made
    assert record.float_score == 1.0
    assert 0.9 < record.score <= 1.0
    assert record.samples == 32
    assert 0 < record.difference < 0.1
    assert record.latency.ratio > 0
    assert record.latency.pairs >= 2
    assert "int8 against float32" in record.latency.meter
    kept = {item.key: item.value for item in onnx.load(path).metadata_props}["autoprune.quantized"]
    assert parse_document(type(record), json.loads(kept), "file") == record


def test_the_weights_are_int8_with_one_scale_per_output_channel(made):
    smaller, path, _ = made
    held = {item.name: numpy_helper.to_array(item) for item in onnx.load(path).graph.initializer}
    whole = {name: value for name, value in held.items() if value.dtype == np.int8 and value.ndim == 4}
    assert sorted(value.shape for value in whole.values()) == sorted(
        tuple(layer.weight.shape) for layer in (smaller.stem, smaller.inner, smaller.outer)
    )
    name = next(name for name, value in whole.items() if value.shape == tuple(smaller.inner.weight.shape))
    scales = held[name.replace("_quantized", "_scale")]
    back = whole[name].astype(np.float32) * scales[:, None, None, None]
    largest = np.abs(smaller.inner.weight.detach().numpy()).max(axis=(1, 2, 3))
    assert scales.shape == largest.shape
    np.testing.assert_allclose(scales, largest / 64, rtol=1e-4)  # seven bits
    assert np.abs(back - smaller.inner.weight.detach().numpy()).max() <= scales.max() * 0.51


def test_a_file_computes_nearly_the_same_at_another_batch_size(made):
    import onnxruntime

    smaller, path, _ = made
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    x = images(5, 11)
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    wanted = smaller(x).detach()
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 0.1


def test_wrong_use_is_told(tmp_path):
    net, x = small_net(), images(1, 0)
    with pytest.raises(UsageError, match=r"int8 networks are ONNX files, name it \.onnx"):
        autoprune.quantize(net, tmp_path / "n.pt2", x, [x])
    with pytest.raises(UsageError, match="calibration is 'max'; give one of minmax, entropy, percentile"):
        autoprune.quantize(net, tmp_path / "n.onnx", x, [x], calibration="max")
    with pytest.raises(ConfigError, match="batches gave none; give at least one batch"):
        autoprune.quantize(net, tmp_path / "n.onnx", x, [])
    assert not list(tmp_path.iterdir())


def test_products_do_not_saturate_and_the_class_stays(tmp_path):
    known = task()
    record = autoprune.quantize(
        known.model, tmp_path / "n.onnx", images(64, 1), known.batches, evaluate=known.evaluate, latency=QUICK
    )
    assert record.difference < 0.05
    assert record.score >= record.float_score - 0.05


def test_a_file_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("autoprune.trial.int8.MAX_DIFFERENCE", 1e-6)
    known = task()
    with pytest.raises(ExportError, match=r"differ by .* export in float32"):
        autoprune.quantize(known.model, tmp_path / "n.onnx", images(4, 1), known.batches, latency=QUICK)
    assert not (tmp_path / "n.onnx").exists()
