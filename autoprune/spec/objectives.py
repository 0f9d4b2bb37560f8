"""What a trial is scored by, and the bounds a user sets on it.

Every metric is minimised; the score itself may be bounded too. A metric that is known before anything is run can refuse
a config at no cost.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

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


SCORE = "score"
"""What ``Task.evaluate`` gives: it can be bounded, as ``score`` or ``accuracy``; what is minimised is the drop."""

_SCORES = (SCORE, "accuracy")
BOUNDABLE = (*METRICS, *_SCORES)
"""What a bound may name."""


@dataclass(frozen=True)
class Limit:
    """A bound in its metric's unit, known once the dense model is.

    Attributes:
        metric: Key in :data:`METRICS`, or :data:`SCORE`.
        value: The bound.
        at_least: Whether it bounds from below.
        scale: Size of what is bounded, above 0: amounts beyond bounds on different metrics compare over it.
    """

    metric: str
    value: float
    at_least: bool
    scale: float

    def excess(self, value: float) -> float:
        """Return by how much ``value`` lies beyond the bound; 0 or less within it."""
        return self.value - value if self.at_least else value - self.value

    def __str__(self) -> str:
        return f"{self.metric} {'at least' if self.at_least else 'at most'} {self.value:.6g}"


@dataclass(frozen=True)
class Bound:
    """A bound as it was written.

    Attributes:
        metric: Key in :data:`METRICS`, or :data:`SCORE`.
        value: The bound, in the metric's unit, or a fraction of the dense value.
        relative: Whether ``value`` is a fraction of the dense value.
        at_least: Whether it bounds from below; None where a score is bounded by a number alone, and the task says which
            direction is good.
    """

    metric: str
    value: float
    relative: bool
    at_least: bool | None = False

    def directed(self, higher_is_better: bool) -> Bound:
        """Return the bound with its direction.

        Args:
            higher_is_better: Direction of the score.

        Raises:
            SpecError: The score is bounded on its good side.
        """
        if self.metric != SCORE:
            return self
        if self.at_least is not None and self.at_least != higher_is_better:
            good, mend = ("higher", "at least") if higher_is_better else ("lower", "at most")
            raise SpecError(
                f"constraint {self}: {good} is better for the score of this task; write '{mend} {self._amount()}'"
            )
        return replace(self, at_least=higher_is_better)

    def limit(self, dense: float, higher_is_better: bool = True) -> Limit:
        """Return the bound in the metric's unit, given the dense model's value.

        Args:
            dense: For ``accuracy_drop`` and for the score: the dense score itself.
            higher_is_better: Direction of the score.

        Raises:
            SpecError: A percentage of zero, or of a score below zero, bounds nothing; or as :meth:`directed`.
        """
        bound = self.directed(higher_is_better)
        if self.relative and (dense == 0 or (dense < 0 and self.metric == SCORE)):
            raise SpecError(
                f"constraint {self.metric}: {self.value:.0%} of the dense value {dense:.6g} bounds nothing; "
                "give a number"
            )
        value = self.value * abs(dense) if self.relative else self.value
        return Limit(self.metric, value, bool(bound.at_least), abs(value) or abs(dense) or 1.0)

    def _amount(self) -> str:
        return f"{100 * self.value:.6g}% of dense" if self.relative else f"{self.value:.6g}"

    def __str__(self) -> str:
        direction = {None: "within", True: "at least", False: "at most"}[self.at_least]
        return f"{self.metric} {direction} {self._amount()}"


_BOUND = re.compile(
    r"^\s*(?P<direction><=|>=|at most\b|at least\b)?\s*"
    r"(?P<number>-?[0-9]*\.?[0-9]+\.?(?:[eE][-+]?[0-9]+)?)\s*(?P<percent>%)?\s*$"
)


def parse_bound(metric: str, text: float | str) -> Bound:
    """Parse ``0.05``, ``"60%"``, ``"at most 60%"``, ``"<= 5e6"`` or, for the score, ``"at least 0.9"``.

    Raises:
        ValueError: With the rule and the remedy.
    """
    if metric not in BOUNDABLE:
        raise ValueError(f"unknown metric {metric!r} in constraints{suggestion(metric, BOUNDABLE)}")
    is_score = metric in _SCORES
    direction, relative = "", False
    if isinstance(text, str):
        match = _BOUND.match(text)
        if not match:
            example = "'at least 0.9'" if is_score else "'60%'"
            raise ValueError(
                f"the bound on {metric} is {text!r}; give a number, or a percentage of dense such as '60%'"
                f"{', with or without a direction such as ' + example if is_score else ''}"
            )
        direction = match["direction"] or ""
        relative, value = match["percent"] is not None, float(match["number"])
        value = value / 100 if relative else value
    else:
        value = float(text)
    if not abs(value) < float("inf") or (value < 0 and not (is_score and not relative)):
        raise ValueError(f"the bound on {metric} is {text!r}; give a finite number of at least 0")
    if relative and value == 0:
        raise ValueError(f"the bound on {metric} is 0 % of dense, which nothing can meet; give a larger percentage")
    at_least = direction in (">=", "at least")
    if at_least and not is_score:
        raise ValueError(
            f"the bound on {metric} is {text!r}, and less {metric} is better; give an upper bound, as in 'at most 60%'"
        )
    if not direction and is_score:
        return Bound(SCORE, value, relative, None)
    return Bound(SCORE if is_score else metric, value, relative, at_least)
