"""``LatencyPredictor``: from kept units to the ratio of latency to dense, with an interval.

It learns from paired ratios of whole networks, so that what a runtime fuses, copies and starts between kernels is in
its numbers, and the machine's mood is not. Every trial that is measured refines it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autoprune.cost.candidates import Candidates
from autoprune.cost.device import DeviceCost, DeviceCosts
from autoprune.cost.extents import Floats
from autoprune.cost.predict.features import KernelFeatures
from autoprune.cost.predict.regression import Inputs, Regression, fit
from autoprune.cost.table import DENSE
from autoprune.ranks import spearman

Present = NDArray[np.bool_]

_Z = 1.96
_LEAST = 3  # measurements before the regression has anything to say
_MOST = 600  # the latest ones; a solve takes a tenth of a second there
_TUNE_AT = 1.25  # the widths of the priors are found anew when there are so many times as many measurements
_ANCHOR = 1e-3  # the dense network is 1 by definition
_MODEL_SPREAD = 0.5  # of the roofline, before anything was measured: a factor of two either way
_CHUNK = 2048  # rows at a time, so that a hundred thousand candidates need no more memory than two thousand


@dataclass(frozen=True)
class Predicted:
    """Latency relative to dense of ``n`` candidates, as a measurement would find it; each of shape (n,).

    Attributes:
        ratio: Best estimate.
        low: Lower end of the 95 % interval, the noise of a measurement included.
        high: Upper end of it.
    """

    ratio: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True)
class Quality:
    """How well a predictor does on its own measurements, each left out in turn.

    Attributes:
        measurements: How many.
        mean_error: Mean absolute relative error.
        within_10: Share of them within 10 %.
        spearman: Rank correlation; 0 where all are alike.
    """

    measurements: int
    mean_error: float
    within_10: float
    spearman: float


class LatencyPredictor:
    """Predicts paired ratios on one device and runtime.

    Without a measurement it gives the roofline's ratio and a wide interval.

    Networks without some residual blocks are versions that do not run all operators: ``present`` says which they run.

    Args:
        device: Costs from counts on the device, in the networks' precision; its runtime decides which zeros count.
        reference: The same of the dense network that ratios are relative to, where it runs in another precision.
    """

    def __init__(self, device: DeviceCosts, reference: DeviceCosts | None = None) -> None:
        self._device = device
        self._dense = _dense_cost(device)
        self._anchored = reference is None
        self._reference_s = float((self._dense if reference is None else _dense_cost(reference)).latency_s[0])
        seconds = np.where(self._dense.moved.fused, 0.0, self._dense.times.seconds[0])
        self._launch = np.where(self._dense.moved.fused, 0.0, self._dense.times.launch) / seconds.sum()
        self._features = KernelFeatures(self._dense.table, seconds / seconds.sum())
        self._seen: list[tuple[Inputs, float, float]] = []
        self._fit: Regression | None = None
        self._tuned_at = 0

    @property
    def measurements(self) -> int:
        """Measurements it was given."""
        return len(self._seen)

    def learn(
        self, candidates: Candidates, ratios: ArrayLike, spreads: ArrayLike, present: Present | None = None
    ) -> None:
        """Take measurements in.

        Args:
            candidates: What was measured, n of them.
            ratios: Latency over dense latency, paired; shape (n,).
            spreads: Relative standard deviation of each ratio; shape (n,).
            present: Which operators they run, shape (n, ops); None: all.
        """
        seen = self._inputs(self._device.costs(candidates), candidates, present)
        for row, (ratio, spread) in enumerate(zip(np.asarray(ratios), np.asarray(spreads), strict=True)):
            one = slice(row, row + 1)
            inputs = Inputs(seen.trend[one], seen.columns[one], seen.widths[one])
            self._seen.append((inputs, float(ratio), float(spread)))
        if len(self._seen) >= _LEAST:
            self._refit()

    def predict(
        self, candidates: Candidates, cost: DeviceCost | None = None, present: Present | None = None
    ) -> Predicted:
        """Predict; thousands of candidates in one call are what it is made for.

        Args:
            candidates: n of them.
            cost: What :meth:`DeviceCosts.costs` gave for them, where it is at hand.
            present: Which operators they run, shape (n, ops); None: all.
        """
        if cost is not None:
            return Predicted(*self._predict(candidates, cost, present))
        parts = [
            self._predict(_rows(candidates, at), present=None if present is None else present[at : at + _CHUNK])
            for at in range(0, len(candidates), _CHUNK)
        ]
        ratio, low, high = (
            (np.concatenate(column) for column in zip(*parts, strict=True)) if parts else np.zeros((3, 0))
        )
        return Predicted(ratio, low, high)

    def by_layer(self, candidates: Candidates, present: Present | None = None) -> Floats:
        """Return each layer's part of the predicted ratio, shape (n, layers).

        What a layer's operators start with is the roofline's, what they work is learned; the rest of the ratio belongs
        to operators outside the layers. No part is below 0, and that of a layer that does not run is 0.

        Args:
            candidates: n of them.
            present: As for :meth:`predict`.
        """
        cost = self._device.costs(candidates)
        if self._fit is None:
            parts = cost.times.seconds / self._reference_s
        else:
            weights = self._fit.column_weights
            modelled = self._fit.trend_weights[1]
            parts = self._features.by_op(cost.table, cost.moved.savings.effective_macs, weights)
            parts = parts + modelled * cost.times.seconds / self._dense.latency_s[0]
            parts = np.maximum(parts, self._launch * self._predict(candidates, cost, present)[0][:, None])
        runs = ~cost.moved.fused if present is None else ~cost.moved.fused & present
        return self._device.model.by_layer(np.where(runs, parts, 0.0))

    def quality(self) -> Quality | None:
        """Return the leave-one-out errors; None while there are too few measurements for any."""
        return quality_of([self])

    @property
    def left_out(self) -> tuple[Floats, Floats]:
        """Its measurements, each predicted from all others and as it was measured; empty while there are too few."""
        if self._fit is None:
            return np.zeros(0), np.zeros(0)
        told = self._fit.left_out[1:] if self._anchored else self._fit.left_out  # the first is the dense anchor
        return told, np.array([ratio for _, ratio, _ in self._used()])

    def _predict(
        self, candidates: Candidates, cost: DeviceCost | None = None, present: Present | None = None
    ) -> tuple[Floats, Floats, Floats]:
        cost = self._device.costs(candidates) if cost is None else cost
        if self._fit is None:
            ratio = self._modelled_s(cost, present) / self._reference_s
            spread = np.full(len(ratio), _MODEL_SPREAD)
            return ratio, ratio / (1 + _Z * spread), ratio * (1 + _Z * spread)
        ratio, deviation = self._fit.predict(self._inputs(cost, candidates, present))
        ratio = np.maximum(ratio, 0.02)  # no network is fifty times quicker by fewer channels alone at this size
        half = _Z * np.sqrt(deviation**2 + (self._noise * ratio) ** 2)
        return ratio, np.maximum(ratio - half, 0.01), ratio + half

    @property
    def _noise(self) -> float:
        """Relative standard deviation of a measurement: what it says of itself, and what repeats show beside."""
        assert self._fit is not None
        stated = float(np.median([spread for _, _, spread in self._used()]))
        return float(np.hypot(stated, self._fit.noise))

    def _used(self) -> list[tuple[Inputs, float, float]]:
        return self._seen[-_MOST:]

    def _refit(self) -> None:
        used = self._used()
        anchor = [(self._inputs(self._dense, None, None), 1.0, _ANCHOR)] if self._anchored else []
        stacked, ratios, spreads = zip(*anchor, *used, strict=True)
        seen = _stacked(stacked)
        tune = self._fit is None or len(self._seen) >= _TUNE_AT * self._tuned_at
        start = None if self._fit is None else self._fit.scales
        if tune:
            self._tuned_at = len(self._seen)
        family = self._features.family
        self._fit = fit(seen, np.array(ratios), np.array(spreads), family, start, sweeps=3 if tune else 0)

    def _inputs(self, cost: DeviceCost, candidates: Candidates | None, present: Present | None) -> Inputs:
        units = self._device.model.blueprint.units
        kept = units[None] if candidates is None else candidates.kept
        ratio = self._modelled_s(cost, present) / self._dense.latency_s[0]
        runs = np.ones((1, len(cost.table.ops)), np.bool_) if present is None else present
        # How many kernels are not started is a term of its own: 0 where all operators run.
        unstarted = np.where(runs, 0.0, self._launch).sum(axis=1) + np.zeros(len(ratio))
        return Inputs(
            trend=np.stack([np.ones(len(ratio)), ratio, unstarted], axis=1),
            columns=self._features.columns(cost.table, cost.moved.savings.effective_macs, runs),
            widths=kept / np.maximum(units, 1),
        )

    @staticmethod
    def _modelled_s(cost: DeviceCost, present: Present | None) -> Floats:
        seconds: Floats = cost.latency_s if present is None else (cost.times.seconds * present).sum(axis=1)
        return seconds


def quality_of(predictors: Sequence[LatencyPredictor]) -> Quality | None:
    """Return the leave-one-out errors of several predictors together; None while none has enough measurements."""
    told, measured = (np.concatenate(parts) for parts in zip(*(each.left_out for each in predictors), strict=True))
    if not len(measured):
        return None
    errors = np.abs(told / measured - 1)
    return Quality(
        measurements=sum(each.measurements for each in predictors),
        mean_error=float(errors.mean()),
        within_10=float((errors <= 0.1).mean()),
        spearman=float(np.nan_to_num(spearman(told, measured))),
    )


def _dense_cost(device: DeviceCosts) -> DeviceCost:
    nothing = np.full((1, len(device.model.layers)), DENSE, np.int64)
    return device.costs(Candidates(device.model.blueprint.units[None], nothing, nothing))


def _stacked(parts: Sequence[Inputs]) -> Inputs:
    return Inputs(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("trend", "columns", "widths")))


def _rows(candidates: Candidates, start: int) -> Candidates:
    of = slice(start, start + _CHUNK)
    return Candidates(candidates.kept[of], candidates.pattern[of], candidates.nonzeros[of], candidates.patterns)
