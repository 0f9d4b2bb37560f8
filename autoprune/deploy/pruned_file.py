"""The file of a pruned network: safetensors, no pickle; what stands in it, and what is checked before it is believed.

One entry per tensor of the ``state_dict``. A tensor with many zeros is two entries: ``NAME`` with its non-zero values,
and ``NAME::mask`` with one bit per element. The metadata hold a document, which says how to rebuild the architecture
(shapes, head counts), where it stands in the dense one (kept indices) and where it comes from, and a SHA-256 of that
document and all tensors. The checksum finds damage; it is no signature.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from autoprune.errors import SpecError
from autoprune.pruning.kept import Kept
from autoprune.spec.config import PruningConfig
from autoprune.spec.document import Document, parse_document

MASK = "::mask"
HEADER_LIMIT_BYTES = 100_000_000
"""What safetensors itself allows a header to be."""

Count = Annotated[int, Field(ge=0)]


class TensorEntry(Document):
    """How one tensor is stored.

    Attributes:
        shape: Its shape after pruning.
        stored: "dense", or "bitmask" with its non-zero values.
        alias: Another name for a tensor already stored (shared weights).
    """

    shape: tuple[Count, ...]
    stored: Literal["dense", "bitmask", "alias"]
    alias: str | None = None


class PlaceSet(Document):
    """Some places of an axis.

    Attributes:
        size: Places of the axis in the dense network.
        bits: One bit per place, set where it is kept, most significant first, in base64.
    """

    size: Count
    bits: str


class KeptAxis(Document):
    """The places of one dimension of a dense tensor that are kept.

    Attributes:
        tensor: Name of the tensor.
        dim: Its dimension.
        places: Number of the set in ``place_sets``: coupled tensors share one.
    """

    tensor: str
    dim: Count
    places: Count


class PrunedFile(Document):
    """What is needed to rebuild a pruned network, and to know where it comes from.

    Attributes:
        fingerprint: Of the dense architecture.
        tensors: ``state_dict`` key to how it is stored.
        head_sizes: Integer attributes that no shape tells (``blocks.0.attn.num_heads``) to their values after pruning.
        kept: Axes that lost places; None where that is not known (schema 1, or a model that surgery did not make).
        place_sets: What ``kept`` refers to.
        skipped: Residual blocks that the identity has replaced, with the form of their result.
        config: The config it was made by; its ``provenance`` names study, trial, task and device.
        version: Version of autoprune that wrote it.
        versions: Package to version, of what else had a part in its numbers.
    """

    schema_: Literal["autoprune/pruned/2"] = Field("autoprune/pruned/2", alias="schema")
    fingerprint: str
    tensors: dict[str, TensorEntry]
    head_sizes: dict[str, int] = Field(default_factory=dict)
    kept: tuple[KeptAxis, ...] | None = None
    place_sets: tuple[PlaceSet, ...] = ()
    skipped: dict[str, Annotated[int, Field(ge=0, le=16)]] = Field(default_factory=dict)
    config: PruningConfig | None = None
    version: str
    versions: dict[str, str] = Field(default_factory=dict)

    def kept_places(self, source: str = "the file") -> Kept | None:
        """Return the kept indices as tensors; None where they are not known.

        Raises:
            SpecError: They contradict themselves; ``source`` names the file.
        """
        if self.kept is None:
            return None
        places: dict[tuple[str, int], Tensor] = {}
        try:
            sets = [_unpacked(each) for each in self.place_sets]
            for axis in self.kept:
                places[axis.tensor, axis.dim] = sets[axis.places]
        except (ValueError, IndexError) as error:
            raise damaged(source, f"its kept indices contradict themselves: {error}") from error
        sizes = {(axis.tensor, axis.dim): self.place_sets[axis.places].size for axis in self.kept}
        return Kept(places, sizes)

    def dense_shape(self, name: str) -> tuple[int, ...]:
        """Return the shape that a tensor has in the dense network, as far as the kept indices tell."""
        shape = list(self.tensors[name].shape)
        for axis in self.kept or ():
            if axis.tensor == (self.tensors[name].alias or name) and axis.dim < len(shape):
                shape[axis.dim] = self.place_sets[axis.places].size
        return tuple(shape)


def packed_places(kept: Kept | None) -> tuple[tuple[KeptAxis, ...] | None, tuple[PlaceSet, ...]]:
    """Return ``kept`` and ``place_sets`` of a file; coupled axes share one set."""
    if kept is None:
        return None, ()
    numbers: dict[PlaceSet, int] = {}
    axes = []
    for (name, dim), places in sorted(kept.places.items()):
        bits = np.zeros(kept.dense[name, dim], dtype=np.bool_)
        bits[places.numpy()] = True
        packed = PlaceSet(size=len(bits), bits=base64.b64encode(np.packbits(bits).tobytes()).decode())
        axes.append(KeptAxis(tensor=name, dim=dim, places=numbers.setdefault(packed, len(numbers))))
    return tuple(axes), tuple(numbers)


def _unpacked(places: PlaceSet) -> Tensor:
    packed = np.frombuffer(base64.b64decode(places.bits, validate=True), dtype=np.uint8)
    if len(packed) != -(-places.size // 8):
        raise ValueError(f"{len(packed)} bytes for {places.size} places")
    return torch.from_numpy(np.flatnonzero(np.unpackbits(packed, count=places.size)))


def checksum(document: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of a document and tensors, in hexadecimal."""
    digest = hashlib.sha256(document.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        if tensor.numel():
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_pruned(path: Path | str) -> PrunedFile:
    """Read what a pruned file says of itself: config, provenance, kept indices; every checksum is verified.

    Raises:
        SpecError: The file is missing, damaged, or not of autoprune.
    """
    return read_file(Path(path))[0]


def read_file(path: Path) -> tuple[PrunedFile, dict[str, Tensor]]:
    """Return the document of a file and its tensors as stored.

    Raises:
        SpecError: As :func:`read_pruned`.
    """
    if not path.is_file():
        raise SpecError(f"{path}: no such file; give a file that 'autoprune apply' wrote")
    _check_header(path)
    try:
        with safe_open(str(path), framework="pt") as handle:
            metadata = handle.metadata() or {}
            text = metadata.get("autoprune")
            data: Any = json.loads(text) if text is not None else None
            stored = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, ValueError, RecursionError) as error:
        raise SpecError(f"{path} is damaged or no safetensors file ({error}); copy or make it again") from error
    if text is None:
        raise SpecError(f"{path} is a safetensors file without autoprune's metadata; give a file of 'autoprune apply'")
    first = isinstance(data, dict) and data.get("schema") == "autoprune/pruned/1"
    if first:  # the first version had neither kept indices nor a checksum
        data["schema"] = "autoprune/pruned/2"
    elif metadata.get("sha256") != checksum(text, stored):
        raise damaged(str(path), "its checksum does not match its content")
    return parse_document(PrunedFile, data, str(path)), stored


def restored_tensor(name: str, about: PrunedFile, stored: Mapping[str, Tensor], path: str) -> Tensor:
    """Return one tensor of a file in its pruned shape.

    Raises:
        SpecError: What is stored is not what the document says.
    """
    entry = about.tensors[name]
    if entry.stored == "alias" and entry.alias in about.tensors and about.tensors[entry.alias].stored != "alias":
        return restored_tensor(entry.alias, about, stored, path)
    count = prod(entry.shape)
    values = stored.get(name)
    if entry.stored == "dense" and values is not None and tuple(values.shape) == entry.shape:
        return values
    packed = stored.get(name + MASK)
    if (
        entry.stored == "bitmask"
        and values is not None
        and packed is not None
        and packed.dtype == torch.uint8
        and packed.numel() == -(-count // 8)
    ):
        mask = torch.from_numpy(np.unpackbits(packed.numpy(), count=count)).bool()
        if values.dim() == 1 and int(mask.sum()) == values.numel():
            tensor = torch.zeros(count, dtype=values.dtype)
            tensor[mask] = values
            return tensor.reshape(entry.shape)
    raise damaged(path, f"tensor {name!r} does not match its description")


def damaged(path: str, why: str) -> SpecError:
    """Return the error of a file that is not what it says."""
    return SpecError(f"{path} is damaged: {why}; copy or make it again")


def _check_header(path: Path) -> None:
    """Look at the claimed size of the header before anything reads it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        claimed = int.from_bytes(file.read(8), "little")
    if size < 8 or claimed > min(size - 8, HEADER_LIMIT_BYTES):
        raise SpecError(
            f"{path} is damaged or no safetensors file (its header claims {claimed:,} bytes, the file has {size:,}); "
            "copy or make it again"
        )
