"""A meter that replays: algorithms are tested in milliseconds, without a device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import nn

from autoprune.cost.meters.pairing import Side, measure_blocks, measure_samples
from autoprune.cost.meters.protocol import ModelInputs
from autoprune.cost.meters.result import PairedLatency, SingleLatency
from autoprune.errors import MeterError
from autoprune.spec.study import LatencySpec


@dataclass(frozen=True)
class RecordedMeter:
    """Replays recorded samples through the same loop.

    Attributes:
        samples_s: (dense, candidate) of each pair, seconds; the measurement ends where they do.
        spec: Half-width and budget; the clock is the sum of the samples played.
        seed: Of the bootstrap.
    """

    samples_s: Sequence[tuple[float, float]]
    spec: LatencySpec = field(default_factory=LatencySpec)
    seed: int = 0

    def measure_pair(
        self, dense: nn.Module, candidate: nn.Module, inputs: ModelInputs, candidate_inputs: ModelInputs | None = None
    ) -> PairedLatency:
        """Replay; the models and inputs are not looked at.

        Raises:
            MeterError: Fewer than two pairs were recorded, or one is not a positive number.
        """
        self._check()
        played: dict[Side, int] = {"dense": 0, "candidate": 0}
        clock = 0.0

        def sample(side: Side) -> float:
            nonlocal clock
            seconds = self.samples_s[played[side]][side == "candidate"]
            played[side] += 1
            clock += seconds
            return seconds

        def left() -> int:
            return len(self.samples_s) - played["dense"]

        found = measure_blocks(
            sample, lambda: clock if left() >= 2 else float("inf"), self.spec, "recorded: A B B A", self.seed
        )
        if not found.converged and clock < self.spec.budget_s:
            return replace(found, reason=f"the recording ended after {found.pairs} pairs; record more")
        return found

    def measure(self, model: nn.Module, inputs: ModelInputs, budget_s: float = 0.2) -> SingleLatency:
        """Replay the candidate's samples.

        Raises:
            MeterError: As for :meth:`measure_pair`.
        """
        self._check()
        played = 0

        def sample() -> float:
            nonlocal played
            played += 1
            return self.samples_s[played - 1][1]

        def elapsed() -> float:
            return sum(pair[1] for pair in self.samples_s[:played]) if played < len(self.samples_s) else float("inf")

        return measure_samples(sample, elapsed, self.spec.half_width, budget_s, "recorded", self.seed)

    def _check(self) -> None:
        if len(self.samples_s) < 2:
            raise MeterError(f"a recording needs at least 2 pairs and has {len(self.samples_s)}; record more")
