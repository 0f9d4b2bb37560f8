"""``profile.json``: what ``autoprune profile`` found, as data. Reports are rendered from it, without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from autoprune.errors import RunDirectoryError
from autoprune.spec.document import Document, parse_document, read_yaml

Bound = Literal["compute", "memory", "launch", "fused"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Quantity = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Ratio(Document):
    """A time relative to another, with its 95 % interval; the three agree where a model gave it.

    Attributes:
        value: Median of the pair ratios.
        low: Lower end.
        high: Upper end.
    """

    value: Positive
    low: Positive
    high: Positive


class LayerShare(Document):
    """A module measured alone, on the inputs that it has inside the network.

    Attributes:
        share: Its time over that of the whole network; both were run interleaved.
        ms: Share x the network's time, scaled down where the modules alone add up to more than the whole.
        like: The module that was measured in its place: a torch module of the same shapes. None: itself.
    """

    share: Ratio
    ms: Positive
    like: str | None = None


class LayerCosts(Document):
    """One module of the dense network and what it costs on one device.

    Attributes:
        name: Qualified name; "" for what runs in the network's own ``forward``.
        type_name: Class.
        prunable: Whether the study's space says anything about it.
        calls: Operators that it runs.
        macs: Multiply-adds.
        params: Parameters that stand in it.
        weight_bytes: Read.
        activation_bytes: Read and written.
        dram_bytes: By the tiling model.
        measured: Alone, on the device; None where it was not measured.
        modelled_ms: By the roofline.
        launch_ms: Part of the model: to start its operators.
        compute_ms: Part of the model: arithmetic alone.
        memory_ms: Part of the model: the slowest memory level alone.
        bound: The largest of the three.
        energy_mj: Modelled, with measured time where there is one.
    """

    name: str
    type_name: str
    prunable: bool
    calls: int
    macs: Quantity
    params: int
    weight_bytes: Quantity
    activation_bytes: Quantity
    dram_bytes: Quantity
    measured: LayerShare | None = None
    modelled_ms: Quantity
    launch_ms: Quantity
    compute_ms: Quantity
    memory_ms: Quantity
    bound: Bound
    energy_mj: Quantity

    @property
    def ms(self) -> float:
        """Measured time where there is one, modelled time otherwise."""
        return self.measured.ms if self.measured is not None else self.modelled_ms


class DeviceSummary(Document):
    """The dense network on one device.

    Attributes:
        device: Key or path, as it was asked for.
        title: Name for people.
        meter: What gave ``latency_ms``.
        measured: Whether that was a measurement.
        latency_ms: Of one run.
        modelled_ms: By the roofline.
        modelled_low_ms: The same with every figure of the profile at the quicker end of its range, or off by the
            leave-one-out error of a calibration; absent in old profiles.
        modelled_high_ms: At the slower end.
        rest_ms: Measured time that no module measured alone accounts for; 0 where latency is modelled.
        energy_mj: Modelled.
        energy_low_mj: With every figure of the profile at the lower end of its range.
        energy_high_mj: At the upper end.
        energy_basis: How far to trust it.
        dram_bytes: By the tiling model.
        peak_macs_per_s: Of the dtype that holds most MACs, times what a well-shaped layer reaches.
        bandwidth: Of DRAM, bytes/s.
        channel_step: Output channels that the profile says are rounded up to; 1 where it says nothing.
        layers: In the order in which they first run.
    """

    device: str
    title: str
    meter: str
    measured: bool
    latency_ms: Positive
    modelled_ms: Positive
    modelled_low_ms: Positive | None = None
    modelled_high_ms: Positive | None = None
    rest_ms: Quantity = 0.0
    energy_mj: Quantity
    energy_low_mj: Quantity
    energy_high_mj: Quantity
    energy_basis: str
    dram_bytes: Quantity
    peak_macs_per_s: Positive
    bandwidth: Positive
    channel_step: int = 1
    layers: tuple[LayerCosts, ...]


class Payoff(Document):
    """A pattern really tried: what it does to time.

    Attributes:
        layer: The layer measured alone before and after; None for the whole network, all its layers treated alike.
        granularity: Registry key.
        sparsity: Fraction removed.
        channels: Output channels left, where channels went; None for patterns.
        of: Dense output channels.
        ratio: Time after over time before.
        measured: Whether the device was asked; a model answers otherwise.
        converged: Whether the interval became as narrow as the study asks.
        listed: Whether the device profile lists the pattern as one that its runtime exploits; channels need no list.
    """

    layer: str | None = None
    granularity: str
    sparsity: Annotated[float, Field(ge=0, lt=1)]
    channels: int | None = None
    of: int | None = None
    ratio: Ratio
    measured: bool
    converged: bool = True
    listed: bool = True

    @property
    def pays(self) -> bool:
        """Whether the whole interval lies below 1, and the gain is more than the 2 % of a measurement's own width."""
        return self.ratio.high < 1 and self.ratio.value < 0.98


class StairPoint(Document):
    """Time of a layer with fewer output channels, relative to all of them.

    Attributes:
        channels: Output channels.
        ratio: Time over dense time.
        on_step: Whether no wider layer is as quick, within the measurement's width: a width worth taking.
    """

    channels: Annotated[int, Field(ge=1)]
    ratio: Ratio
    on_step: bool


class Staircase(Document):
    """Time of one layer over its output channels.

    Attributes:
        layer: Which.
        measured: Whether the device was asked.
        points: By falling width; the first is the dense layer.
    """

    layer: str
    measured: bool
    points: tuple[StairPoint, ...]

    @property
    def steps(self) -> tuple[int, ...]:
        """Widths worth taking, falling, the dense one left out."""
        return tuple(point.channels for point in self.points[1:] if point.on_step)


class ProfileRecord(Document):
    """One profile, whole.

    Attributes:
        task: As in the study.
        study: Path of the study.
        space: Name of its space.
        batch: Samples per run.
        macs: As fvcore counts them, for the whole run.
        params: Parameters.
        size_bytes: Weights on disk.
        uncounted_ops: Operators that fvcore does not count, with how often they run.
        device: The study's device.
        others: Further devices, by the models.
        payoffs: What was tried.
        staircases: Of the slowest layers that can lose channels.
        notes: What could not be done, in sentences.
        versions: Package to version.
        runtime: What ran the network on the study's device; absent in old profiles, as the two that follow.
        threads: Of the runtime.
        dtype: That the network was cast to; absent: its own.
    """

    schema_: Literal["autoprune/profile/1"] = Field("autoprune/profile/1", alias="schema")
    task: str
    study: str
    space: str
    batch: int
    macs: Quantity
    params: int
    size_bytes: Quantity
    uncounted_ops: dict[str, int] = Field(default_factory=dict)
    device: DeviceSummary
    others: tuple[DeviceSummary, ...] = ()
    payoffs: tuple[Payoff, ...] = ()
    staircases: tuple[Staircase, ...] = ()
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = Field(default_factory=dict)
    runtime: str | None = None
    threads: int | None = None
    dtype: str | None = None


def read_profile(path: Path) -> ProfileRecord:
    """Read ``profile.json`` (JSON is YAML).

    Raises:
        RunDirectoryError: There is no such file.
        SpecError: It breaks its schema.
    """
    if not path.is_file():
        raise RunDirectoryError(f"{path}: no such profile; make one with 'autoprune profile STUDY.yaml'")
    return parse_document(ProfileRecord, read_yaml(path), str(path))
