"""Costs of any pruned version of a model, from counts alone: nothing is built and nothing runs.

Made once from the dense model and its graph, it takes thousands of candidates as arrays and returns arrays::

    model = CostModel(net, graph, (x,))
    candidates = model.asked.configs(configs)  # or .fractions(kept, pattern, sparsity, patterns)
    counts = model.counts(candidates)  # macs, params, size_bytes, ...: shape (n,)
    device = DeviceCosts(model, profile, runtime)
    device.costs(candidates)  # traffic, latency, energy

MACs are, to the integer, what fvcore counts of the model that surgery makes; the constructor checks that on a model
with units of all groups cut at random, and a model for which it does not hold is refused with the reason.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.cost.blueprint import Blueprint, BlueprintError, draw_blueprint
from autoprune.cost.candidates import Asked, Candidates
from autoprune.cost.extents import Floats, Ints
from autoprune.cost.int8 import int8_scales, int8_workload, scale_groups
from autoprune.cost.macs import MacCount, count_macs
from autoprune.cost.stored import StoredTensors
from autoprune.cost.table import DENSE, OpTable, product_macs
from autoprune.cost.traits import OpTraits, Sums
from autoprune.graph.blocks import is_within
from autoprune.graph.groups import ModelGraph
from autoprune.pruning.plan import cuts_of
from autoprune.pruning.surgery import cut
from autoprune.spec.config import Precision

__all__ = ["BlueprintError", "CostModel", "Counts"]


_FEW = 64
"""Most candidates whose sizes are kept: asking for counts and for costs on some devices lays them out once."""


@dataclass(frozen=True)
class Counts:
    """What is known of ``n`` candidates on any device.

    Attributes:
        macs: As fvcore counts them, shape (n,).
        effective_macs: Those whose weight is not zero, shape (n,).
        params: Parameters, zeros included, shape (n,).
        size_bytes: Weights in the best storage format of each tensor, shape (n,).
        layer_macs: MACs of each layer, shape (n, layers).
        layer_channels: Output channels of each layer, shape (n, layers).
        layer_density: Share of each layer's weights that its mask keeps, shape (n, layers).
    """

    macs: Ints
    effective_macs: Ints
    params: Ints
    size_bytes: Ints
    layer_macs: Ints
    layer_channels: Ints
    layer_density: Floats


class CostModel:
    """Costs of pruned versions of one model as functions of counts.

    Args:
        model: The dense model; left as it is.
        graph: Its layers and groups.
        args: Positional inputs, of the batch that costs are wanted for.
        kwargs: Keyword inputs.
        seed: Of the cuts that the functions are read off and checked on.

    Attributes:
        blueprint: Every size as a function of the units that groups keep.
        dense: What fvcore says of the dense model.
        asked: Makes candidates of configs, plans, or arrays of fractions.
        layers: Names of the layers, in the order of all arrays.
        groups: Names of the groups, likewise.
        precision: Of what is costed; :meth:`in_int8` gives the other.

    Raises:
        BlueprintError: Costs of this model do not follow from counts; count each smaller model.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ModelGraph,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.graph = graph
        self.precision: Precision = "fp32"
        self._model = model
        self.layers = tuple(graph.layers)
        self.groups = tuple(graph.groups)
        self.blueprint: Blueprint = draw_blueprint(model, graph, args, kwargs, seed)
        self.dense: MacCount = count_macs(model, args, kwargs)
        self.asked = Asked(graph, self._weight_sizes)
        self.stored = StoredTensors(model, self.blueprint)
        self._ops = _OpFunctions(self.blueprint)
        self._last: _LaidOut | None = None
        self._inside = _inside(self.blueprint, self.layers)
        self._columns = [self.stored.names.index(layer.weight) for layer in graph.layers.values()]
        self._weights = _weights(self.blueprint, self.stored)
        place = {column: layer for layer, column in enumerate(self._columns)}
        pairs = [(op, place[stored]) for stored, op in zip(*self._weights, strict=True) if stored in place]
        self._masked = np.array(pairs, np.int64).reshape(-1, 2).T
        self._check(model, args, kwargs, seed)

    def in_int8(self) -> CostModel:
        """Return the same model's costs after static int8 quantisation: same MACs and parameters, other bytes."""
        workload = self.blueprint.workload
        made = copy.copy(self)
        made.precision = "int8"
        made.blueprint = replace(self.blueprint, workload=int8_workload(workload))
        channels = self.blueprint.fields["c_out"].tolist()
        scales: dict[str, tuple[tuple[int, ...], int]] = {}
        for name in int8_scales(workload):
            number, op = next((n, op) for n, op in enumerate(workload.ops) if op.weight_name == name)
            scales[name] = ((channels[number],), scale_groups(op)) if op.macs else ((), 1)
        made.stored = StoredTensors(self._model, made.blueprint, scales)
        made._ops, made._last = _OpFunctions(made.blueprint), None
        return made

    def counts(self, candidates: Candidates) -> Counts:
        """Return what is known of candidates on any device; in tens of microseconds for one."""
        laid = self._laid_out(candidates)
        sizes, elements, nonzeros = laid.sizes, laid.elements, laid.nonzeros
        counted = self._ops.counted(sizes, laid.products)
        which, ops = self._weights
        numel = elements[:, which]
        zero = (laid.products[:, ops] // np.maximum(numel, 1)) * (numel - nonzeros[:, which])
        macs = counted.sum(axis=1)
        layer = elements[:, self._columns]
        kept = np.where(candidates.pattern == DENSE, layer, candidates.nonzeros)
        return Counts(
            macs=macs,
            effective_macs=macs - zero.sum(axis=1),
            params=elements[:, self.stored.parameters].sum(axis=1),
            size_bytes=self.stored.size_bytes(elements, nonzeros),
            layer_macs=self._inside_sums.of(counted),
            layer_channels=sizes[:, self._channels],
            layer_density=kept / np.maximum(layer, 1),
        )

    def table(self, candidates: Candidates) -> OpTable:
        """Return every operator of every candidate with its dimensions, bytes and zeros: what predictors read."""
        laid = self._laid_out(candidates)
        density = np.ones((len(candidates), len(self.blueprint.workload.ops)))
        which, at = self._weights
        density[:, at] = laid.nonzeros[:, which] / np.maximum(laid.elements[:, which], 1)
        pattern, patterns = self._op_patterns(candidates, density)
        return self._ops.table(laid, density, pattern, patterns)

    def exact_traffic(self, candidates: Candidates) -> NDArray[np.bool_]:
        """Say for which candidates the same operators run as in the dense model, shape (n,).

        For the others eager torch makes a copy more or less, so traffic, activations, latency and energy are close but
        not what counting the built model gives. MACs, parameters and size are exact for all.
        """
        blueprint = self.blueprint
        gone = blueprint.units - candidates.kept
        loose = np.array([name in blueprint.loose for name in blueprint.groups], np.bool_)
        thin = np.array([name in blueprint.thin for name in blueprint.groups], np.bool_)
        other = (gone > 0)[:, loose].any(axis=1) | ((candidates.kept == 1) & (gone > 0))[:, thin].any(axis=1)
        same: NDArray[np.bool_] = ~other
        return same

    def exact_size(self, candidates: Candidates) -> NDArray[np.bool_]:
        """Say for which candidates ``size_bytes`` and ``effective_macs`` do not depend on which units go, shape (n,).

        They do where a trained tensor that is cut or masked has zeros of its own, unevenly spread.
        """
        uneven = self.stored.uneven
        cut_axes = (self.blueprint.units != candidates.kept).any(axis=1)
        masked = (candidates.pattern != DENSE)[:, [self.stored.own_zeros[column] for column in self._columns]]
        exact: NDArray[np.bool_] = ~((cut_axes & bool(uneven)) | masked.any(axis=1))
        return exact

    def without(self, blocks: Collection[str]) -> NDArray[np.bool_]:
        """Return which operators run where residual blocks are gone, shape (ops,).

        Args:
            blocks: Qualified names of the modules.
        """
        ops = self.blueprint.workload.ops
        return np.array([not (op.module in blocks or is_within(op.module, blocks)) for op in ops], np.bool_)

    def by_layer(self, values: Floats) -> Floats:
        """Sum what operators have, shape (n, ops), over those inside each layer's module; shape (n, layers)."""
        summed: Floats = values @ self._inside
        return summed

    def _laid_out(self, candidates: Candidates) -> _LaidOut:
        """Return the sizes of candidates; those asked for last, if few, are kept for the next question about them."""
        kept = self._last
        if kept is not None and kept.candidates is candidates:
            return kept
        sizes = self.blueprint.sizes(candidates.kept)
        elements = self.stored.elements(sizes)
        fields = _Fields(self.blueprint, sizes)
        laid = _LaidOut(
            candidates, sizes, elements, self._nonzeros(candidates, elements), fields, self._ops.products(fields)
        )
        self._last = laid if len(candidates) <= _FEW else None
        return laid

    def _nonzeros(self, candidates: Candidates, elements: Ints) -> Ints:
        nonzeros = self.stored.nonzeros(elements)
        masked = candidates.pattern != DENSE
        if masked.any():
            nonzeros[:, self._columns] = np.where(masked, candidates.nonzeros, nonzeros[:, self._columns])
        return nonzeros

    def _op_patterns(self, candidates: Candidates, density: Floats) -> tuple[Ints, tuple[str, ...]]:
        """Return the pattern of each operator's weight; zeros that no mask made are of the pattern "weight"."""
        patterns = list(candidates.patterns)
        pattern = np.full(density.shape, DENSE, np.int64)
        if patterns:
            ops, layers = self._masked
            pattern[:, ops] = candidates.pattern[:, layers]
        zeros = (density < 1) & (pattern == DENSE)
        if zeros.any():
            if "weight" not in patterns:
                patterns.append("weight")
            pattern[zeros] = patterns.index("weight")
        return pattern, tuple(patterns)

    def _weight_sizes(self, kept: Ints, layer: str) -> tuple[Ints, ...]:
        sizes = self.blueprint.sizes(kept)
        axes = list(self.blueprint.stored[self.graph.layers[layer].weight])
        axes.insert(0, axes.pop(self.graph.layers[layer].out_dim))
        return tuple(sizes[:, axis] for axis in axes)

    @cached_property
    def _inside_sums(self) -> Sums:
        return Sums(self._inside.astype(np.int64))

    @cached_property
    def _channels(self) -> list[int]:
        return [self.blueprint.stored[layer.weight][layer.out_dim] for layer in self.graph.layers.values()]

    def _check(self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any] | None, seed: int) -> None:
        """Compare with fvcore: the dense model, and one with units of all groups cut.

        Raises:
            BlueprintError: They differ.
        """
        rng = np.random.default_rng(seed + 1)
        units = self.blueprint.units
        some = units - np.array([rng.integers(0, count) for count in units], np.int64)
        for kept in (units, some) if len(units) else (units,):
            gone = {
                name: torch.from_numpy(rng.permutation(int(total))[: int(total - stay)].copy())
                for name, total, stay in zip(self.groups, units, kept, strict=True)
                if stay < total
            }
            counted = count_macs(cut(model, cuts_of(self.graph, gone)), args, kwargs) if gone else self.dense
            nothing = np.full((1, len(self.layers)), DENSE, np.int64)
            told = self.counts(Candidates(kept[None], nothing, nothing))
            for name, macs in zip(self.layers, told.layer_macs[0].tolist(), strict=True):
                if counted.modules.get(name, 0) != macs:
                    raise BlueprintError(f"fvcore counts {counted.modules.get(name, 0)} MACs in {name!r}, not {macs}")
            if counted.total != int(told.macs[0]):
                raise BlueprintError(f"fvcore counts {counted.total} MACs in all, not {told.macs[0]}")


class _OpFunctions:
    """Dimensions, bytes and counts of all operators from the values of the blueprint's functions."""

    def __init__(self, blueprint: Blueprint) -> None:
        self._blueprint = blueprint
        self._ops = blueprint.workload.ops
        self._traits = OpTraits(self._ops)
        shapes = dict.fromkeys(shape for operands in blueprint.operands for shape in operands)
        shapes |= dict.fromkeys(blueprint.tensors)
        number = {shape: n for n, shape in enumerate(shapes)}
        self._products = blueprint.products(list(number))
        self._read: dict[str, Sums] = {}
        for role in ("weight", "input", "output"):
            bytes_of = np.zeros((len(number), len(self._ops)), np.int64)
            for op, (described, operands) in enumerate(zip(self._ops, blueprint.operands, strict=True)):
                for operand, shape in zip(described.operands, operands, strict=True):
                    if operand.role == role:
                        bytes_of[number[shape], op] += operand.itemsize
            self._read[role] = Sums(bytes_of)
        self._tensors = [number[shape] for shape in blueprint.tensors]
        self._tensor_itemsize = np.array([t.itemsize for t in blueprint.workload.tensors], np.int64)
        self._lookups = np.array([op.operator == "embedding" for op in self._ops], np.bool_)
        extra = [
            (op, number[blueprint.operands[op][0 if each.per_input else -1]], each.per_input or each.per_output)
            for op, each in enumerate(self._ops)
            if each.per_input or each.per_output
        ]
        self._extra = [np.array(column, np.int64) for column in zip(*extra, strict=True)] if extra else []

    def products(self, fields: _Fields) -> Ints:
        """Return the multiply-adds of products, shape (n or 1, ops)."""
        return product_macs(self._traits, fields)

    def counted(self, sizes: Ints, products: Ints) -> Ints:
        """Return what fvcore counts, shape (n, ops)."""
        counted = np.repeat(products, len(sizes), axis=0) if len(products) < len(sizes) else products.copy()
        if self._extra:
            ops, shapes, each = self._extra
            counted[:, ops] += self._products.elements(sizes)[:, shapes] * each
        return counted

    def table(self, laid: _LaidOut, density: Floats, pattern: Ints, patterns: tuple[str, ...]) -> OpTable:
        """Return all arrays."""
        elements = self._products.elements(laid.sizes)
        moved = {role: bytes_of.of(elements) for role, bytes_of in self._read.items()}
        weights = moved["weight"]
        if self._lookups.any():  # only the rows looked up are read
            weights = np.where(self._lookups, np.minimum(weights, moved["output"]), weights)
        workload = self._blueprint.workload
        return OpTable(
            traits=self._traits,
            outputs=workload.outputs,
            batch=workload.batch,
            dtype=workload.dtype,
            **vars(laid.fields),
            macs=laid.products,
            weight_bytes=weights,
            input_bytes=moved["input"],
            output_bytes=moved["output"],
            density=density,
            pattern=pattern,
            patterns=patterns,
            tensor_bytes=elements[:, self._tensors] * self._tensor_itemsize,
        )


class _Fields:
    """Dimensions of operators, (1, ops) for those that never change, else (n, ops)."""

    N: Ints
    c_in: Ints
    c_out: Ints
    groups: Ints
    H: Ints
    W: Ints
    E: Ints
    F: Ints

    def __init__(self, blueprint: Blueprint, sizes: Ints) -> None:
        for name, which in blueprint.fields.items():
            rows = blueprint.extents.dense[None] if blueprint.constant[name] else sizes
            setattr(self, name, rows[:, which])


@dataclass(frozen=True)
class _LaidOut:
    """Sizes of candidates: of all functions, stored tensors with those that are not zero, operators, and their MACs."""

    candidates: Candidates
    sizes: Ints
    elements: Ints
    nonzeros: Ints
    fields: _Fields
    products: Ints


def _inside(blueprint: Blueprint, layers: tuple[str, ...]) -> Floats:
    """Return which operators run inside each layer's module, shape (ops, layers)."""
    table = np.zeros((len(blueprint.workload.ops), len(layers)))
    for row, op in enumerate(blueprint.workload.ops):
        for column, name in enumerate(layers):
            table[row, column] = op.module == name or not name or op.module.startswith(name + ".")
    return table


def _weights(blueprint: Blueprint, stored: StoredTensors) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return stored tensors and the operators that multiply by them, as pairs of numbers."""
    ops = blueprint.workload.ops
    pairs = [
        (stored.names.index(op.weight_name), number)
        for number, op in enumerate(ops)
        if op.kind in ("conv", "gemm") and op.weight_name is not None
    ]
    which, at = (np.array(column, np.int64) for column in (zip(*pairs, strict=True) if pairs else ((), ())))
    return which, at
