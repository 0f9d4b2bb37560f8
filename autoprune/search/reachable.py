"""Whether the space holds any config within the bounds, told from exact counts before anything is run.

MACs and parameters never grow when a group loses a unit, so the config that removes the most channels everywhere has
the fewest: if it does not meet a bound, no config does. Bytes and effective MACs are as certain where no weight pattern
and no other precision than float32 may be chosen. Of the other metrics nothing is claimed.
"""

from __future__ import annotations

import numpy as np

from autoprune.errors import ConfigError
from autoprune.pruning.granularity import granularity
from autoprune.search.proposals import NONE, Knob, Proposals
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig
from autoprune.spec.objectives import METRICS
from autoprune.spec.study import StudySpec
from autoprune.trial.costs import TrialCosts


def check_reachable(proposals: Proposals, costs: TrialCosts, spec: StudySpec) -> None:
    """Check every bound whose metric is exact.

    Args:
        proposals: The space, laid over the model.
        costs: Of networks.
        spec: The study, for its constraints.

    Raises:
        ConfigError: No config can meet a bound; with the nearest miss.
        SpecError: A percentage of a dense value that is 0.
    """
    model = costs.model
    if model is None or any(knob.stage is not None for knob in proposals.knobs):
        return  # which blocks go is decided by scores, not by the config
    channels_only = proposals.precisions == ("fp32",) and not any(map(_masks, proposals.knobs))
    certain = {"macs", "params", *(("size_bytes", "effective_macs") if channels_only else ())}
    bounds = [bound for bound in spec.bounds if bound.metric in certain]
    if not bounds:
        return
    identity = ModelIdentity(fingerprint=proposals.identity.fingerprint)
    layers = {knob.name: (choice,) for knob in proposals.knobs if (choice := _most(knob)) is not None}
    configs = [PruningConfig(model=identity, layers=chosen) for chosen in ({}, layers)]
    candidates = model.asked.configs(configs)
    counts, exact = model.counts(candidates), bool(np.all(model.exact_size(candidates)))
    for bound in bounds:
        if bound.metric in ("size_bytes", "effective_macs") and not exact:
            continue
        dense, least = (float(value) for value in getattr(counts, bound.metric))
        limit = bound.limit(dense)
        if limit.excess(least) > 0:
            title = METRICS[bound.metric].title
            raise ConfigError(
                f"no config of the space meets the constraint {bound} ({limit.value:,.0f}): the one that removes the "
                f"most channels still has {least:,.0f} {title}, {least / dense:.1%} of dense; raise the bound, or "
                "widen the space (higher sparsities, fewer layers ignored)"
            )


def _masks(knob: Knob) -> bool:
    return any(key != NONE and not granularity(key).removed for key in _keys(knob))


def _keys(knob: Knob) -> list[str]:
    return [method.partition("/")[0] for method in knob.methods]


def _most(knob: Knob) -> LayerChoice | None:
    """Return the choice of a knob that removes the most channels; None where none goes."""
    for method, key in zip(knob.methods, _keys(knob), strict=True):
        if key != NONE and granularity(key).removed and knob.sparsities:
            return knob.choice({f"{knob.name}|method": method, f"{knob.name}|sparsity": knob.sparsities[-1]})
    return None
