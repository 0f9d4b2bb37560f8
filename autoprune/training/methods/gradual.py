"""Gradual pruning: the config's criteria decide, the schedule says how much."""

from __future__ import annotations

from typing import ClassVar

from autoprune.training.methods.method import METHODS, Method


@METHODS.register("gradual")
class GradualPruning(Method):
    """At every change of masks the lowest scores go, by the criterion of each layer; what is gone stays gone.

    With magnitudes and :class:`CubicSchedule` it is gradual magnitude pruning (Zhu & Gupta 2017, arXiv 1710.01878).
    """

    key: ClassVar[str] = "gradual"
    summary: ClassVar[str] = "the config's criteria at every change of masks; Zhu & Gupta 2017 (arXiv 1710.01878)"
