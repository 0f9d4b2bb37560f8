"""What a trial is scored by, and the bounds a user sets on it.

Every metric is minimised. A metric that is known before anything is run can refuse a config at no cost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.errors import SpecError, suggestion


@dataclass(frozen=True)
class Metric:
    """One number that a trial yields.

    Attributes:
        name: Key in recipes and records; it ends with its unit where it has one.
        title: Heading in tables.
        unit: Unit of the stored value, empty for a pure number.
        exact: Known from the config alone, before anything is run.
        meaning: One sentence for ``autoprune list`` and for reports.
    """

    name: str
    title: str
    unit: str
    exact: bool
    meaning: str


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "accuracy_drop",
            "accuracy drop",
            "",
            False,
            "dense score minus pruned score on validation data (a loss: pruned minus dense)",
        ),
        Metric("macs", "MACs", "", True, "multiply-adds of the model as executed, as fvcore counts them"),
        Metric(
            "effective_macs",
            "effective MACs",
            "",
            True,
            "multiply-adds whose weight is not zero; faster than macs say only where the device exploits the pattern",
        ),
        Metric("params", "parameters", "", True, "parameters of the smaller model, zeros included"),
        Metric("size_bytes", "size", "B", True, "bytes of the weights in the best storage format per tensor"),
        Metric("dram_bytes", "DRAM traffic", "B", True, "modelled bytes between the device and its DRAM for one run"),
        Metric(
            "llc_bytes",
            "last-level traffic",
            "B",
            True,
            "modelled bytes between the last memory level on chip and the one inside it for one run",
        ),
        Metric(
            "activation_bytes",
            "peak activations",
            "B",
            True,
            "most bytes of activations that exist at once, as the device's runtime fuses operators",
        ),
        Metric(
            "latency_ms", "latency", "ms", False, "measured paired ratio to dense times the dense latency of the study"
        ),
        Metric("energy_mj", "energy", "mJ", False, "energy of one run by the traffic-and-time model"),
    )
}


def check_objectives(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return ``names`` if each is a metric and none stands twice.

    Raises:
        ValueError: With the rule and the remedy (pydantic turns it into a sentence with file and key).
    """
    if not names:
        raise ValueError(f"at least one objective is needed; known: {', '.join(METRICS)}")
    for name in names:
        if name not in METRICS:
            raise ValueError(f"unknown objective {name!r}{suggestion(name, METRICS)}")
    if len(set(names)) != len(names):
        raise ValueError("an objective stands twice; name each once")
    return names


@dataclass(frozen=True)
class Bound:
    """An upper bound on a metric.

    Attributes:
        metric: Key in :data:`METRICS`.
        value: The bound, in the metric's unit, or a fraction of the dense value.
        relative: Whether ``value`` is a fraction of the dense value.
    """

    metric: str
    value: float
    relative: bool

    def limit(self, dense: float) -> float:
        """Return the bound in the metric's unit, given the dense model's value.

        For ``accuracy_drop`` the dense value is the dense score itself.

        Raises:
            SpecError: A percentage of zero bounds nothing.
        """
        if not self.relative:
            return self.value
        if dense == 0:
            raise SpecError(
                f"constraint {self.metric}: {self.value:.0%} of the dense value 0 bounds nothing; give a number"
            )
        return self.value * abs(dense)

    def __str__(self) -> str:
        return f"{self.value:.6g} of dense" if self.relative else f"{self.value:.6g}"


_PERCENT = re.compile(r"^\s*([0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?)\s*%\s*$")


def parse_bound(metric: str, text: float | str) -> Bound:
    """Parse ``0.05`` or ``"60%"`` into a bound on ``metric``.

    Raises:
        ValueError: With the rule and the remedy.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r} in constraints{suggestion(metric, METRICS)}")
    relative = False
    if isinstance(text, str):
        match = _PERCENT.match(text)
        if not match:
            raise ValueError(
                f"the bound on {metric} is {text!r}; give a number, or a percentage of dense such as '60%'"
            )
        relative, value = True, float(match.group(1)) / 100
    else:
        value = float(text)
    if not value >= 0 or value == float("inf"):
        raise ValueError(f"the bound on {metric} is {text!r}; give a finite number of at least 0")
    if relative and value == 0:
        raise ValueError(f"the bound on {metric} is 0 % of dense, which nothing can meet; give a larger percentage")
    return Bound(metric, value, relative)
