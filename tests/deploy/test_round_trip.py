"""Config, apply, save, load, the same bits, ONNX, the same numbers. All networks: ``reports/round-trip``."""

import pytest
from round_trip import go_round

NETWORKS = (
    "resnet-padding",
    "mobilenet-v2-se",
    "grouped",
    "two-branch",
    "u-net",
    "shared-weights",
    "vit",
    "rotary-grouped",
    "lstm",
    "tied-autoencoder",
)
"""One of every way in which channels are coupled: padding, gates, groups, two inputs, concat, ties, heads."""


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_comes_back_the_same(name, tmp_path):
    exporting = name in ("resnet-padding", "vit", "shared-weights")  # the rest is in the table: seconds each
    trip = go_round(name, tmp_path, (".onnx", ".pt2") if exporting else ())
    assert trip.pruned < trip.dense
    assert trip.same_bits
    assert trip.like
    assert trip.expanded < 1e-5
    assert len(trip.exported) == 2 * exporting
    assert all(difference < 1e-5 for difference in trip.exported.values())
