"""What a meter is, and where those of a study are found."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from autoprune.cost.meters.result import PairedLatency, SingleLatency
from autoprune.errors import MeterError
from autoprune.registry import Registry
from autoprune.spec.study import LatencySpec


@dataclass(frozen=True)
class ModelInputs:
    """How a model is called.

    Attributes:
        args: Positional arguments.
        kwargs: Keyword arguments.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)


class Meter(Protocol):
    """What measures latency. Built by a factory of :data:`RUNTIMES` from the study's ``latency`` section.

    The factory raises ``UsageError`` where the meter cannot work here (no GPU, a missing extra): before a search.
    """

    def measure_pair(
        self, dense: nn.Module, candidate: nn.Module, inputs: ModelInputs, candidate_inputs: ModelInputs | None = None
    ) -> PairedLatency:
        """Measure ``candidate`` against ``dense``, interleaved; both are left as they were.

        The ratio is what to trust: on a shared machine it repeats within 1 to 2 %, the milliseconds within 17 to 36 %.
        A meter may keep what it prepared for ``dense`` (compiled, exported) and use it again.

        Args:
            dense: The reference. Any network will do: a kernel measured against a fixed one keeps its scale when the
                machine gets slower.
            candidate: What is measured.
            inputs: How both are called.
            candidate_inputs: How the candidate is called, where it takes other inputs than the reference.

        Raises:
            MeterError: The measurement gave no usable number.
        """
        ...

    def measure(self, model: nn.Module, inputs: ModelInputs, budget_s: float = 0.2) -> SingleLatency:
        """Measure one model alone, cheaply: for the many small networks from which a predictor learns.

        The milliseconds are those of this moment. The interval tells how well the median of *these* samples is known,
        not whether the next minute gives the same: use it to compare models measured within seconds of one another on
        a quiet machine, and :meth:`measure_pair` against a fixed reference everywhere else.

        Args:
            model: Left as it was.
            inputs: How it is called.
            budget_s: Seconds after which the measurement ends; preparation (compiling, exporting) is not counted.

        Raises:
            MeterError: The measurement gave no usable number.
        """
        ...


MeterFactory = Callable[[LatencySpec], Meter]
RUNTIMES: Registry[MeterFactory] = Registry("runtime", "autoprune.runtimes")


def missing(factory: MeterFactory) -> str:
    """Return what this machine lacks for a runtime and how to get it, in a sentence; empty where nothing is missing.

    A factory tells by a function ``missing() -> str``; one that has none is taken to work anywhere.
    """
    ask = getattr(factory, "missing", None)
    return str(ask()) if callable(ask) else ""


def rebatch(args: tuple[Any, ...], kwargs: Mapping[str, Any], batch: int) -> ModelInputs:
    """Repeat or cut dimension 0 of every tensor to ``batch``; numbers and 0-dimensional tensors stay.

    Raises:
        MeterError: A tensor has no sample to repeat.
    """

    def resize(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or leaf.dim() == 0 or leaf.shape[0] == batch:
            return leaf
        if leaf.shape[0] == 0:
            raise MeterError(
                f"an example input of shape {tuple(leaf.shape)} holds no sample to repeat; give at least one"
            )
        return leaf[torch.arange(batch, device=leaf.device) % leaf.shape[0]]

    return ModelInputs(tree_map(resize, args), tree_map(resize, dict(kwargs)))
