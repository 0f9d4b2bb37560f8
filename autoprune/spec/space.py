"""Search spaces: ordered rules that say what may be tried on which layer; the last match wins."""

from __future__ import annotations

import fnmatch
import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from autoprune.spec.config import Precision, n_of_m
from autoprune.spec.document import Document


class SparsityRange(Document):
    """Sparsities from ``low`` to ``high``, both included, in steps."""

    low: Annotated[float, Field(ge=0, lt=1)]
    high: Annotated[float, Field(ge=0, lt=1)]
    step: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @model_validator(mode="after")
    def _ordered(self) -> SparsityRange:
        if self.low > self.high:
            raise ValueError(f"low {self.low:g} is above high {self.high:g}; swap them")
        return self

    def values(self) -> tuple[float, ...]:
        """Return the sparsities in ascending order."""
        count = int((self.high - self.low) / self.step + 1e-9)
        return tuple(round(self.low + i * self.step, 10) for i in range(count + 1))


def _listed(value: Any) -> Any:
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


def _once_each(value: tuple[Precision, ...]) -> tuple[Precision, ...]:
    if len(set(value)) != len(value):
        raise ValueError("a precision stands twice; name each once")
    return value


Precisions = Annotated[tuple[Precision, ...], BeforeValidator(_listed), Field(min_length=1), AfterValidator(_once_each)]
"""Number formats that may be chosen; the first is that of the baselines."""


class SpaceRule(Document):
    """One rule of a space.

    Attributes:
        types: Class names of modules ("Conv2d"); any if left out.
        names: Globs over qualified names, or ``re:`` and a regular expression; any if left out.
        granularity: Keys that may be chosen.
        criterion: Keys that may be chosen.
        sparsity: A range with step, or a list of choices.
        round_to: Channel counts left are multiples of this (never removing more than asked); ``auto``: they lie on the
            steps of the runtime, as measured before the first trial.
        ignore: Leave the layer dense.
    """

    types: Names | None = None
    names: Names | None = None
    granularity: Names | None = None
    criterion: Names | None = None
    sparsity: SparsityRange | tuple[Annotated[float, Field(ge=0, lt=1)], ...] | None = None
    round_to: Annotated[int, Field(ge=1)] | Literal["auto"] | None = None
    ignore: bool | None = None

    @field_validator("granularity", "criterion", "sparsity")
    @classmethod
    def _not_empty(cls, value: Any) -> Any:
        if isinstance(value, tuple) and not value:
            raise ValueError("the list is empty; name at least one choice, or set 'ignore: true'")
        return value

    @field_validator("granularity")
    @classmethod
    def _patterns(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for key in value or ():
            if ":" in key and key.split(":")[0].isdecimal():
                n_of_m(key)
        return value

    @field_validator("names")
    @classmethod
    def _regular(cls, value: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for name in value or ():
            if name.startswith("re:"):
                try:
                    re.compile(name[3:])
                except re.error as error:
                    raise ValueError(f"{name!r} is not a regular expression ({error})") from error
        return value

    def matches(self, name: str, type_name: str) -> bool:
        """Whether this rule selects the layer ``name`` of class ``type_name``."""
        if self.types is not None and type_name not in self.types:
            return False
        return self.names is None or any(
            re.search(n[3:], name) is not None if n.startswith("re:") else fnmatch.fnmatchcase(name, n)
            for n in self.names
        )


class LayerSpace(Document):
    """What may be tried on one layer, after all rules.

    Attributes:
        granularities: Keys, in the order of the rule.
        criteria: Keys, in the order of the rule.
        sparsities: Ascending fractions.
        round_to: Channel counts left are multiples of this; "auto": they lie on measured steps.
    """

    granularities: tuple[str, ...]
    criteria: tuple[str, ...]
    sparsities: tuple[float, ...]
    round_to: int | Literal["auto"] = 1


class SpaceSpec(Document):
    """A search space.

    Attributes:
        name: Shown in reports.
        description: One sentence.
        precision: Number formats that a whole network may be shipped in.
        rules: Ordered; the last match wins, key by key.
    """

    schema_: Literal["autoprune/space/1"] = Field("autoprune/space/1", alias="schema")
    name: str
    description: str = ""
    # Not written where it is fp32 alone: a study of an older version stays the same study.
    precision: Annotated[Precisions, Field(exclude_if=lambda precisions: precisions == ("fp32",))] = ("fp32",)
    rules: Annotated[tuple[SpaceRule, ...], Field(min_length=1)]

    def resolve(self, name: str, type_name: str) -> LayerSpace | None:
        """Return what may be tried on a layer, or None where no rule selects it or it is ignored."""
        merged: dict[str, Any] = {}
        for rule in self.rules:
            if rule.matches(name, type_name):
                merged |= {key: value for key in SpaceRule.model_fields if (value := getattr(rule, key)) is not None}
        if merged.get("ignore") or not all(merged.get(key) for key in ("granularity", "criterion", "sparsity")):
            return None
        sparsity = merged["sparsity"]
        values = sparsity.values() if isinstance(sparsity, SparsityRange) else tuple(sorted(set(sparsity)))
        return LayerSpace(
            granularities=merged["granularity"],
            criteria=merged["criterion"],
            sparsities=values,
            round_to=merged.get("round_to", 1),
        )
