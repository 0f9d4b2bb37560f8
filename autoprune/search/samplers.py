"""Samplers by key. Each is made anew for every proposal, seeded by study seed and trial number.

A sampler that lives on would start its random stream again when a study is resumed and propose its first trials twice;
made anew, a resumed study proposes what an uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import FrozenTrial

from autoprune.registry import Registry
from autoprune.search.greybox import GreyboxSampler, History, Knowledge


@dataclass(frozen=True)
class SamplerRequest:
    """What a sampler may depend on.

    Attributes:
        seed: Seed of the study.
        number: Proposals settled so far. A trial that was lost with its process does not count: it is proposed again.
        trials: Trials wanted.
        knowledge: Gives what is known of the problem beside its trials; None where nothing is.
        history: Trials that were read before, so that they are not read again; nothing in it decides a proposal, but
            for what was chosen together with one before.
        batch: Proposals that are wanted at this moment; a sampler may choose them together.
    """

    seed: int
    number: int
    trials: int
    knowledge: Callable[[], Knowledge | None] = lambda: None
    history: History | None = None
    batch: int = 1

    @property
    def trial_seed(self) -> int:
        """A seed for this one proposal."""
        return int(np.random.SeedSequence([self.seed, self.number]).generate_state(1)[0])


@dataclass(frozen=True)
class SamplerEntry:
    """A sampler that recipes can name.

    Attributes:
        make: Makes it.
        summary: One line for ``autoprune list``.
    """

    make: Callable[[SamplerRequest], optuna.samplers.BaseSampler]
    summary: str


class SobolSampler(optuna.samplers.BaseSampler):
    """One scrambled Sobol sequence over a whole study; the n-th proposal is its n-th point.

    Optuna's own draws categories at random beside the sequence, and counts its points by the trials that were asked
    for, so that a study that was interrupted leaves some out. Here categories, in the order given, are a grid as well.
    """

    def __init__(self, request: SamplerRequest) -> None:
        self._request = request
        self._random = optuna.samplers.RandomSampler(seed=request.trial_seed)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, optuna.distributions.BaseDistribution]:
        """Return the parameters that all trials share, by name."""
        return optuna.search_space.intersection_search_space(study.get_trials(deepcopy=False))

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, optuna.distributions.BaseDistribution]
    ) -> dict[str, Any]:
        """Return the parameters at the study's next point."""
        if not search_space:
            return {}
        engine: Any = torch.quasirandom.SobolEngine  # torch leaves it untyped
        points = engine(len(search_space), scramble=True, seed=self._request.seed).fast_forward(self._request.number)
        point = points.draw(1, dtype=torch.float64)[0].tolist()
        return {name: _at(search_space[name], place) for name, place in zip(sorted(search_space), point, strict=True)}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: optuna.distributions.BaseDistribution,
    ) -> Any:
        """Draw a parameter at random that no finished trial has."""
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _at(distribution: optuna.distributions.BaseDistribution, place: float) -> Any:
    """Return the value at ``place`` in [0, 1) of a category or a number on a grid."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return distribution.choices[int(place * len(distribution.choices))]
    assert isinstance(distribution, optuna.distributions.FloatDistribution)
    assert distribution.step is not None, "proposals suggest numbers on grids only"
    steps = round((distribution.high - distribution.low) / distribution.step) + 1
    return min(round(distribution.low + int(place * steps) * distribution.step, 10), distribution.high)


SAMPLERS: Registry[SamplerEntry] = Registry("sampler", "autoprune.samplers")


def _tpe(request: SamplerRequest) -> optuna.samplers.BaseSampler:
    # All parameters at once: they interact, and one by one each costs its own pass over the history.
    return optuna.samplers.TPESampler(seed=request.trial_seed, multivariate=True)


def _nsga2(request: SamplerRequest) -> optuna.samplers.BaseSampler:
    # Optuna's default population of 50 would make a study of 40 trials a random search.
    return optuna.samplers.NSGAIISampler(
        seed=request.trial_seed, population_size=int(np.clip(request.trials // 5, 8, 50))
    )


def _random(request: SamplerRequest) -> optuna.samplers.BaseSampler:
    return optuna.samplers.RandomSampler(seed=request.trial_seed)


def _qmc(request: SamplerRequest) -> optuna.samplers.BaseSampler:
    return SobolSampler(request)


def _greybox(request: SamplerRequest) -> optuna.samplers.BaseSampler:
    knowledge = request.knowledge()
    if knowledge is None:
        # With every objective modelled it was up to 5 % ahead of TPE on three networks, and half as good on the fourth.
        return _tpe(request)
    return GreyboxSampler(request.trial_seed, knowledge, request.history, request.batch)


SAMPLERS.add(
    "greybox",
    SamplerEntry(_greybox, "costs computed, only the accuracy drop modelled, expected hypervolume gain; else tpe"),
)
SAMPLERS.add("tpe", SamplerEntry(_tpe, "tree-structured Parzen estimator; Bergstra et al. 2011, Ozaki et al. 2020"))
SAMPLERS.add("nsga2", SamplerEntry(_nsga2, "genetic, non-dominated sorting; Deb et al. 2002"))
SAMPLERS.add("random", SamplerEntry(_random, "uniform at random: the baseline"))
SAMPLERS.add("qmc", SamplerEntry(_qmc, "scrambled Sobol sequence over all parameters; Sobol 1967, Owen 1995"))
