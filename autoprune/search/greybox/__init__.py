"""Greybox: costs are computed, only the drop is modelled, and a trial goes where the hypervolume gains most."""

from autoprune.search.greybox.domain import Domain
from autoprune.search.greybox.history import History
from autoprune.search.greybox.knowledge import Knowledge
from autoprune.search.greybox.sampler import GreyboxSampler

__all__ = ["Domain", "GreyboxSampler", "History", "Knowledge"]
