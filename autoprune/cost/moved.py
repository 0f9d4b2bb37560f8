"""Bytes that many versions of one network move over each memory level: the arrays behind ``cost.traffic``."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.cost.attention import Attention
from autoprune.cost.dataflow import dataflow_of
from autoprune.cost.extents import Floats, Ints
from autoprune.cost.residency import Activations, Paid, Residency
from autoprune.cost.savings import SavingsModel, SavingsTable, format_factor
from autoprune.cost.table import OpTable
from autoprune.cost.tiling import Tensors, TileSearch, window_of
from autoprune.cost.workload import Workload
from autoprune.spec.hardware import DeviceProfile


@dataclass(frozen=True)
class Bounds:
    """What stands around the traffic over the last edge, shape (n, ops).

    Attributes:
        lower: Bytes that no tiling can avoid, given what is resident.
        compulsory: Each tensor once, resident or not.
        untiled: Both operands of every MAC.
    """

    lower: Floats
    compulsory: Floats
    untiled: Floats


@dataclass(frozen=True)
class Moved:
    """Bytes of ``n`` versions.

    Attributes:
        level_bytes: Over the inner edge of each memory level but the innermost, shape (n, ops, levels - 1).
        dense_level_bytes: The same with the zeros stored and read.
        live: Bytes of all activations that exist while an operator runs, shape (n, ops).
        savings: What zeros save.
        fused: Which operators run inside an earlier one, shape (ops,).
        bounds: Of the last edge; None where they were not asked for.
    """

    level_bytes: Floats
    dense_level_bytes: Floats
    live: Floats
    savings: SavingsTable
    fused: NDArray[np.bool_]
    bounds: Bounds | None = None


@dataclass(frozen=True)
class _Tiled:
    """Convolutions and products of ``n`` versions: sizes of one group of each, and what all of them hold together."""

    tensors: Tensors
    groups: Ints
    plain: Ints
    weights: Floats


@dataclass(frozen=True)
class _Edge:
    """One edge: its number, activations, what of them crosses it, which weights do (n or 1, ops), the room inside."""

    number: int
    activations: Activations
    paid: Paid
    weights: Floats
    capacity: float


class TrafficModel:
    """Traffic on one device of versions of a network that run the same operators.

    Args:
        table: Operators of any version; sizes that channels never change are taken from it.
        profile: The device.
        runtime: Only its entries of ``sparse_support`` count; None: those of any runtime.
        warm: Whether weights that fit beside the activations stay from the run before.
        most_images: Most images, or rows, that each operator may see in any version, where they vary: shape (ops,).
    """

    def __init__(
        self,
        table: OpTable,
        profile: DeviceProfile,
        runtime: str | None = None,
        warm: bool = False,
        most_images: Ints | None = None,
    ) -> None:
        self._profile, self._warm = profile, warm
        self._ops = ops = table.ops
        sizes = tuple(table.tensor_bytes[0].tolist())
        flow = dataflow_of(Workload(ops, table.batch, table.dtype, sizes, table.outputs), profile.runtime.fusion)
        self.fused = np.array([step in flow.fused for step in range(len(ops))], np.bool_)
        self._residency = Residency(flow, ops)
        self._savings = SavingsModel(table.traits, profile, runtime)
        self._tiled = np.flatnonzero(table.traits.of_kind("conv", "gemm"))
        self._attention = Attention(table, profile, most_images)
        self._recurrent = table.traits.of_kind("recurrent")
        self._itemsize = table.traits.itemsize
        self._packed_in, self._packed_out = (self._packed(name) for name in ("input_density", "output_density"))
        at = self._tiled
        self._element = self._itemsize[at].astype(np.float64)
        self._element_in, self._element_out = (self._element * each[at] for each in (self._packed_in, self._packed_out))
        self._touches = np.array([bool(ops[n].reads or ops[n].writes) for n in at.tolist()], np.bool_)
        self._searches = [self._search(table, level.effective_bytes, most_images) for level in profile.memory[:-1]]

    def moved(self, table: OpTable, bounds: bool = False) -> Moved:
        """Return the traffic of all versions in ``table``.

        Args:
            table: Versions that run the operators that this was made for.
            bounds: Whether the bounds are wanted too.
        """
        savings = self._savings.of(table)
        held = None if self._attention.fused else self._attention.score_bytes(table)
        activations = self._residency.activations(table.tensor_bytes, held)
        tiled = self._sizes(table)
        levels = self._profile.memory[:-1]
        model = np.empty((*activations.live.shape, len(levels)))
        dense = np.empty_like(model)
        around = None
        for number, (level, search) in enumerate(zip(levels, self._searches, strict=True)):
            capacity = level.effective_bytes
            paid = self._residency.paid(activations, capacity)
            weights = self._weights_paid(table, activations, capacity)
            edge = _Edge(number, activations, paid, weights, capacity)
            model[:, :, number] = dense[:, :, number] = self._plain(table, edge)
            if self._tiled.size:
                model[:, self._tiled, number], dense[:, self._tiled, number] = self._tiled_ops(
                    tiled, edge, savings, search
                )
            if bounds and number == len(levels) - 1:
                around = self._bounds(table, tiled, edge, savings, model[:, :, number])
        return Moved(model, dense, activations.live, savings, self.fused, around)

    def _weights_paid(self, table: OpTable, activations: Activations, capacity: float) -> Floats:
        """Return which weights are read over an edge: a norm inside a fused operator is folded into those before it."""
        if not self._warm:
            return np.where(self.fused, 0.0, 1.0)[None]
        beside = activations.live.max(axis=1, keepdims=True)
        kept = table.weight_bytes.sum(axis=1, keepdims=True) + beside <= capacity
        return np.where(kept | self.fused, 0.0, 1.0)

    def _plain(self, table: OpTable, edge: _Edge) -> Floats:
        """Return the bytes of operators that read and write once; attention and recurrence read again what must be."""
        model = self._read_once(table, edge)
        at = self._attention.at
        if at.size:
            model = np.repeat(model, len(edge.activations.live) // len(model), axis=0)
            model[:, at] = self._attention_bytes(table, edge, model[:, at])
        if self._recurrent.any():
            # Each step reads all weights; where they do not fit beside the activations they come again each time.
            crowded = table.weight_bytes + edge.activations.live > edge.capacity
            again = np.where(crowded, (table.E - 1.0) * table.weight_bytes, 0.0)
            model = np.where(self._recurrent, np.minimum(model + again, self._untiled(table, edge)), model)
        return model

    def _read_once(self, table: OpTable, edge: _Edge) -> Floats:
        """Return what no schedule avoids, given what is resident."""
        inputs, outputs = table.input_bytes * self._packed_in, table.output_bytes * self._packed_out
        moved: Floats = inputs * edge.paid.inputs + outputs * edge.paid.outputs + table.weight_bytes * edge.weights
        return moved

    def _every_tensor(self, table: OpTable, edge: _Edge) -> Floats:
        """Return each tensor once, resident or not."""
        inputs, outputs = table.input_bytes * self._packed_in, table.output_bytes * self._packed_out
        once: Floats = inputs * edge.activations.read + outputs * self._residency.written
        return once + table.weight_bytes * ~self.fused

    def _untiled(self, table: OpTable, edge: _Edge) -> Floats:
        """Return both operands of every MAC, for attention and recurrence; each tensor once for the others."""
        once = self._every_tensor(table, edge)
        products = np.where(self._recurrent, 2.0 * table.macs * self._itemsize, 0.0)
        if self._attention.at.size:
            products = np.repeat(products, len(once) // len(products), axis=0)
            products[:, self._attention.at] = self._attention.untiled(table)
        return once + products

    def _attention_bytes(self, table: OpTable, edge: _Edge, once: Floats) -> Floats:
        """Return the bytes of attention, given what it moves if nothing is read twice; shape (n, attention)."""
        at = self._attention.at
        if self._attention.fused:
            crowded = once + self._attention.again(table, edge.capacity)
        else:
            crowded = np.maximum(once, self._attention.by_products(table, edge.number))
        fits = edge.activations.live[:, at] <= edge.capacity
        moved: Floats = np.where(fits, once, np.minimum(crowded, self._untiled(table, edge)[:, at]))
        return moved

    def _tiled_ops(
        self, tiled: _Tiled, edge: _Edge, savings: SavingsTable, search: TileSearch
    ) -> tuple[Floats, Floats]:
        """Return the bytes of convolutions and products, by tiles where not everything fits; shape (n, tiled).

        The second are those with the weights' zeros stored.
        """
        fits = self._fits(edge)
        if fits.all():
            return self._side_by_side(tiled, edge, savings)
        tensors = self._tensors(tiled, edge, savings)
        stored = [tensors.weight_bytes]
        if (savings.support[:, self._tiled] >= 0).any():
            stored.append(self._element[None])
        searched = [tiled.groups * each for each in search.models(tensors, *stored)]
        if not fits.any():
            return searched[0], searched[-1]
        model, dense = self._side_by_side(tiled, edge, savings)
        return np.where(fits, model, searched[0]), np.where(fits, dense, searched[-1])

    def _side_by_side(self, tiled: _Tiled, edge: _Edge, savings: SavingsTable) -> tuple[Floats, Floats]:
        """Return the same where all that lives fits: nothing is read twice, and what is resident is not read at all."""
        at = self._tiled
        paid, weights = edge.paid, edge.weights[:, at]
        rest = tiled.plain * self._element_in * paid.inputs[:, at]
        rest = rest + tiled.groups * tiled.tensors.outputs * self._element_out * paid.outputs[:, at]
        return rest + tiled.weights * savings.weight_factor[:, at] * weights, rest + tiled.weights * weights

    def _fits(self, edge: _Edge) -> NDArray[np.bool_]:
        fits: NDArray[np.bool_] = (edge.activations.live[:, self._tiled] <= edge.capacity) & self._touches
        return fits

    def _bounds(self, table: OpTable, tiled: _Tiled, edge: _Edge, savings: SavingsTable, model: Floats) -> Bounds:
        lower, once, untiled = (
            np.array(np.broadcast_to(each, model.shape))
            for each in (self._read_once(table, edge), self._every_tensor(table, edge), self._untiled(table, edge))
        )
        at = self._tiled
        if at.size:
            found = self._searches[-1].search(self._tensors(tiled, edge, savings))
            fits, whole = self._fits(edge), tiled.groups * found.untiled
            lower[:, at] = np.where(fits, model[:, at], tiled.groups * found.lower_bound)
            once[:, at] = tiled.groups * found.compulsory
            untiled[:, at] = np.where(fits, np.maximum(whole, model[:, at]), whole)
        return Bounds(lower, once, untiled)

    def _sizes(self, table: OpTable) -> _Tiled:
        """Return the sizes of one group of each tiled operator; a transposed convolution is a product (see tiling)."""
        at = self._tiled
        groups = table.groups[:, at]
        images, c_in, c_out = table.N[:, at], table.c_in[:, at] // groups, table.c_out[:, at] // groups
        outputs = images * c_out * table.E[:, at] * table.F[:, at]
        transposed = table.traits.transposed[at]
        if transposed.any():
            images = np.where(transposed, images * table.H[:, at] * table.W[:, at], images)
            c_out = np.where(transposed, c_out * table.traits.taps[at], c_out)
        one = self._element[None]
        return _Tiled(
            tensors=Tensors(images, c_in, c_out, outputs, one, one, one),
            groups=groups,
            plain=groups * images * c_in * self._area,
            weights=groups * c_out * c_in * self._taps * self._element,
        )

    def _tensors(self, tiled: _Tiled, edge: _Edge, savings: SavingsTable) -> Tensors:
        at = self._tiled
        return tiled.tensors._replace(
            input_bytes=self._element_in * (edge.activations.read[:, at] > 0),
            weight_bytes=self._element * savings.weight_factor[:, at],
            output_bytes=self._element_out * self._residency.written[:, at],
        )

    def _search(self, table: OpTable, capacity: float, most_images: Ints | None) -> TileSearch:
        windows, images = [], []
        self._area, self._taps = np.ones((2, len(self._tiled)), np.int64)
        accumulator = self._profile.compute.accumulator_bytes
        for place, number in enumerate(self._tiled.tolist()):
            sizes: dict[str, Any] = {n: int(getattr(table, n)[0, number]) for n in ("N", "H", "W", "E", "F")}
            op = replace(self._ops[number], **sizes)
            window = window_of(op, accumulator)
            windows.append(window)
            self._area[place], self._taps[place] = window.rows * window.columns, window.R * window.S
            fold = op.H * op.W if op.transposed else 1
            varies = most_images is not None and most_images[number] > 0
            most = int(most_images[number]) if varies and most_images is not None else op.N
            images.append((most * fold, not varies))
        return TileSearch(windows, images, capacity)

    def _packed(self, which: str) -> Floats:
        """Return stored over raw bits of activations, on a chip that compresses them."""
        form = self._profile.runtime.activation_format
        if form is None:
            return np.ones(len(self._ops))
        return np.array([format_factor(form, getattr(op, which), 8 * op.itemsize) for op in self._ops])
