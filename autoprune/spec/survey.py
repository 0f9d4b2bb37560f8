"""What is measured on the device before the first trial: kept with the study, so that it is measured once."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from autoprune.spec.config import Precision
from autoprune.spec.document import Document
from autoprune.spec.findings import Finite
from autoprune.spec.profile import DeviceSummary, Payoff, Staircase

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class LatencySample(Document):
    """A network of the search space that was measured, for the predictor to learn from.

    Attributes:
        kept: Units that each group keeps, in the order of the graph.
        ratio: To dense in fp32, paired.
        spread: Relative standard deviation of the ratio.
        precision: What it was measured in.
        gone: Residual blocks that it lacks.
    """

    kept: tuple[int, ...]
    ratio: Positive
    spread: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    precision: Precision = "fp32"
    gone: tuple[str, ...] = ()


class Survey(Document):
    """Findings on the device before the first trial.

    Attributes:
        dense: What the models say of the dense network, module by module.
        payoffs: Patterns of the space that were tried.
        staircases: Time over width of the slowest layers that may lose channels.
        samples: Random networks of the space.
        seconds: Wall time of all of it.
    """

    schema_: Literal["autoprune/survey/1"] = Field("autoprune/survey/1", alias="schema")
    dense: DeviceSummary | None = None
    payoffs: tuple[Payoff, ...] = ()
    staircases: tuple[Staircase, ...] = ()
    samples: tuple[LatencySample, ...] = ()
    seconds: Finite = 0.0
