"""Pruned networks on disk: safetensors, no pickle. A tensor is stored dense or as a bitmask, whichever is smaller.

The file holds one entry per tensor of the ``state_dict``. A tensor with many zeros is two entries: ``NAME`` with its
non-zero values, and ``NAME::mask`` with one bit per element. What is needed to rebuild the architecture is the shape of
every tensor, and the number of heads where a module counts them; both stand in the metadata as a document.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from autoprune.cost.storage import format_of
from autoprune.errors import ConfigError, SpecError
from autoprune.graph.trace import fingerprint
from autoprune.pruning.surgery import head_sizes, resize
from autoprune.spec.config import PruningConfig
from autoprune.spec.document import Document, parse_document

MASK = "::mask"


class TensorEntry(Document):
    """How one tensor is stored.

    Attributes:
        shape: Its shape after pruning.
        stored: "dense", or "bitmask" with its non-zero values.
        alias: Another name for a tensor already stored (shared weights).
    """

    shape: tuple[int, ...]
    stored: Literal["dense", "bitmask", "alias"]
    alias: str | None = None


class PrunedFile(Document):
    """What is needed to rebuild a pruned network.

    Attributes:
        fingerprint: Of the dense architecture.
        tensors: ``state_dict`` key to how it is stored.
        head_sizes: Integer attributes that no shape tells (``blocks.0.attn.num_heads``) to their values after pruning.
        config: The config it was made by.
        version: Version of autoprune that wrote it.
    """

    schema_: Literal["autoprune/pruned/1"] = Field("autoprune/pruned/1", alias="schema")
    fingerprint: str
    tensors: dict[str, TensorEntry]
    head_sizes: dict[str, int] = Field(default_factory=dict)
    config: PruningConfig | None = None
    version: str


def save_pruned(
    model: nn.Module, path: Path | str, config: PruningConfig | None = None, *, dense: nn.Module | None = None
) -> int:
    """Write a pruned network.

    Args:
        model: What :func:`autoprune.apply` returned.
        path: The file to write; it appears whole or not at all.
        config: The config it was made by; kept in the file, and its fingerprint guards loading.
        dense: The dense network, for its fingerprint where there is no config.

    Returns:
        Bytes written.

    Raises:
        ConfigError: Neither config nor dense network says which architecture this is.
    """
    from importlib.metadata import version

    if config is None and dense is None:
        raise ConfigError("a pruned file needs the dense architecture it belongs to; give config, or dense")
    identity = config.model.fingerprint if config is not None else fingerprint(dense)  # type: ignore[arg-type]
    tensors: dict[str, Tensor] = {}
    entries: dict[str, TensorEntry] = {}
    first_name: dict[tuple[int, tuple[int, ...]], str] = {}
    for name, value in model.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        place = (value.data_ptr(), tuple(value.shape))
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
    about = PrunedFile(
        fingerprint=identity,
        tensors=entries,
        head_sizes=head_sizes(model),
        config=config,
        version=version("autoprune"),
    )
    path = Path(path)
    part = path.with_name(path.name + ".part")
    try:
        # Written by Python, whose errors name the file and the cause.
        part.write_bytes(save(tensors, metadata={"autoprune": about.to_json()}))
        part.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    return path.stat().st_size


def load_pruned(model: nn.Module, path: Path | str) -> nn.Module:
    """Rebuild a pruned network from a fresh instance of its class.

    Args:
        model: The unmodified class, as it was before pruning, with any weights; not changed.
        path: What :func:`save_pruned` wrote.

    Returns:
        The smaller module, in evaluation mode; its outputs are bit-identical to those of the module that was saved.

    Raises:
        SpecError: The file is missing, damaged, or not of autoprune.
        ConfigError: The file is for another architecture.
    """
    about, stored = _read(Path(path))
    found = fingerprint(model)
    if found != about.fingerprint:
        raise ConfigError(
            f"{path} is for the architecture {about.fingerprint}, the model is {found}; "
            "build the model exactly as it was before pruning"
        )
    expected = set(model.state_dict())
    if expected != set(about.tensors):
        odd = sorted(expected ^ set(about.tensors))[0]
        raise ConfigError(f"{path} and the model differ in tensor {odd!r}; build the model as it was before pruning")
    unknown = set(about.head_sizes) - set(head_sizes(model))
    if unknown:
        raise ConfigError(
            f"{path} sets {sorted(unknown)[0]!r}, which the model lacks; build the model as it was before pruning"
        )
    # Restored first: a shape that the file only claims is never allocated.
    restored = {name: _restore(name, about, stored, str(path)) for name in about.tensors}
    smaller = resize(model, {name: tuple(tensor.shape) for name, tensor in restored.items()}, about.head_sizes)
    smaller.load_state_dict(restored)
    return smaller.eval()


def _read(path: Path) -> tuple[PrunedFile, dict[str, Tensor]]:
    if not path.is_file():
        raise SpecError(f"{path}: no such file; give a file that 'autoprune apply' wrote")
    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = handle.metadata() or {}
            data: Any = json.loads(metadata.get("autoprune", "null"))
            stored = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, ValueError) as error:
        raise SpecError(f"{path} is damaged or no safetensors file ({error}); copy or make it again") from error
    if data is None:
        raise SpecError(f"{path} is a safetensors file without autoprune's metadata; give a file of 'autoprune apply'")
    return parse_document(PrunedFile, data, str(path)), stored


def _restore(name: str, about: PrunedFile, stored: dict[str, Tensor], path: str) -> Tensor:
    entry = about.tensors[name]
    if entry.stored == "alias" and entry.alias in about.tensors and about.tensors[entry.alias].stored != "alias":
        return _restore(entry.alias, about, stored, path)
    count = int(np.prod(entry.shape, dtype=np.int64))
    values = stored.get(name)
    if entry.stored == "dense" and values is not None and tuple(values.shape) == entry.shape:
        return values
    packed = stored.get(name + MASK)
    if entry.stored == "bitmask" and values is not None and packed is not None and packed.numel() == -(-count // 8):
        mask = torch.from_numpy(np.unpackbits(packed.numpy(), count=count)).bool()
        if int(mask.sum()) == values.numel():
            tensor = torch.zeros(count, dtype=values.dtype)
            tensor[mask] = values
            return tensor.reshape(entry.shape)
    raise SpecError(f"{path} is damaged: tensor {name!r} does not match its description; copy or make it again")
