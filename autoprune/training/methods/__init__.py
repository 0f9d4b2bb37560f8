"""Methods that make a network sparse while it trains, one a file; listed in the order in which they stand here."""

from __future__ import annotations

from autoprune.training.methods.gradual import GradualPruning  # isort: skip
from autoprune.training.methods.l1 import L1  # isort: skip
from autoprune.training.methods.group_lasso import GroupLasso
from autoprune.training.methods.l0 import L0
from autoprune.training.methods.lottery import LotteryTicket
from autoprune.training.methods.method import METHODS, Method, Training
from autoprune.training.methods.movement import MovementPruning
from autoprune.training.methods.rigl import RigL
from autoprune.training.methods.set import SET
from autoprune.training.methods.slimming import NetworkSlimming
from autoprune.training.methods.variational import VariationalDropout

__all__ = [
    "L0",
    "L1",
    "METHODS",
    "SET",
    "GradualPruning",
    "GroupLasso",
    "LotteryTicket",
    "Method",
    "MovementPruning",
    "NetworkSlimming",
    "RigL",
    "Training",
    "VariationalDropout",
]
