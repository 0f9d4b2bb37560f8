"""Surgery: a smaller module from slices of the dense one, without copying what is cut away.

A copy takes a memo of what is already copied (``graph.copying``); the sliced tensors are put there first, so the
copy is made of the slices and nothing else is ever duplicated. Integer attributes (``out_channels``, ``groups``, ...)
then follow the shapes of the tensors, which is also all that a file needs to rebuild the module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.graph.blocks import is_within, skip_blocks
from autoprune.graph.copying import copy_module
from autoprune.graph.rules.call import HEAD_COUNTS, SIZE, WIDTHS
from autoprune.graph.skip import Skip
from autoprune.graph.walk import integers, stored_tensors
from autoprune.pruning.kept import kept_of, note_cut
from autoprune.pruning.plan import Cuts, Plan


def prune(model: nn.Module, plan: Plan) -> nn.Module:
    """Return the pruned copy of a dense model: channels cut out, weights outside the masks zero."""
    smaller = cut(model, plan.cuts, plan.skipped)
    parameters = dict(smaller.named_parameters()) if plan.masks else {}
    with torch.no_grad():
        for name, mask in plan.masks.items():
            parameters[name].masked_fill_(~mask.to(parameters[name].device), 0.0)
    return smaller


def cut(model: nn.Module, cuts: Cuts, skipped: Mapping[str, int] | None = None) -> nn.Module:
    """Return a copy of ``model`` in which each tensor keeps only the places in ``cuts``. The model is not changed.

    Args:
        model: The dense model.
        cuts: What stays of each tensor that gets smaller.
        skipped: Residual blocks that the identity replaces, as in :class:`autoprune.pruning.plan.Plan`.
    """
    if skipped:
        cuts = {axis: places for axis, places in cuts.items() if not is_within(axis[0], skipped)}
    by_tensor: dict[str, dict[int, Tensor]] = {}
    sizes: dict[str, int] = {}
    for (name, dim), places in cuts.items():
        if dim == SIZE:
            sizes[name] = places.numel()
        else:
            by_tensor.setdefault(name, {})[dim] = places
    tensors = stored_tensors(model)
    replacements = {}
    for name, dims in by_tensor.items():
        tensor = tensors[name].detach()
        for dim, places in dims.items():
            tensor = tensor.index_select(dim, places.to(tensor.device))
        replacements[name] = tensor
    smaller = _copy_with(
        model, {id(tensors[name]): value for name, value in replacements.items()}, sizes, skipped or {}
    )
    note_cut(smaller, kept_of(model), cuts, {name: tuple(tensors[name].shape) for name in by_tensor})
    return smaller


def rebuild(
    model: nn.Module,
    tensors: Mapping[str, Tensor],
    sizes: Mapping[str, int] | None = None,
    skipped: Mapping[str, int] | None = None,
) -> nn.Module:
    """Return a copy of ``model`` that holds other tensors, of any shape and precision.

    Args:
        model: The dense model; not changed.
        tensors: Name in the ``state_dict`` to what stands in its place; it moves to the model's device.
        sizes: What :func:`head_sizes` said of the smaller model.
        skipped: What :func:`skipped_blocks` said of it.
    """
    held = {
        **dict(model.named_parameters(remove_duplicate=False)),
        **dict(model.named_buffers(remove_duplicate=False)),
    }  # a state_dict names a shared tensor more than once
    # Copied: kernels round differently on memory that is not aligned, such as that of a file.
    replacements = {id(held[name]): tensor.to(held[name].device, copy=True) for name, tensor in tensors.items()}
    return _copy_with(model, replacements, sizes or {}, skipped or {})


def head_sizes(model: nn.Module) -> dict[str, int]:
    """Return the integer attributes that surgery may change beside those that shapes determine, by qualified name."""
    return {
        f"{name}.{key}" if name else key: value
        for name, module in model.named_modules()
        for key, value in integers(module).items()
        if key in HEAD_COUNTS or key in WIDTHS
    }


def skipped_blocks(model: nn.Module) -> dict[str, int]:
    """Return the residual blocks of a smaller model that the identity has replaced, with the form of their result."""
    return {name: module.length for name, module in model.named_modules() if isinstance(module, Skip)}


def _copy_with(
    model: nn.Module, replacements: Mapping[int, Tensor], sizes: Mapping[str, int], skipped: Mapping[str, int]
) -> nn.Module:
    """Copy a model with other tensors: from the ``id`` of a tensor to what stands in its place."""
    memo: dict[int, Any] = {}
    for tensor in (*model.parameters(), *model.buffers()) if replacements else ():
        value = replacements.get(id(tensor))
        if value is not None:
            is_parameter = isinstance(tensor, nn.Parameter)
            memo[id(tensor)] = nn.Parameter(value, requires_grad=tensor.requires_grad) if is_parameter else value
    made = {id(tensor) for tensor in memo.values()}
    skip_blocks(model, skipped, memo)
    smaller = copy_module(model, memo)
    for module in smaller.modules():
        if not made.isdisjoint(map(id, (*module._parameters.values(), *module._buffers.values()))):
            follow_shapes(module)
    for name, count in sizes.items():
        owner, _, attribute = name.rpartition(".")
        setattr(smaller.get_submodule(owner), attribute, count)
    return smaller


def follow_shapes(module: nn.Module) -> None:
    """Set the integer attributes of a standard module to what the shapes of its tensors say."""
    tensors = (module._parameters.get("weight"), module._buffers.get("running_mean"))
    shape = next((tensor.shape for tensor in tensors if tensor is not None), None)
    if shape is None:
        return
    if isinstance(module, nn.modules.conv._ConvTransposeNd):
        module.in_channels, module.out_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, nn.modules.conv._ConvNd):
        depthwise = module.groups > 1 and module.groups == module.in_channels
        if depthwise:
            module.groups = shape[0] // (module.out_channels // module.groups)
        module.out_channels, module.in_channels = shape[0], shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = shape[0]
    elif isinstance(module, nn.Embedding):
        module.num_embeddings, module.embedding_dim = shape
    elif isinstance(module, nn.PReLU):
        module.num_parameters = shape[0]
    elif type(module).__name__ == "Conv1D" and len(shape) == 2:  # of transformers
        vars(module).update(nx=shape[0], nf=shape[1])
