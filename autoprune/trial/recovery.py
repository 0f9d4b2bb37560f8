"""Recovery: what happens between pruning and scoring."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from autoprune.errors import TaskError, suggestion
from autoprune.pruning.criteria import batch_size, run_batch
from autoprune.spec.config import DistillSpec, RecoverySpec
from autoprune.training.distillation import Distillation
from autoprune.trial.task import Calibration

DEFAULT_BATCHNORM_SAMPLES = 128
"""Samples of a recalibration when the recipe names none (100 do as well as 2,000 on ResNet-20/CIFAR-10)."""

_NORMS = nn.modules.batchnorm._BatchNorm


def norms_of(model: nn.Module) -> dict[str, Any]:
    """Return the batch norms of a model that keep statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NORMS) and module.track_running_stats
    }


def resolve_recovery(spec: RecoverySpec, model: nn.Module, data: Calibration) -> RecoverySpec:
    """Return the recovery with every default filled in for this model and data.

    Raises:
        TaskError: The recipe asks for what the task does not give.
    """
    has_norm = bool(norms_of(model))
    samples = spec.batchnorm_samples
    if samples is None:
        samples = DEFAULT_BATCHNORM_SAMPLES if has_norm and data.batches is not None else 0
    elif samples and not has_norm:
        raise TaskError(f"recovery.batchnorm_samples is {samples}, and the model has no batch norm; set it to 0")
    elif samples and data.batches is None:
        raise TaskError(
            f"recovery.batchnorm_samples is {samples}, and the task has no batches; give Task.batches or set it to 0"
        )
    if spec.batchnorm == "shift" and not samples:
        raise TaskError(
            "recovery.batchnorm is 'shift', and there is nothing to take the shift from; "
            "it needs a model with batch norm, Task.batches, and batchnorm_samples above 0"
        )
    if spec.distill is not None:
        lacks = [name for name in ("batches", "loss") if getattr(data, name) is None]
        if lacks:
            raise TaskError(
                f"recovery.distill trains on the task's own data, and the task has no {' and no '.join(lacks)}; "
                "give Task.batches and Task.loss, or leave distill out"
            )
        modules = dict(model.named_modules())
        odd = next((name for name in spec.distill.features if name not in modules), None)
        if odd is not None:
            raise TaskError(f"recovery.distill.features names {odd!r}{suggestion(odd, modules)}")
    elif spec.finetune_steps and data.finetune is None:
        raise TaskError(
            f"recovery.finetune_steps is {spec.finetune_steps}, and the task has no finetune; give it or set it to 0"
        )
    if spec.compensate != "none" and data.batches is None:
        raise TaskError(
            f"recovery.compensate is {spec.compensate!r}, and the task has no batches; "
            "give Task.batches or set it to none"
        )
    return spec.model_copy(update={"batchnorm_samples": samples})


def finetune(
    model: nn.Module,
    recovery: RecoverySpec,
    data: Calibration,
    masks: Mapping[str, Tensor],
    seed: int,
    dense: nn.Module | None = None,
) -> str:
    """Fine-tune a pruned model in place: by ``Task.finetune``, or with the dense model as teacher.

    Args:
        model: The pruned model.
        recovery: Resolved by :func:`resolve_recovery`.
        data: Gives the fine-tuning.
        masks: Weight name to kept weights; the others stay zero.
        seed: Seed of whatever is random in the task's fine-tuning.
        dense: The teacher, where the recovery distils.

    Returns:
        What was done, in words; empty if nothing.
    """
    if not recovery.finetune_steps:
        return ""
    with torch.random.fork_rng(), _held(model, masks):
        torch.manual_seed(seed)
        if recovery.distill is not None:
            assert dense is not None
            _distil(model, dense, recovery.distill, recovery.finetune_steps, data)
            return f"distilled {recovery.finetune_steps} steps at temperature {recovery.distill.temperature:g}"
        assert data.finetune is not None
        data.finetune(model, recovery.finetune_steps)
    return f"fine-tuned {recovery.finetune_steps} steps"


def _distil(model: nn.Module, dense: nn.Module, spec: DistillSpec, steps: int, data: Calibration) -> None:
    """Train on the task's batches, over and over in their order, with the dense model as teacher."""
    assert data.loss is not None
    loss = Distillation(dense, data.loss, temperature=spec.temperature, weight=spec.weight, features=spec.features)
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(weights, lr=spec.learning_rate, momentum=0.9)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    done = 0
    while done < steps:
        before = done
        for batch in data.walk():
            if done == steps:
                break
            optimizer.zero_grad()
            loss(model, batch).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            decay.step()
            done += 1
        if done == before:
            raise TaskError("recovery.distill needs data, and Task.batches gave none; give at least one batch")
    model.eval()


def recalibrate_batchnorm(model: nn.Module, data: Calibration, samples: int) -> int:
    """Estimate running means and variances anew as the average over calibration batches.

    Only batch norm runs in training mode: dropout stays off, weights stay as they are.

    Returns:
        The samples seen.
    """
    norms = list(norms_of(model).values())
    momenta = [norm.momentum for norm in norms]
    model.eval()
    seen = 0
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # torch's word for the plain average over batches
            norm.train()
        with torch.no_grad():
            for batch in data.walk():
                # A rest of one sample has no variance where batch norm sees no space.
                part = first_samples(batch, max(samples - seen, 2))
                run_batch(model, part, data.inputs, data.loss)
                seen += batch_size(part)
                if seen >= samples:
                    break
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
    if not seen:
        raise TaskError("recovery.batchnorm_samples needs data, and Task.batches gave none; give at least one batch")
    return seen


def first_samples(batch: Any, count: int) -> Any:
    """Return the first ``count`` samples of a batch: of every tensor in it that holds one row a sample."""
    size = batch_size(batch)
    if size <= count:
        return batch
    return tree_map(
        lambda leaf: leaf[:count] if isinstance(leaf, Tensor) and leaf.shape[:1] == (size,) else leaf, batch
    )


@contextmanager
def _held(model: nn.Module, masks: Mapping[str, Tensor]) -> Iterator[None]:
    """Keep pruned weights zero while somebody else trains: their gradients vanish, and what slipped in is zeroed."""
    parameters = dict(model.named_parameters())
    held = [(parameters[name], mask.to(parameters[name].device)) for name, mask in masks.items()]
    hooks: list[Any] = []
    for weight, mask in held:
        if weight.requires_grad:
            hooks.append(weight.register_hook(lambda gradient, mask=mask: gradient * mask))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        with torch.no_grad():
            for weight, mask in held:
                weight.masked_fill_(~mask, 0.0)
