"""From a space and a graph to Optuna parameters, and from parameters to a config.

A group or layer has two parameters: its method, which is a granularity with a criterion that can serve it, and its
sparsity. Both are suggested in every trial, also where the method fixes its own sparsity: NSGA-II and quasi-Monte-Carlo
work on the parameters that all trials share, and a conditional space would leave them next to none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod
from typing import Any, Literal, Protocol

from autoprune.errors import ConfigError, UnknownNameError
from autoprune.graph.blocks import Stage
from autoprune.graph.groups import Group, Layer, ModelGraph
from autoprune.pruning.criteria import CRITERIA
from autoprune.pruning.granularity import DEPTH, granularity, removed_count
from autoprune.pruning.plan import blocks_gone
from autoprune.pruning.scores import ScoreBook
from autoprune.spec.config import LayerChoice, ModelIdentity, Precision, PruningConfig, RecoverySpec, is_n_of_m
from autoprune.spec.space import LayerSpace, SpaceSpec

NONE = "none"
"""Leave the layer dense: a choice where no sparsity of the space is 0."""

AUTO: Literal["auto"] = "auto"
"""Widths lie on the steps of the runtime, which are measured before the first trial."""


PRECISION = "precision"
"""Name of the parameter that chooses what the whole network is shipped in."""


class Suggests(Protocol):
    """The part of ``optuna.trial.Trial`` that a proposal needs."""

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """Choose one of a list."""
        ...

    def suggest_float(self, name: str, low: float, high: float, *, step: float | None = None) -> float:
        """Choose a number on a grid."""
        ...


@dataclass(frozen=True)
class Knob:
    """What may be chosen for one group or layer.

    Attributes:
        name: Address in a config.
        methods: "GRANULARITY/CRITERION", each criterion able to serve its granularity here; or NONE.
        sparsities: Ascending; empty where every method fixes its own.
        group: The group, where channels may go.
        stage: The stage, where residual blocks may go.
        width: Output channels of the layer.
        round_to: Channel counts left are multiples of this; AUTO stands for 1 until steps are measured.
        widths: Channel counts that may be left, where steps were measured; None: no others are left out.
    """

    name: str
    methods: tuple[str, ...]
    sparsities: tuple[float, ...]
    group: Group | None
    width: int
    round_to: int | Literal["auto"]
    stage: Stage | None = None
    widths: tuple[int, ...] | None = None

    def parameters(self) -> dict[str, tuple[Any, ...]]:
        """Return parameter names and their choices."""
        found: dict[str, tuple[Any, ...]] = {f"{self.name}|method": self.methods}
        if self.sparsities:
            found[f"{self.name}|sparsity"] = self.sparsities
        return found

    def choice(self, params: Mapping[str, Any]) -> LayerChoice | None:
        """Return the choice, with the sparsity that is really reached; None where nothing is removed."""
        key, _, criterion = params[f"{self.name}|method"].partition("/")
        if key == NONE:
            return None
        if is_n_of_m(key):
            return LayerChoice(granularity=key, criterion=criterion)
        sparsity = params[f"{self.name}|sparsity"]
        if self.stage is not None:
            sparsity = round(blocks_gone(self.stage, sparsity) / self.stage.depth, 10)
        elif granularity(key).removed:
            assert self.group is not None
            sparsity = self._reached(self.group, sparsity)
        return LayerChoice(granularity=key, criterion=criterion, sparsity=sparsity) if sparsity else None

    def outcomes(self) -> frozenset[LayerChoice | None]:
        """Return what the choices come to, each outcome once."""
        names, choices = zip(*self.parameters().items(), strict=True)
        return frozenset(self.choice(dict(zip(names, chosen, strict=True))) for chosen in product(*choices))

    def uniform(self, sparsity: float) -> dict[str, Any]:
        """Return parameters of a uniform config: channels before single weights before fixed patterns."""
        methods = {method.partition("/")[0]: method for method in reversed(self.methods)}  # the first criterion of each
        keys = [key for key in reversed(methods) if key != NONE]
        if sparsity == 0 and NONE in methods:
            key = NONE
        elif self.group is not None:
            key = next(key for key in keys if granularity(key).removed)
        else:
            key = next((key for key in keys if not is_n_of_m(key)), keys[0])
        params: dict[str, Any] = {f"{self.name}|method": methods[key]}
        if self.sparsities:
            params[f"{self.name}|sparsity"] = min(self.sparsities, key=lambda s: abs(s - sparsity))
        return params

    def nearest(self, choice: LayerChoice | None) -> dict[str, Any]:
        """Return the parameters on the grid that come closest to a choice.

        Another criterion stands in for one that is not offered; a granularity that is not offered is dense.
        """
        method = f"{choice.granularity}/{choice.criterion}" if choice is not None else NONE
        if choice is not None and method not in self.methods:
            same = (each for each in self.methods if each.partition("/")[0] == choice.granularity)
            method = next(same, method)
        if choice is None or method not in self.methods:
            return self.uniform(0.0)
        params: dict[str, Any] = {f"{self.name}|method": method}
        if self.sparsities:
            # By what really goes: 2 of 12 channels are 0.167, and 0.15 removes one of them only.
            asked = {s: self.choice({**params, f"{self.name}|sparsity": s}) for s in self.sparsities}
            params[f"{self.name}|sparsity"] = min(
                asked, key=lambda s: (round(abs(_gone(asked[s]) - choice.fraction), 9), abs(s - choice.fraction))
            )
        return params

    def _reached(self, group: Group, sparsity: float) -> float:
        """Return the fraction of units that goes when widths stay on steps and no more goes than asked."""
        count = removed_count(group.units, sparsity)
        places = next(s.index.shape[1] for s in group.slices if s.role == "out")
        while count > 0 and not self._on_step(self.width - count * places):
            count -= 1
        return round(count / group.units, 10)

    def _on_step(self, width: int) -> bool:
        if self.widths is not None:
            return width in self.widths
        return self.round_to == AUTO or width % self.round_to == 0

    def distinct(self) -> Knob | None:
        """Return this knob with one sparsity for each width, where all methods remove channels; None if one is left.

        Sparsities that reach the same width are one choice, and to propose it twice is to waste a trial.
        """
        keys = [method.partition("/")[0] for method in self.methods if method != NONE]
        if self.group is None or not all(granularity(key).removed for key in keys):
            return self
        sparsities = tuple(dict.fromkeys(self._reached(self.group, sparsity) for sparsity in self.sparsities))
        methods = tuple(method for method in self.methods if method != NONE or 0.0 not in sparsities)
        left = replace(self, sparsities=sparsities, methods=methods)
        return left if sparsities != (0.0,) else None


def _gone(choice: LayerChoice | None) -> float:
    return choice.fraction if choice is not None else 0.0


@dataclass(frozen=True)
class Proposals:
    """The search space of one model.

    Attributes:
        knobs: In forward order.
        identity: The architecture that configs are for.
        recovery: Written into every config, so that applying it gives the same network.
        seed: Likewise.
        notes: What the space names and this model cannot take.
        precisions: What the network may be shipped in; the first is that of the baselines.
        shapes: Of the dense network's layers; written into every config.
    """

    knobs: tuple[Knob, ...]
    identity: ModelIdentity
    recovery: RecoverySpec
    seed: int
    notes: tuple[str, ...]
    precisions: tuple[Precision, ...] = ("fp32",)
    shapes: Mapping[str, tuple[int, ...]] | None = None

    def parameters(self) -> dict[str, tuple[Any, ...]]:
        """Return all parameter names and their choices, those with a single choice among them."""
        found: dict[str, tuple[Any, ...]] = {PRECISION: self.precisions}
        for knob in self.knobs:
            found |= knob.parameters()
        return found

    def suggest(self, trial: Suggests) -> PruningConfig:
        """Ask a trial for every parameter and return the config."""
        return self.config(
            {
                name: _suggest(trial, name, choices) if len(choices) > 1 else choices[0]
                for name, choices in self.parameters().items()
            }
        )

    def config(self, params: Mapping[str, Any]) -> PruningConfig:
        """Return the config behind a full set of parameters."""
        layers = {knob.name: (choice,) for knob in self.knobs if (choice := knob.choice(params)) is not None}
        precision = params.get(PRECISION, self.precisions[0])
        return PruningConfig(
            model=self.identity,
            seed=self.seed,
            recovery=self.recovery,
            precision=precision,
            layers=layers,
            shapes=None if self.shapes is None else dict(self.shapes),
        )

    def uniform(self, sparsity: float) -> dict[str, Any]:
        """Return parameters that remove the same fraction everywhere: channels where they can go, else single weights.

        0 is the dense model. No residual block goes.
        """
        channels = any(knob.group is not None for knob in self.knobs)
        params: dict[str, Any] = {PRECISION: self.precisions[0]}
        for knob in self.knobs:
            thinned = knob.stage is None and (knob.group is not None or not channels)
            params |= knob.uniform(sparsity if thinned else 0.0)
        return params

    def nearest(self, config: PruningConfig) -> dict[str, Any]:
        """Return the parameters on the grid of the space that come closest to a config."""
        precision = config.precision if config.precision in self.precisions else self.precisions[0]
        params: dict[str, Any] = {PRECISION: precision}
        for knob in self.knobs:
            choices = config.layers.get(knob.name, (None,))
            params |= knob.nearest(choices[0])
        return params

    def searched(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return only the parameters that have more than one choice, which are those that Optuna knows."""
        return {name: params[name] for name, choices in self.parameters().items() if len(choices) > 1}

    @property
    def size(self) -> float:
        """The number of parameter combinations, counting those that give the same network as different."""
        return prod(float(len(choices)) for choices in self.parameters().values())


def _suggest(trial: Suggests, name: str, choices: tuple[Any, ...]) -> Any:
    """Suggest a number on a grid as a number, so that samplers see its order; anything else as a category."""
    if name.endswith("|sparsity"):
        step = round(choices[1] - choices[0], 10)
        if all(abs(b - a - step) < 1e-9 for a, b in pairwise(choices)):
            value = trial.suggest_float(name, choices[0], choices[-1], step=step)
            return min(choices, key=lambda choice: abs(choice - value))
    return trial.suggest_categorical(name, choices)


def make_proposals(
    space: SpaceSpec, graph: ModelGraph, recovery: RecoverySpec, seed: int, book: ScoreBook
) -> Proposals:
    """Lay a space over a model.

    Args:
        space: The rules.
        graph: The model.
        recovery: Resolved; goes into every config.
        seed: Goes into every config.
        book: The scores of the model. Those of all criteria that the space uses are computed here, so that what is
            wrong with one is said before any trial, and so that no criterion is offered where it judges nothing. One
            whose data the task does not give is left out with a note, where its rule has another.

    Raises:
        ConfigError: The space selects nothing, a rule names only criteria whose data the task does not give, or one
            yields no usable scores.
        UnknownNameError: The space names a granularity or criterion that does not exist.
    """
    knobs: list[Knob] = []
    notes = dict.fromkeys(criteria_left_out(space, book))
    leaders: dict[str, list[Group]] = {}
    for group in graph.groups.values():
        leaders.setdefault(group.layers[0], []).append(group)
    for layer in graph.layers.values():
        options = space.resolve(layer.name, layer.type_name)
        if options is None:
            continue
        groups = leaders.get(layer.name, [])
        found = [_knob(layer.name, layer, groups[0] if groups else None, options, book, notes)]
        channels = tuple(key for key in options.granularities if granularity(key).removed)
        only_channels = options.model_copy(update={"granularities": channels})
        found += [_knob(group.name, layer, group, only_channels, book, notes) for group in groups[1:]]
        knobs += [knob for knob in found if knob is not None]
    for stage in graph.stages.values():
        options = space.resolve(stage.name, stage.type_name)
        if options is not None and DEPTH in options.granularities:
            knobs += _stage_knob(stage, options, book, notes)
    if not any(len(choices) > 1 for knob in knobs for choices in knob.parameters().values()):
        silent = "each layer has one choice" if knobs else "no rule gives a layer granularity, criterion and sparsity"
        why = graph.untraced or "; ".join(notes) or silent
        raise ConfigError(
            f"space {space.name!r} leaves nothing to search on this model ({why}); "
            "widen its rules, or use another space"
        )
    if not any(len(knob.outcomes()) > 1 for knob in knobs) and len(space.precision) < 2:
        raise ConfigError(
            f"space {space.name!r} leaves nothing to search on this model: every choice comes to the same network, as "
            "its sparsities remove no whole unit, or round_to takes all back; give higher ones, or a smaller round_to"
        )
    identity = ModelIdentity(fingerprint=graph.fingerprint)
    shapes = {name: tuple(layer.shape) for name, layer in graph.layers.items()}
    return Proposals(tuple(knobs), identity, recovery, seed, tuple(notes), space.precision, shapes)


def criteria_left_out(space: SpaceSpec, book: ScoreBook) -> list[str]:
    """Check the names in a space, and return what to say of each criterion that the task gives no data for.

    Raises:
        ConfigError: A rule names only such criteria.
        UnknownNameError: The space names a granularity or criterion that does not exist.
    """
    said = []
    for rule in space.rules:
        try:
            for key in rule.granularity or ():
                granularity(key)
            for key in rule.criterion or ():
                CRITERIA.get(key)
        except UnknownNameError as error:
            raise UnknownNameError(f"space {space.name!r}: {error}") from error
        lacking = {key: missing for key in rule.criterion or () if (missing := book.missing_data(key))}
        for key, missing in lacking.items():
            if len(lacking) == len(rule.criterion or ()):
                raise ConfigError(
                    f"space {space.name!r} names criterion {key!r}, which needs data, and the task has no {missing}; "
                    "give it, or name a criterion that needs none"
                )
            said.append(f"criterion {key!r} is left out: it needs {missing}, and the task has none")
    return said


def _serving(options: LayerSpace, key: str, judged: Layer | Group | Stage, book: ScoreBook) -> list[str]:
    """Return the criteria that can score the units of a layer, group or stage for a granularity."""
    given = [criterion for criterion in options.criteria if not book.missing_data(criterion)]
    return [criterion for criterion in given if book.serves(criterion, key, judged)]


def _knob(
    name: str, layer: Layer, group: Group | None, options: LayerSpace, book: ScoreBook, notes: dict[str, None]
) -> Knob | None:
    methods: list[str] = []
    free = False
    for key in options.granularities:
        shape = granularity(key)
        if shape.removed and (group is None or group.units < 2 or group.kind != key):
            continue
        refusal = "" if shape.removed else shape.refusal(layer)
        if refusal:
            notes.setdefault(refusal)
            continue
        judged = group if shape.removed else layer
        assert judged is not None
        serving = _serving(options, key, judged, book)
        if not serving:
            notes.setdefault(f"{key} on {name!r} is left out: none of the space's criteria can score it")
            continue
        methods += [f"{key}/{criterion}" for criterion in serving]
        free = free or not is_n_of_m(key)
    if not methods:
        return None
    sparsities = options.sparsities if free else ()
    if not sparsities or sparsities[0] != 0:
        methods.insert(0, NONE)
    removing = any(method != NONE and granularity(method.partition("/")[0]).removed for method in methods)
    return Knob(
        name=name,
        methods=tuple(methods),
        sparsities=sparsities,
        group=group if removing else None,
        width=layer.shape[layer.out_dim],
        round_to=options.round_to,
    )


def _stage_knob(stage: Stage, options: LayerSpace, book: ScoreBook, notes: dict[str, None]) -> list[Knob]:
    serving = _serving(options, DEPTH, stage, book)
    if not serving:
        notes.setdefault(f"{DEPTH} on {stage.name!r} is left out: none of the space's criteria can score whole blocks")
        return []
    # Sparsities that remove the same blocks are one choice.
    counts = {blocks_gone(stage, sparsity): None for sparsity in options.sparsities}
    sparsities = tuple(round(count / stage.depth, 10) for count in counts)
    methods = [f"{DEPTH}/{criterion}" for criterion in serving]
    if sparsities[0] != 0:
        methods.insert(0, NONE)
    return [Knob(stage.name, tuple(methods), sparsities, None, 1, 1, stage)]
