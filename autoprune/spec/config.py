"""``PruningConfig``: for each group or layer its granularity, criterion and sparsity. What production receives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from autoprune.errors import UsageError
from autoprune.spec.document import Document, load_document


class Threshold(Document):
    """Removes what scores far below the others, instead of a fraction.

    Attributes:
        std: Units whose score is below the mean of the layer's or group's scores minus so many standard deviations go.
    """

    std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0


class LayerChoice(Document):
    """How one layer or group is pruned.

    Attributes:
        granularity: Registry key ("weight", "2:4", "block:4x1", "channel").
        criterion: Registry key ("magnitude_l1").
        sparsity: Fraction of the units that is removed, 0 <= sparsity < 1. For N:M it follows from the pattern and may
            be left out.
        threshold: In the place of ``sparsity``: what goes is decided by the scores.
    """

    granularity: str
    criterion: str
    sparsity: Annotated[float, Field(ge=0, lt=1)] | None = None
    threshold: Threshold | None = None

    @model_validator(mode="after")
    def _sparsity_is_known(self) -> LayerChoice:
        if is_n_of_m(self.granularity):
            kept, of = n_of_m(self.granularity)
            implied = 1 - kept / of
            if self.sparsity is not None and abs(self.sparsity - implied) > 1e-9:
                raise ValueError(f"{self.granularity} removes exactly {implied:g} of the weights; leave sparsity out")
            if self.threshold is not None:
                raise ValueError(f"{self.granularity} removes exactly {implied:g} of the weights; leave threshold out")
        elif self.sparsity is None and self.threshold is None:
            raise ValueError(
                f"granularity {self.granularity!r} needs a sparsity; give a fraction of at least 0 and below 1, "
                "or a threshold"
            )
        elif self.sparsity is not None and self.threshold is not None:
            raise ValueError("sparsity and threshold exclude each other; leave one of them out")
        return self

    @property
    def fraction(self) -> float:
        """The sparsity, also where it follows from an N:M pattern; NaN where a threshold decides."""
        if self.threshold is not None:
            return math.nan
        if self.sparsity is not None:
            return self.sparsity
        kept, of = n_of_m(self.granularity)
        return 1 - kept / of


def is_n_of_m(granularity: str) -> bool:
    """Whether a key is of the family N:M, whose sparsity follows from the pattern."""
    return granularity.partition(":")[0].isdecimal() and ":" in granularity


def n_of_m(granularity: str) -> tuple[int, int]:
    """Parse "2:4" into (2, 4): at most N non-zeros in M consecutive inputs (Zhou et al. 2021, arXiv 2102.04010).

    Raises:
        ValueError: Not of the form N:M with 0 < N < M.
    """
    kept, _, of = granularity.partition(":")
    if not (kept.isdecimal() and of.isdecimal() and 0 < int(kept) < int(of)):
        raise ValueError(
            f"{granularity!r} is no N:M pattern; N non-zeros of M consecutive weights need 0 < N < M, as in 2:4"
        )
    return int(kept), int(of)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else (value,)


Choices = Annotated[tuple[LayerChoice, ...], BeforeValidator(_as_tuple), Field(min_length=1, max_length=2)]


class ModelIdentity(Document):
    """Which architecture a config is for.

    Attributes:
        fingerprint: Hash of the architecture, not of the weights: a retrained checkpoint is accepted, another network
            refused.
    """

    fingerprint: str


class DistillSpec(Document):
    """Fine-tuning with the dense network as teacher, by autoprune itself: SGD with momentum under a cosine.

    Attributes:
        temperature: Of the softened distributions (Hinton et al. 2015, arXiv 1503.02531).
        weight: Of the teacher against ``Task.loss``.
        features: Names of modules whose outputs shall be alike too; they must keep their width.
        learning_rate: Of the first step.
    """

    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.0
    weight: Annotated[float, Field(gt=0, le=1)] = 0.5
    features: tuple[str, ...] = ()
    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.01


class RecoverySpec(Document):
    """What happens between pruning and scoring.

    Attributes:
        batchnorm_samples: Samples that re-estimate batch-norm statistics; 0 is off. Left out: 128 where the model has
            batch norm and the task has batches.
        batchnorm: How: "recalibrate" estimates the statistics anew; "shift" moves the trained ones by what differs
            between the pruned and the dense network on the same samples, so that what pruning left alone stays as it
            was trained. Left out: recalibrate.
        finetune_steps: Optimiser steps of ``Task.finetune``, or of distillation; 0 is off.
        distill: Fine-tune on ``Task.batches`` with ``Task.loss`` and the dense network as teacher, instead of by
            ``Task.finetune``.
        compensate: How remaining weights take over what was removed, before all else: "bias" moves mean outputs back,
            "least_squares" re-fits the weights of the layers that lost inputs.
    """

    batchnorm_samples: Annotated[int, Field(ge=0)] | None = None
    # No default but None: a config of an older version stays the same config.
    batchnorm: Literal["recalibrate", "shift"] | None = None
    finetune_steps: Annotated[int, Field(ge=0)] = 0
    compensate: Literal["none", "bias", "least_squares"] = "none"
    distill: DistillSpec | None = None

    @model_validator(mode="after")
    def _distillation_has_steps(self) -> RecoverySpec:
        if self.distill is not None and not self.finetune_steps:
            raise ValueError("distill needs finetune_steps above 0; give the optimiser steps that it may take")
        return self


Precision = Literal["fp32", "int8"]
"""Number format of weights and activations: as the network was trained, or int8 by post-training quantisation."""


class Provenance(Document):
    """Where a config comes from.

    Attributes:
        run: Run directory of the study, as it was given.
        trial: Trial number in it.
        task: Task reference of the study.
        device: Device profile it was searched for.
        version: Version of autoprune that wrote it.
    """

    run: str | None = None
    trial: int | None = None
    task: str | None = None
    device: str | None = None
    version: str | None = None


class PruningConfig(Document):
    """One pruned network as data: apply it to a checkpoint of the same architecture.

    Attributes:
        model: The architecture it is for.
        seed: Seed of the ``random`` criterion and of recovery.
        recovery: What follows the pruning.
        precision: What the network is shipped in. "int8" quantises what was pruned and recovered; weights and
            activations then take one byte, and the network is an ONNX file.
        layers: Group or layer name to its choices, channel-like first, then a weight pattern on what is left.
        provenance: Where it comes from, if a study made it.
        shapes: Layer of the dense network to the shape of its weight: tells what differs from another network.
    """

    schema_: Literal["autoprune/config/1"] = Field("autoprune/config/1", alias="schema")
    model: ModelIdentity
    seed: Annotated[int, Field(ge=0)] = 0
    recovery: RecoverySpec = RecoverySpec()
    # Not written where it is fp32: a config of an older version keeps its signature.
    precision: Annotated[Precision, Field(exclude_if=lambda precision: precision == "fp32")] = "fp32"
    layers: dict[str, Choices]
    provenance: Provenance | None = None
    shapes: dict[str, tuple[int, ...]] | None = None

    def choices(self) -> Iterator[tuple[str, LayerChoice]]:
        """Yield every (name, choice) in order."""
        for name, choices in self.layers.items():
            for choice in choices:
                yield name, choice

    @cached_property
    def signature(self) -> str:
        """Text that two configs share when they do the same; where a config comes from is not what it does."""
        return self.model_copy(update={"provenance": None, "shapes": None}).to_json()

    def to_data(self) -> dict[str, Any]:
        """Return plain data; a layer with one choice is written without the list around it."""
        data = super().to_data()
        data["layers"] = {
            name: choices[0] if len(choices) == 1 else choices for name, choices in data.get("layers", {}).items()
        }
        return data


def check_is_config(config: object) -> None:
    """Check what a caller gave as a config.

    Raises:
        UsageError: It is something else, the path of a file perhaps.
    """
    if not isinstance(config, PruningConfig):
        raise UsageError(f"config is {type(config).__name__}; give what autoprune.load_config('config.yaml') returns")


def load_config(path: Path | str) -> PruningConfig:
    """Read ``config.yaml``.

    Raises:
        SpecError: Names the file, the key, the value found and what is allowed.
    """
    return load_document(PruningConfig, path)
