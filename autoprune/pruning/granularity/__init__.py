"""Granularities: the shape of what is removed. Channels, heads and residual blocks really go, weights become zero.

A weight pattern turns scores, one per weight, into a mask. Channels and heads are chosen by the group, blocks
by the stage, so they have no mask; they are here so that one list holds all keys. ``N:M`` and ``block:RxC`` are
families of keys.
"""

from __future__ import annotations

from autoprune.errors import ConfigError, unknown_name
from autoprune.pruning.granularity.block import block_granularity
from autoprune.pruning.granularity.kernel import KERNEL, PATTERN
from autoprune.pruning.granularity.n_of_m import n_of_m_granularity
from autoprune.pruning.granularity.shape import (
    CHANNEL,
    DEPTH,
    GRANULARITIES,
    HEAD,
    Granularity,
    always_fits,
    lowest,
    removed_count,
    size_of,
    unit_sums,
)
from autoprune.pruning.granularity.weights import COLUMN, ROW, WEIGHT
from autoprune.spec.config import is_n_of_m

__all__ = [
    "CHANNEL",
    "DEPTH",
    "GRANULARITIES",
    "HEAD",
    "Granularity",
    "catalogue",
    "granularity",
    "lowest",
    "removed_count",
    "size_of",
    "unit_sums",
]

for _shape in (
    WEIGHT,
    n_of_m_granularity("2:4"),
    ROW,
    COLUMN,
    KERNEL,
    PATTERN,
    Granularity(CHANNEL, "a channel with all that is coupled to it, really removed", True, None, always_fits),
    Granularity(
        HEAD, "an attention head (grouped queries: all that share a key), really removed", True, None, always_fits
    ),
    Granularity(
        DEPTH, "a residual block of a stage, replaced by the identity, really removed", True, None, always_fits
    ),
):
    GRANULARITIES.add(_shape.key, _shape)


def granularity(key: str) -> Granularity:
    """Return the granularity behind a key, also behind any of the families N:M and block:RxC.

    Raises:
        UnknownNameError: No such granularity.
        ConfigError: The key is of a family, and its numbers are not possible.
    """
    family = key.partition(":")[0]
    try:
        if key == family or key in dict(GRANULARITIES):
            return GRANULARITIES.get(key)
        if family == "block":
            return block_granularity(key)
        if is_n_of_m(key):
            return n_of_m_granularity(key)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    raise unknown_name("granularity", key, [name for name, _ in catalogue()])


def catalogue() -> list[tuple[str, str]]:
    """Return every key with what its unit is; families stand as N:M and block:RxC."""
    found = [(name, shape.unit) for name, shape in GRANULARITIES]
    return [
        *found,
        ("N:M", "M-N zeros in M consecutive inputs, for any 0 < N < M"),
        ("block:RxC", "a block of R outputs x C inputs of the 2-D weight (im2col order), as block:16x16"),
    ]
