"""Masks obey their pattern exactly, never remove more than asked, and break ties by index."""

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.errors import ConfigError, UnknownNameError
from autoprune.graph.groups import Layer
from autoprune.pruning.granularity import GRANULARITIES, catalogue, granularity, removed_count
from autoprune.pruning.granularity.kernel import PATTERNS

SIZES = {"kernel": (8, 6, 3, 3), "pattern": (8, 6, 3, 3)}
KEYS = ["weight", "row", "column", "kernel", "block:1x4", "block:4x1", "block:16x16", "block:3x5"]


def random_scores(size, seed=0):
    return torch.rand(size, generator=torch.Generator().manual_seed(seed))


def layer(shape, type_name="Conv2d", out_dim=0):
    return Layer("features.0", type_name, "features.0.weight", shape, out_dim)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("sparsity", [0.0, 0.1, 0.37, 0.5, 0.9, 0.99])
def test_units_go_whole_and_within_one_unit_of_what_was_asked(key, sparsity):
    shape = granularity(key)
    scores = random_scores(SIZES.get(key, (32, 64)))
    kept = shape.mask(scores, sparsity)
    units = shape.units(tuple(scores.shape))
    assert kept.shape == scores.shape
    assert kept.dtype == torch.bool
    assert bool(kept[units < 0].all()), "weights of no unit stay"
    count = int(units.max()) + 1
    alive = torch.tensor([bool(kept[units == u].any()) for u in range(count)])
    whole = torch.tensor([bool(kept[units == u].all()) for u in range(count)])
    assert torch.equal(alive, whole), "a unit goes whole or not at all"
    gone = int((~alive).sum())
    assert gone <= sparsity * count + 1e-6
    assert gone > sparsity * count - 1 - 1e-6 or gone == count - 1
    sums = torch.tensor([float(scores[units == u].double().sum()) for u in range(count)])
    if gone:
        assert float(sums[~alive].max()) <= float(sums[alive].min()), "the lowest go"


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(1, 6), st.integers(1, 5), st.integers(0, 3), st.integers(0, 10))
def test_every_run_of_n_of_m_has_exactly_n_left(kept, more, rows, rest, seed):
    of = kept + more
    scores = random_scores((rows, 3 * of + rest % of), seed)
    mask = granularity(f"{kept}:{of}").mask(scores, 0.0)
    runs = mask[:, : 3 * of].reshape(-1, of)
    assert bool((runs.sum(1) == kept).all())
    assert bool(mask[:, 3 * of :].all()), "what makes no whole run stays"
    values = scores[:, : 3 * of].reshape(-1, of)
    assert bool((values.masked_fill(runs, -1).amax(1) <= values.masked_fill(~runs, 2).amin(1)).all())


def test_n_of_m_runs_over_inputs_then_the_kernel():
    scores = torch.arange(2 * 4 * 3 * 3, dtype=torch.float32).reshape(2, 4, 3, 3)
    mask = granularity("2:4").mask(scores, 0.5)
    assert torch.equal(mask[0].flatten()[:8], torch.tensor([False, False, True, True] * 2))


@pytest.mark.parametrize("sparsity", [0.0, 0.2, 0.4, 5 / 9, 0.6, 0.8, 0.95])
def test_pattern_kernels_are_dense_from_the_library_or_gone(sparsity):
    scores = random_scores((8, 6, 3, 3))
    kept = granularity("pattern").mask(scores, sparsity).reshape(-1, 3, 3)
    for kernel in kept:
        known = any(torch.equal(kernel, pattern) for pattern in PATTERNS)
        assert known or bool(kernel.all()) or not bool(kernel.any())
    removed = int((~kept).sum())
    step = 5 if sparsity < 5 / 9 else 4
    assert removed <= sparsity * kept.numel() + 1e-4
    assert removed > sparsity * kept.numel() - step - 1e-4
    assert bool(kept.any())


def test_a_pattern_is_the_best_of_the_library_and_the_weakest_kernels_go():
    scores = random_scores((4, 5, 3, 3), 3)
    kept = granularity("pattern").mask(scores, 0.7).reshape(-1, 3, 3)
    flat = scores.reshape(-1, 3, 3)
    best = [max(float(kernel[pattern].sum()) for pattern in PATTERNS) for kernel in flat]
    alive = [bool(mask.any()) for mask in kept]
    for kernel, mask, most in zip(flat, kept, best, strict=True):
        assert not bool(mask.any()) or float(kernel[mask].sum()) == pytest.approx(most)
    assert max(b for b, a in zip(best, alive, strict=True) if not a) <= min(
        b for b, a in zip(best, alive, strict=True) if a
    )


def test_the_library_has_eight_patterns_of_four_with_the_centre():
    assert PATTERNS.shape == (8, 3, 3)
    assert bool((PATTERNS.sum((1, 2)) == 4).all())
    assert bool(PATTERNS[:, 1, 1].all())
    assert len({tuple(pattern.reshape(-1).tolist()) for pattern in PATTERNS}) == 8


@pytest.mark.parametrize("key", [*KEYS, "2:4", "1:4", "3:7", "pattern"])
def test_ties_go_to_the_lower_index(key):
    ties = torch.ones(SIZES.get(key, (32, 64)))
    first, second = (granularity(key).mask(ties.clone(), 0.5) for _ in range(2))
    assert torch.equal(first, second)
    if granularity(key).units is not None:
        units = granularity(key).units(tuple(ties.shape))
        assert torch.equal(first, (units >= removed_count(int(units.max()) + 1, 0.5)) | (units < 0))


def test_blocks_tile_from_the_first_place_and_the_rest_stays():
    units = granularity("block:2x3").units((5, 7))
    expected = torch.tensor([[0, 0, 0, 1, 1, 1, -1]] * 2 + [[2, 2, 2, 3, 3, 3, -1]] * 2 + [[-1] * 7])
    assert torch.equal(units, expected)


def test_removed_count_never_exceeds_and_always_leaves_one():
    for units, sparsity in product((1, 2, 3, 10, 64), (0, 0.1, 0.3, 0.5, 0.7, 0.999)):
        assert removed_count(units, sparsity) <= units * sparsity + 1e-6
        assert removed_count(units, sparsity) < units
    assert removed_count(0, 0.5) == 0
    assert removed_count(10, 0.7) == 7, "0.7 * 10 is just below 7 in binary"


@pytest.mark.parametrize(
    ("key", "where", "words"),
    [
        ("2:4", layer((8, 3, 3, 3)), "multiple of 4, layer 'features.0' has 27"),
        ("block:16x16", layer((8, 3, 3, 3)), "larger than the 2-D weight of layer 'features.0', which is 8x27"),
        ("kernel", layer((8, 3), "Linear"), "needs a convolution, layer 'features.0' is Linear"),
        ("pattern", layer((8, 3, 1, 1)), "needs 3x3 kernels, layer 'features.0' is Conv2d with 1x1 kernels"),
        ("pattern", layer((8, 3), "Linear"), "is Linear with no kernels"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_layer_and_the_rule(key, where, words):
    assert words in granularity(key).refusal(where)


@pytest.mark.parametrize("key", ["weight", "row", "column", "3:9", "block:4x3", "kernel", "pattern"])
def test_what_fits_is_not_refused(key):
    assert granularity(key).refusal(layer((8, 3, 3, 3))) == ""


def test_transposed_convolutions_count_their_own_outputs():
    assert granularity("1:8").refusal(layer((8, 3, 1, 1), "ConvTranspose2d", out_dim=1)) == ""
    assert "has 3" in granularity("1:2").refusal(layer((8, 3, 1, 1), "Conv2d"))


@pytest.mark.parametrize("key", ["4:4", "5:4", "0:4", "2:", "block:0x4", "block:4", "block:1x1", "block:axb"])
def test_impossible_numbers_of_a_family_say_what_is_possible(key):
    with pytest.raises(ConfigError, match=r"as in 2:4|as block:16x16"):
        granularity(key)


def test_unknown_keys_say_what_was_meant():
    with pytest.raises(UnknownNameError, match="weight"):
        granularity("wieght")
    with pytest.raises(UnknownNameError):
        granularity("blok:4x4")


def test_the_catalogue_holds_every_key_and_family():
    keys = [key for key, _ in catalogue()]
    assert set(GRANULARITIES.names()) < set(keys)
    assert {"N:M", "block:RxC"} < set(keys)


@settings(max_examples=150, deadline=None)
@given(
    key=st.sampled_from(["weight", "row", "column", "kernel", "pattern", "block:2x3", "block:4x4", "2:4", "1:3"]),
    out=st.integers(1, 9),
    inner=st.integers(1, 9),
    sparsity=st.one_of(st.sampled_from([0.0, 0.1, 0.3, 0.5, 5 / 9, 0.7, 0.9]), st.floats(0, 0.999)),
    seed=st.integers(0, 5),
)
def test_what_stays_is_known_by_counts_alone(key: str, out: int, inner: int, sparsity: float, seed: int) -> None:
    shape, size = granularity(key), (out, inner, 3, 3)
    scores = torch.rand(size, generator=torch.Generator().manual_seed(seed))
    assert shape.mask is not None
    assert shape.kept is not None
    others = np.array([[1, 5], [2, 2], [7, 3]])
    sizes = (np.array([out, *others[:, 0]]), np.array([inner, *others[:, 1]]), 3, 3)
    counted = shape.kept(sizes, np.array([sparsity, 0.2, 0.5, 0.9]))
    assert counted[0] == int(shape.mask(scores, sparsity).sum())
    assert len(counted) == 4
