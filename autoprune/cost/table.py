"""Operators of many smaller versions of one model, as arrays: what the vectorised cost models read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from autoprune.cost.extents import Floats, Ints
from autoprune.cost.traits import OpTraits
from autoprune.cost.workload import Op, Workload

FIELDS = ("N", "c_in", "c_out", "groups", "H", "W", "E", "F")
"""Dimensions of an operator."""

DENSE = -1
"""Number of the pattern of a weight without a mask."""


@dataclass(frozen=True)
class OpTable:
    """``n`` versions of a model that run the same operators on other sizes.

    Arrays have shape (n, ops), or (1, ops) where all versions are alike.

    Attributes:
        traits: What does not change: kinds, kernels, types, who reads what.
        outputs: Activations that the model returns.
        batch: Of the workload.
        dtype: Of the workload.
        N: Images, or rows.
        c_in: Input channels of all groups.
        c_out: Output channels of all groups.
        groups: Groups.
        H: Input heights.
        W: Input widths.
        E: Output heights.
        F: Output widths.
        macs: Multiply-adds of products.
        weight_bytes: Parameters and buffers that are read.
        input_bytes: Other tensors that are read.
        output_bytes: What is written.
        density: Share of the weight that is not zero.
        pattern: Number of the granularity of its zeros in ``patterns``; :data:`DENSE` for none.
        patterns: Granularity keys.
        tensor_bytes: Bytes of the activations, shape (n or 1, activations).
    """

    traits: OpTraits
    outputs: tuple[int, ...]
    batch: int
    dtype: str
    N: Ints
    c_in: Ints
    c_out: Ints
    groups: Ints
    H: Ints
    W: Ints
    E: Ints
    F: Ints
    macs: Ints
    weight_bytes: Ints
    input_bytes: Ints
    output_bytes: Ints
    density: Floats
    pattern: Ints
    patterns: tuple[str, ...]
    tensor_bytes: Ints

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operators of one version, for what does not change."""
        return self.traits.ops


def table_of(workload: Workload) -> OpTable:
    """Return the table of a single version, as it was recorded."""
    ops = workload.ops
    patterns = tuple(dict.fromkeys(op.pattern for op in ops if op.pattern is not None))

    def row(name: str) -> Ints:
        return np.array([[getattr(op, name) for op in ops]], np.int64)

    return OpTable(
        traits=OpTraits(ops),
        outputs=workload.outputs,
        batch=workload.batch,
        dtype=workload.dtype,
        **{name: row(name) for name in (*FIELDS, "macs", "weight_bytes", "input_bytes", "output_bytes")},
        density=np.array([[op.weight_density for op in ops]], np.float64),
        pattern=np.array([[DENSE if op.pattern is None else patterns.index(op.pattern) for op in ops]], np.int64),
        patterns=patterns,
        tensor_bytes=np.array([workload.tensor_bytes], np.int64).reshape(1, -1),
    )


def product_macs(traits: OpTraits, sizes: Any) -> Ints:
    """Return the multiply-adds of products from their dimensions: anything with the dimensions of :class:`OpTable`.

    A recurrent network keeps those that were recorded: no group reaches into it.
    """
    positions = sizes.E * sizes.F
    if traits.transposed.any():
        positions = np.where(traits.transposed, sizes.H * sizes.W, positions)
    products = sizes.N * (sizes.c_in // sizes.groups) * sizes.c_out * traits.taps * positions
    others = traits.recorded_macs
    attention = traits.of_kind("attention")
    if attention.any():
        others = np.where(attention, sizes.N * sizes.E * (sizes.c_in + sizes.c_out), others)
    macs: Ints = np.where(traits.of_kind("conv", "gemm"), products, others)
    return macs
