"""The example scripts run as they are, learn, and end in a smaller network."""

import importlib
import warnings
from pathlib import Path

import pytest

import autoprune
from autoprune import examples

pytestmark = pytest.mark.slow
NAMES = {"plain_loop": "sklearn", "with_lightning": "lightning", "with_transformers": "transformers"}


@pytest.mark.parametrize("name", NAMES)
def test_an_example_ends_in_a_smaller_network_that_works(name, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what third parties say while they are imported and train
        pytest.importorskip(NAMES[name])
        score = importlib.import_module(f"autoprune.examples.{name}").main(tmp_path)
    assert score > 0.7, "one digit in ten would be chance"
    about = autoprune.read_pruned(tmp_path / "pruned.safetensors")
    assert about.kept
    assert set(about.config.layers) <= {axis.tensor.removesuffix(".weight") for axis in about.kept}
    cut = {axis.tensor for axis in about.kept}
    assert all(about.dense_shape(name) != about.tensors[name].shape for name in cut)


@pytest.mark.parametrize("name", NAMES)
def test_an_example_fits_a_screen_and_a_half(name):
    assert len((Path(examples.__file__).parent / f"{name}.py").read_text().splitlines()) < 80
