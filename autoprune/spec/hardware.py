"""``hw_models/NAME.yaml``: what a device can do, with the source, the confidence and the range of every figure.

A wrong unit is the commonest mistake in such files, and the 2:4-sparse peak written down as the dense one the next. So
every figure has a unit with plausible limits, and the figures are checked against one another: the energy of a MAC and
of a DRAM bit cannot be more than the board's power divided by the peak rates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from autoprune.spec import library
from autoprune.spec.document import Document, load_document

Confidence = Literal["measured", "datasheet", "secondary", "derived", "recalled", "estimate"]
Dtype = Literal["float32", "tfloat32", "float16", "bfloat16", "int16", "int8"]
LayerKind = Literal["conv", "conv1x1", "depthwise", "linear", "attention", "batch_norm", "elementwise"]
Format = Literal["n:m", "bitmask", "csr", "bsr", "compact", "kernel", "pattern", "run-length"]

# Large devices throttle below their data-sheet peak, so the power ceilings are soft by this factor.
_SOFT = 2.0
# At full load a microcontroller (STM32H743) spends about 470 pJ per MAC of its peak, a GPU about 1.
_MOST_PJ_PER_MAC = 800.0


class Figure(Document):
    """One number and how far to trust it. Its unit is that of the field it stands in.

    Attributes:
        value: The number.
        source: Where it was read, or from what it follows.
        confidence: ``measured`` and ``datasheet`` were read in the primary source, ``secondary`` in a copy of it,
            ``derived`` follows from such figures, ``recalled`` is unconfirmed, ``estimate`` is a prior.
        range: Plausible interval around the value, where it is not certain.
    """

    value: float
    source: Annotated[str, Field(min_length=1)]
    confidence: Confidence
    range: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _range_holds_value(self) -> Figure:
        if self.range is not None and not self.range[0] <= self.value <= self.range[1]:
            low, high = self.range
            raise ValueError(
                f"the range [{low:g}, {high:g}] does not contain the value {self.value:g}; mend one of them"
            )
        return self

    @property
    def low(self) -> float:
        """Lower end of the range; the value where there is none."""
        return self.range[0] if self.range else self.value

    @property
    def high(self) -> float:
        """Upper end of the range; the value where there is none."""
        return self.range[1] if self.range else self.value


def _plausible(unit: str, low: float, high: float) -> Callable[[Figure], Figure]:
    def check(figure: Figure) -> Figure:
        if not (low <= figure.low and figure.high <= high):
            raise ValueError(
                f"{figure.value:g} {unit} is not plausible (known devices: {low:g} to {high:g} {unit}); check the unit"
            )
        return figure

    return check


def _not_in_seconds(figure: Figure) -> Figure:
    if 0 < figure.value < 0.05:
        raise ValueError(
            f"{figure.value:g} us is shorter than any launch; check the unit, or give 0 where there is none"
        )
    return figure


# Limits: from a microcontroller (STM32H743, ESP32-S3) to an H200 with an order of magnitude to grow.
MacRate = Annotated[Figure, AfterValidator(_plausible("MACs/s", 1e7, 1e16))]
MacEnergy = Annotated[Figure, AfterValidator(_plausible("pJ per MAC", 0.001, 1000))]
Bytes = Annotated[Figure, AfterValidator(_plausible("bytes", 64, 1e13))]
Bandwidth = Annotated[Figure, AfterValidator(_plausible("bytes/s", 1e6, 1e15))]
BitEnergy = Annotated[Figure, AfterValidator(_plausible("pJ per bit", 0.001, 100))]
Watts = Annotated[Figure, AfterValidator(_plausible("W", 0, 3000))]
Microseconds = Annotated[Figure, AfterValidator(_plausible("us", 0, 300)), AfterValidator(_not_in_seconds)]
Fraction = Annotated[Figure, AfterValidator(_plausible("of the peak", 0.001, 1))]
Keys = Annotated[Figure, AfterValidator(_plausible("keys", 1, 65_536))]
Count = Annotated[Figure, AfterValidator(_plausible("units", 1, 100_000))]


class ChannelStep(Document):
    """Widths that the device rounds up to.

    Attributes:
        c_in: Step of the input channels of one group.
        c_out: Step of the output channels of one group.
        source: Where it was read.
        confidence: As for :class:`Figure`.
    """

    c_in: Annotated[int, Field(ge=1, le=256)]
    c_out: Annotated[int, Field(ge=1, le=256)]
    source: Annotated[str, Field(min_length=1)]
    confidence: Confidence


class Compute(Document):
    """Arithmetic.

    Attributes:
        cores: Cores or multiprocessors that the peaks are for.
        peak_macs_per_s: Dtype to dense multiply-adds per second of the whole device. Vendors count two operations per
            MAC and like to print the sparse rate.
        mac_energy_pj: Dtype to energy of one multiply-add, pJ, arithmetic alone.
        utilisation: Share of the peak that a well-shaped layer reaches.
        accumulator_bytes: Bytes of one partial sum on chip.
        channel_step: Dtype to the widths that the device rounds up to.
    """

    cores: Count
    peak_macs_per_s: Annotated[dict[Dtype, MacRate], Field(min_length=1)]
    mac_energy_pj: Annotated[dict[Dtype, MacEnergy], Field(min_length=1)]
    utilisation: Fraction
    accumulator_bytes: Annotated[int, Field(ge=1, le=8)] = 4
    channel_step: dict[Dtype, ChannelStep] = Field(default_factory=dict)


class MemoryLevel(Document):
    """One level, as seen by a single core where each core has its own.

    Attributes:
        name: "l1", "l2", "llc", "dram", ...
        bytes: Capacity of one instance.
        policy: Caches keep what was used last; a scratchpad holds what it is told to.
        usable: Share of the capacity that a tile may fill (``S_eff = usable x bytes``): 1 for a scratchpad, about 0.5
            for a cache, whose replacement and other data take the rest (an estimate until it is calibrated).
        bandwidth: Bytes per second of all instances together.
        measured_bandwidth: What a stream copy reaches, if known; it replaces the peak in predictions.
        energy_pj_per_bit: Energy of moving one bit, the whole system's, not the memory device's alone.
        on_package: Whether its energy comes out of the board's power budget.
    """

    name: Annotated[str, Field(min_length=1)]
    bytes: Bytes
    policy: Literal["cache", "scratchpad", "memory"] = "cache"
    usable: Annotated[float, Field(gt=0, le=1)] = 0.5
    bandwidth: Bandwidth
    measured_bandwidth: Bandwidth | None = None
    energy_pj_per_bit: BitEnergy
    on_package: bool = True

    @property
    def effective_bytes(self) -> float:
        """Bytes that a tile may fill."""
        return self.usable * self.bytes.value

    @property
    def sustained_bandwidth(self) -> float:
        """Measured bandwidth in bytes/s where known, the peak otherwise."""
        return (self.measured_bandwidth or self.bandwidth).value


class Power(Document):
    """Power, W.

    Attributes:
        tdp_w: Design power, or the highest measured under load.
        idle_w: Drawn all the time.
        active_w: Drawn on top while a model runs, whatever it computes; 0 for an accelerator.
    """

    tdp_w: Watts
    idle_w: Watts
    active_w: Watts


class RuntimeTraits(Document):
    """What the runtime on the device does with a graph.

    Attributes:
        launch_us: Time to start one operator.
        fusion: Chains that run as one operator, as in ``conv+bn+act`` or ``add+act``; the rest reads and writes memory.
        activation_format: How the chip stores sparse activations off chip, if it does.
        attention: Whether attention runs as one kernel that keeps the scores on chip, or as products and a softmax
            that store them.
        causal_block: Keys that the one kernel takes at a time. Under a causal mask it leaves out the blocks that no
            query in hand sees; absent: it makes all scores.
    """

    launch_us: Microseconds
    fusion: tuple[Annotated[str, Field(pattern=r"^(conv|linear|bn|act|relu|add)(\+(bn|act|relu|add))+$")], ...] = ()
    activation_format: Literal["run-length"] | None = None
    attention: Literal["fused", "unfused"] = "fused"
    causal_block: Keys | None = None


class SparseSupport(Document):
    """A sparsity pattern that this device turns into time. What is not listed saves nothing but file size.

    Attributes:
        pattern: Granularity key ("2:4", "weight").
        ops: Operator kinds it holds for.
        dtypes: Data types it holds for.
        runtime: What executes it.
        format: How the weights are stored.
        min_rows: Fewest output channels of a weight.
        min_cols: Fewest inputs of one output channel.
        min_sparsity: Fewest zeros.
        max_kernel: Largest kernel side, if only some convolutions are sped up.
        speedup: Time of the dense operator over the sparse one; never 2 by default.
    """

    pattern: Annotated[str, Field(min_length=1)]
    ops: Annotated[tuple[Literal["linear", "conv"], ...], Field(min_length=1)]
    dtypes: Annotated[tuple[Dtype, ...], Field(min_length=1)]
    runtime: Annotated[str, Field(min_length=1)]
    format: Format
    min_rows: Annotated[int, Field(ge=1)] = 1
    min_cols: Annotated[int, Field(ge=1)] = 1
    min_sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.0
    max_kernel: Annotated[int, Field(ge=1)] | None = None
    speedup: Annotated[Figure, AfterValidator(_plausible("times", 0.1, 10))]

    @model_validator(mode="after")
    def _multiplier(self) -> SparseSupport:
        if self.speedup.value > 2:
            raise ValueError(
                f"a sparse multiplier of {self.speedup.value:g} is above 2, which no device reaches on whole layers; "
                "give a measured one"
            )
        return self


class KindRates(Document):
    """How operators of one kind run on this device, fitted to measured layers of that kind.

    Attributes:
        launch_us: Time to start one, in the place of ``runtime.launch_us``.
        utilisation: Share of the peak, in the place of ``compute.utilisation``; absent for what does no products.
        samples: Measured layers.
        loo_mape: Leave-one-out mean absolute error of the latency of such a layer, as a fraction.
    """

    launch_us: Microseconds
    utilisation: Fraction | None = None
    samples: Annotated[int, Field(ge=1)]
    loo_mape: Annotated[float, Field(ge=0)]


class EnergyCalibration(Document):
    """How the energies of a device were fitted to a counter on it.

    Attributes:
        meter: What counted; absent where nothing could.
        reason: Why nothing could, and what to do; absent where something did.
        samples: Layers whose energy was counted.
        loo_mape: Leave-one-out mean absolute error of the energy of a layer, as a fraction.
        macs_only_mape: The same error of a fit that knows MACs alone.
        time_only_mape: The same error of one power for all.
    """

    meter: str | None = None
    reason: str | None = None
    samples: Annotated[int, Field(ge=0)] = 0
    loo_mape: Annotated[float, Field(ge=0)] | None = None
    macs_only_mape: Annotated[float, Field(ge=0)] | None = None
    time_only_mape: Annotated[float, Field(ge=0)] | None = None


class Calibration(Document):
    """How the figures were fitted on this very device.

    Attributes:
        date: ISO 8601.
        samples: Measured layers.
        loo_mape: Leave-one-out mean absolute error of the latency of a layer, as a fraction.
        loo_max: Largest such error.
        loo_spearman: Rank correlation of layers left out.
        macs_only_mape: Leave-one-out error of a fit that knows MACs alone.
        bytes_only_mape: Leave-one-out error of a fit that knows DRAM bytes alone.
        one_rate_mape: Leave-one-out error of the same model with one rate and one launch for all kinds of operators.
        threads: Threads that were calibrated.
        energy: How the energies were fitted, or why they were not; absent in old profiles.
        busy: What disturbed the machine meanwhile, in a sentence; absent where it was quiet.
    """

    date: str
    samples: Annotated[int, Field(ge=1)]
    loo_mape: Annotated[float, Field(ge=0)]
    loo_max: Annotated[float, Field(ge=0)] | None = None
    loo_spearman: Annotated[float, Field(ge=-1, le=1)] | None = None
    macs_only_mape: Annotated[float, Field(ge=0)] | None = None
    bytes_only_mape: Annotated[float, Field(ge=0)] | None = None
    one_rate_mape: Annotated[float, Field(ge=0)] | None = None
    threads: Annotated[int, Field(ge=1)] | None = None
    energy: EnergyCalibration | None = None
    busy: str | None = None


class DeviceProfile(Document):
    """One device.

    Attributes:
        name: Key; the name of its file.
        title: Name for people.
        compute: Arithmetic.
        memory: Levels from the innermost outwards; the last is DRAM.
        power: Power.
        runtime: What the runtime does with a graph.
        sparse_support: Patterns that pay.
        meters: Runtimes that can measure on this device from here; empty: latency is modelled.
        detect: Sizes and counts are read from the machine at hand when the profile is used.
        gpu: Name that CUDA gives this device; it is measured where a GPU of that name is, and modelled elsewhere.
        kinds: Rates of kinds of operators where they were fitted; absent: one rate and one launch for all.
        calibration: How the figures were fitted; absent: they only rank.
    """

    schema_: Literal["autoprune/device/1"] = Field("autoprune/device/1", alias="schema")
    name: Annotated[str, Field(min_length=1)]
    title: Annotated[str, Field(min_length=1)]
    compute: Compute
    memory: Annotated[tuple[MemoryLevel, ...], Field(min_length=2)]
    power: Power
    runtime: RuntimeTraits
    sparse_support: tuple[SparseSupport, ...] = ()
    meters: tuple[str, ...] = ()
    detect: bool = False
    gpu: Annotated[str, Field(min_length=1)] | None = None
    kinds: dict[LayerKind, KindRates] | None = None
    calibration: Calibration | None = None

    @model_validator(mode="after")
    def _levels_are_monotone(self) -> DeviceProfile:
        for inner, outer in zip(self.memory, self.memory[1:], strict=False):
            if inner.bytes.value > outer.bytes.value:
                raise ValueError(
                    f"memory grows from the innermost level outwards: {inner.name} holds {inner.bytes.value:g} bytes, "
                    f"{outer.name} {outer.bytes.value:g}; check order and units"
                )
            if inner.bandwidth.value < outer.bandwidth.value:
                raise ValueError(
                    f"bandwidth falls outwards: {inner.name} has {inner.bandwidth.value:g} bytes/s, "
                    f"{outer.name} {outer.bandwidth.value:g}; check order and units"
                )
            if inner.energy_pj_per_bit.value > outer.energy_pj_per_bit.value:
                raise ValueError(
                    f"energy_pj_per_bit grows outwards: {inner.name} has {inner.energy_pj_per_bit.value:g}, "
                    f"{outer.name} {outer.energy_pj_per_bit.value:g}; check order and units"
                )
        for level in self.memory:
            measured = level.measured_bandwidth
            if measured is not None and measured.value > level.bandwidth.value:
                raise ValueError(
                    f"measured_bandwidth of {level.name} is {measured.value:g} bytes/s and its peak "
                    f"{level.bandwidth.value:g}; mend one of them"
                )
        return self

    @model_validator(mode="after")
    def _energies_fit_the_power(self) -> DeviceProfile:
        spare = self.power.tdp_w.value - self.power.idle_w.value
        if spare <= 0:
            raise ValueError(
                f"tdp_w is {self.power.tdp_w.value:g} W and idle_w {self.power.idle_w.value:g} W; "
                "a device draws more under load: check the unit of both"
            )
        active = self.power.active_w.value
        if active > _SOFT * spare:
            raise ValueError(
                f"active_w is {active:g} W where tdp_w less idle_w leaves {spare:g} W; check the unit of all three"
            )
        fastest = max(peak.value for peak in self.compute.peak_macs_per_s.values())
        spent = self.power.tdp_w.value / fastest * 1e12
        if spent > _MOST_PJ_PER_MAC:
            raise ValueError(
                f"tdp_w of {self.power.tdp_w.value:g} W at {fastest:g} MACs/s is {spent:g} pJ per MAC, where no known "
                f"device spends more than {_MOST_PJ_PER_MAC:g}; check the units of both"
            )
        for dtype, energy in self.compute.mac_energy_pj.items():
            rate = self.compute.peak_macs_per_s.get(dtype)
            ceiling = spare / rate.value * 1e12 if rate else float("inf")
            if energy.value > _SOFT * ceiling:
                raise ValueError(
                    f"mac_energy_pj.{dtype} is {energy.value:g} pJ where power over peak rate allows {ceiling:.3g} pJ; "
                    "check units, and that the peak is the dense one"
                )
        dram = self.memory[-1]
        ceiling = spare / (8 * dram.bandwidth.value) * 1e12
        if dram.on_package and dram.energy_pj_per_bit.value > _SOFT * ceiling:
            raise ValueError(
                f"{dram.name} energy is {dram.energy_pj_per_bit.value:g} pJ per bit where power over bandwidth allows "
                f"{ceiling:.3g}; check units"
            )
        return self

    def peak(self, dtype: str) -> Figure:
        """Return the dense peak in MACs/s for ``dtype``."""
        return _for_dtype(self.compute.peak_macs_per_s, dtype)

    def mac_energy(self, dtype: str) -> Figure:
        """Return the energy of one multiply-add in pJ for ``dtype``."""
        return _for_dtype(self.compute.mac_energy_pj, dtype)

    @property
    def dram(self) -> MemoryLevel:
        """The outermost level."""
        return self.memory[-1]


def _for_dtype(table: Mapping[Dtype, Figure], dtype: str) -> Figure:
    # A type without a figure runs on the widest unit that has one: float32 where it is listed, else the first listed.
    named = {str(key): figure for key, figure in table.items()}
    return named.get(dtype) or named.get("float32") or next(iter(named.values()))


def load_device(name_or_path: str, relative_to: Path | None = None) -> DeviceProfile:
    """Read a device profile.

    Args:
        name_or_path: Name in ``hw_models/``, or a path ending in .yaml or .yml.
        relative_to: Folder of the document that names it.

    Raises:
        UnknownNameError: No such device.
        SpecError: Names the file, the key, the value found and what is allowed.
    """
    return load_document(DeviceProfile, library.find("device", "hw_models", name_or_path, relative_to))
