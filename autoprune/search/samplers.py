"""Samplers by key. Each is made anew for every proposal, seeded by study seed and trial number.

A sampler that lives on would start its random stream again when a study is resumed and propose its first trials twice;
made anew, a resumed study proposes what an uninterrupted one would have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import optuna

from autoprune.registry import Registry


@dataclass(frozen=True)
class SamplerRequest:
    """What a sampler may depend on.

    Attributes:
        seed: Seed of the study.
        number: Trials in the study so far.
        trials: Trials wanted.
    """

    seed: int
    number: int
    trials: int

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
    # One scrambling for the whole study: its place in the sequence is kept in the storage.
    return optuna.samplers.QMCSampler(
        seed=request.seed, scramble=True, warn_independent_sampling=False, warn_asynchronous_seeding=False
    )


SAMPLERS.add("tpe", SamplerEntry(_tpe, "tree-structured Parzen estimator; Bergstra et al. 2011, Ozaki et al. 2020"))
SAMPLERS.add("nsga2", SamplerEntry(_nsga2, "genetic, non-dominated sorting; Deb et al. 2002"))
SAMPLERS.add("random", SamplerEntry(_random, "uniform at random: the baseline"))
SAMPLERS.add("qmc", SamplerEntry(_qmc, "scrambled Sobol sequence, where parameters are numbers"))
