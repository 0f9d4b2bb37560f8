"""Methods that make a network sparse while it trains, one a file; listed in the order in which they stand here."""

from __future__ import annotations

from autoprune.training.methods.gradual import GradualPruning
from autoprune.training.methods.method import METHODS, Method, Training

__all__ = [
    "METHODS",
    "GradualPruning",
    "Method",
    "Training",
]
