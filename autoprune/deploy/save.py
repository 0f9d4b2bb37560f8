"""Pruned networks to disk and back: bit-identical, as the dense class, or as the same cut on another checkpoint."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from autoprune.cost.storage import format_of
from autoprune.deploy.export import write_bytes
from autoprune.deploy.pruned_file import (
    MASK,
    PrunedFile,
    TensorEntry,
    checksum,
    damaged,
    packed_places,
    read_file,
    restored_tensor,
)
from autoprune.errors import ConfigError
from autoprune.graph.blocks import is_within
from autoprune.graph.trace import fingerprint
from autoprune.graph.walk import first_names
from autoprune.pruning.kept import Kept, kept_of, note_kept
from autoprune.pruning.surgery import head_sizes, rebuild, skipped_blocks
from autoprune.spec.config import PruningConfig


def save_pruned(
    model: nn.Module, path: Path | str, config: PruningConfig | None = None, *, dense: nn.Module | None = None
) -> int:
    """Write a pruned network.

    Args:
        model: What :func:`autoprune.apply` or :meth:`autoprune.Sparsifier.finalize` returned.
        path: The file to write; it appears whole or not at all.
        config: The config it was made by; kept in the file, and its fingerprint guards loading.
        dense: The dense network, for its fingerprint where there is no config.

    Returns:
        Bytes written.

    Raises:
        ConfigError: Neither config nor dense network says which architecture this is, or the state of the model is not
            made of tensors alone.
    """
    if config is None and dense is None:
        raise ConfigError("a pruned file needs the dense architecture it belongs to; give config, or dense")
    identity = config.model.fingerprint if config is not None else fingerprint(dense)  # type: ignore[arg-type]
    entries, tensors = _packed(model)
    kept, place_sets = packed_places(kept_of(model))
    about = PrunedFile(
        fingerprint=identity,
        tensors=entries,
        head_sizes=head_sizes(model),
        kept=kept,
        place_sets=place_sets,
        skipped=skipped_blocks(model),
        config=config,
        version=version("autoprune"),
        versions={"torch": version("torch"), "safetensors": version("safetensors")},
    )
    text = about.to_json()
    path = Path(path)
    write_bytes(path, save(tensors, metadata={"autoprune": text, "sha256": checksum(text, tensors)}))
    return path.stat().st_size


def _packed(model: nn.Module) -> tuple[dict[str, TensorEntry], dict[str, Tensor]]:
    """Return how each entry of the state is stored, and the tensors of the file; shared tensors are stored once."""
    tensors: dict[str, Tensor] = {}
    entries: dict[str, TensorEntry] = {}
    first_name: dict[tuple[int, tuple[int, ...], tuple[int, ...]], str] = {}
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise ConfigError(
                f"state_dict entry {name!r} is {type(value).__name__}, and a file without pickle holds tensors alone; "
                "remove that extra state before saving"
            )
        tensor = value.detach().cpu().contiguous()
        place = (value.data_ptr(), tuple(value.shape), value.stride())
        if value.numel() and place in first_name:
            entries[name] = TensorEntry(shape=tuple(tensor.shape), stored="alias", alias=first_name[place])
            continue
        first_name[place] = name
        stored = format_of(tensor)
        entries[name] = TensorEntry(shape=tuple(tensor.shape), stored=stored)
        if stored == "bitmask":
            mask = tensor != 0
            tensors[name] = tensor[mask]
            tensors[name + MASK] = torch.from_numpy(np.packbits(mask.reshape(-1).numpy()))
        else:
            tensors[name] = tensor
    return entries, tensors


def load_pruned(model: nn.Module, path: Path | str) -> nn.Module:
    """Rebuild a pruned network from a fresh instance of its class.

    Args:
        model: The unmodified class, as it was before pruning, with any weights; not changed.
        path: What :func:`save_pruned` wrote.

    Returns:
        The smaller module, in evaluation mode, in the precision it was saved in; its outputs are bit-identical to those
        of the module that was saved.

    Raises:
        SpecError: The file is missing, damaged, or not of autoprune.
        ConfigError: The file is for another architecture.
    """
    about, tensors = _checked(model, Path(path))
    smaller = rebuild(model, tensors, about.head_sizes, about.skipped)
    kept = about.kept_places(str(path))
    if kept is not None:
        note_kept(smaller, kept)
    return smaller.eval()


def expand_pruned(model: nn.Module, path: Path | str) -> nn.Module:
    """Write a pruned network's weights back to their places in the dense class; what was removed is zero.

    It computes what the smaller network computes, up to rounding, in any tool that knows the dense class only, and can
    be trained on at its full size (dense-sparse-dense training, Han et al. 2017, arXiv 1607.04381).

    Args:
        model: As for :func:`load_pruned`.
        path: As for :func:`load_pruned`.

    Returns:
        A module of dense shapes, in evaluation mode.

    Raises:
        SpecError: As :func:`load_pruned`.
        ConfigError: As :func:`load_pruned`, and where the file holds no kept indices or lacks whole residual blocks.
    """
    about, tensors = _checked(model, Path(path))
    kept = _known(about, str(path))
    if about.skipped:
        raise ConfigError(
            f"{path} lacks the residual block {min(about.skipped)!r}, which the dense class cannot express by zeros; "
            "use load_pruned"
        )
    first, dense = first_names(model), model.state_dict()
    whole = {}
    for name, tensor in tensors.items():
        for dim, size in enumerate(dense[name].shape):
            places = kept.places.get((first[name], dim))
            if places is not None:
                shape = (*tensor.shape[:dim], size, *tensor.shape[dim + 1 :])
                # A variance of zero would be a division by nearly zero, should the channel come back.
                filled = torch.full(shape, float(name.endswith("running_var")), dtype=tensor.dtype)
                tensor = filled.index_copy(dim, places, tensor)
        whole[name] = tensor
    return rebuild(model, whole).eval()


def prune_like(model: nn.Module, path: Path | str) -> nn.Module:
    """Cut and mask another checkpoint exactly as a pruned file was: the same channels, heads and zeros.

    No score is computed, so it needs neither data nor the search's device: for another seed, a longer trained
    checkpoint, or to compare training from scratch with the inherited weights (Liu et al. 2019, arXiv 1810.05270).

    Args:
        model: The dense network with the weights to be cut; not changed.
        path: As for :func:`load_pruned`.

    Returns:
        The smaller module with the weights of ``model``, in evaluation mode. Weights of two dimensions or more that are
        zeros in a file's bitmask are zero.

    Raises:
        SpecError: As :func:`load_pruned`.
        ConfigError: As :func:`expand_pruned`.
    """
    about, tensors = _checked(model, Path(path))
    kept = _known(about, str(path))
    first = first_names(model)
    cut = {}
    for name, dense in model.state_dict().items():
        if is_within(name, about.skipped):
            continue
        value = dense.detach().clone()
        for dim in range(value.dim()):
            places = kept.places.get((first[name], dim))
            if places is not None:
                value = value.index_select(dim, places.to(value.device))
        if about.tensors[name].stored == "bitmask" and value.dim() > 1:
            value = value.masked_fill(tensors[name].to(value.device) == 0, 0.0)
        cut[name] = value
    smaller = rebuild(model, cut, about.head_sizes, about.skipped)
    note_kept(smaller, kept)
    return smaller.eval()


def _checked(model: nn.Module, path: Path) -> tuple[PrunedFile, dict[str, Tensor]]:
    """Return a file's document and its tensors in their pruned shapes, all of which fit the dense model."""
    about, stored = read_file(path)
    dense = model.state_dict()
    found = fingerprint(model)
    if found != about.fingerprint:
        raise ConfigError(
            f"{path} is for the architecture {about.fingerprint}, the model is {found}{_differences(about, dense)}; "
            "build the model exactly as it was before pruning"
        )
    absent = sorted(set(about.skipped) - {name for name, _ in model.named_modules()})
    if absent:
        raise ConfigError(f"{path} leaves out {absent[0]!r}, which the model lacks; build it as it was before pruning")
    expected = {name for name in dense if not is_within(name, about.skipped)}
    if expected != set(about.tensors):
        odd = sorted(expected ^ set(about.tensors))[0]
        raise ConfigError(f"{path} and the model differ in tensor {odd!r}; build the model as it was before pruning")
    unknown = set(about.head_sizes) - set(head_sizes(model))
    if unknown:
        raise ConfigError(
            f"{path} sets {sorted(unknown)[0]!r}, which the model lacks; build the model as it was before pruning"
        )
    kept = about.kept_places(str(path))
    first = first_names(model)
    tensors = {}
    for name, entry in about.tensors.items():
        # Before anything is unpacked: a shape that the file only claims is never allocated.
        if len(entry.shape) != dense[name].dim() or any(
            a > b for a, b in zip(entry.shape, dense[name].shape, strict=True)
        ):
            raise damaged(str(path), f"tensor {name!r} is larger than in the dense model")
        tensor = restored_tensor(name, about, stored, str(path))
        if tensor.is_floating_point() != dense[name].is_floating_point() or tuple(tensor.shape) != entry.shape:
            raise damaged(str(path), f"tensor {name!r} does not match its description")
        if kept is not None:
            _check_places(kept, first[name], tuple(dense[name].shape), tuple(tensor.shape), str(path))
        tensors[name] = tensor
    return about, tensors


def _check_places(kept: Kept, name: str, dense: tuple[int, ...], pruned: tuple[int, ...], path: str) -> None:
    for dim, (whole, left) in enumerate(zip(dense, pruned, strict=True)):
        places = kept.places.get((name, dim))
        if (left != whole) if places is None else (kept.dense[name, dim] != whole or left != len(places)):
            raise damaged(path, f"the kept indices of tensor {name!r} do not match its shape")


def _differences(about: PrunedFile, dense: dict[str, Tensor], most: int = 6) -> str:
    """Say, tensor by tensor, where a model differs from the dense network that a file came from."""
    odd = []
    for name in dict.fromkeys((*about.tensors, *dense)):
        theirs = about.dense_shape(name) if name in about.tensors else None
        ours = tuple(dense[name].shape) if name in dense else None
        if about.kept is None and theirs is not None and ours is not None:
            continue  # dense shapes are not told there
        if theirs != ours:
            odd.append(f"{name} is {theirs or 'missing'} there and {ours or 'missing'} here")
    more = f" and {len(odd) - most} more" if len(odd) > most else ""
    return f" ({', '.join(odd[:most])}{more})" if odd else ""


def _known(about: PrunedFile, path: str) -> Kept:
    kept = about.kept_places(path)
    if kept is None:
        raise ConfigError(f"{path} holds no kept indices (it was written by autoprune {about.version}); save it again")
    return kept
