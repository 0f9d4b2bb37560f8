"""What a profile tells: its sentences and tables, for terminal, Markdown and HTML alike."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from math import gcd

from autoprune.results.formats import count, number, percent, plain
from autoprune.results.table import Cell, Column, Row, Table
from autoprune.spec.profile import DeviceSummary, LayerCosts, Payoff, ProfileRecord, Ratio, Staircase

_NAME = 60
WHOLE = "whole network"
_MUCH = 0.25


def headline(profile: ProfileRecord) -> str:
    """Say how long the network takes and which layers take most of it."""
    device = profile.device
    how = "takes" if device.measured else "takes, by the model,"
    alike: dict[str, list[LayerCosts]] = {}
    for layer in bottlenecks(device):
        alike.setdefault((layer.measured.like if layer.measured is not None else None) or layer.name, []).append(layer)
    slow = sorted(alike.values(), key=lambda layers: -sum(layer.ms for layer in layers))[:3]
    where = ", ".join(
        _name(layers[0])
        + (f" and {len(layers) - 1} of the same shape" if len(layers) > 1 else "")
        + f" ({percent(sum(layer.ms for layer in layers) / device.latency_ms)})"
        for layers in slow
    )
    outside = device.rest_ms / device.latency_ms
    if outside > max((sum(layer.ms for layer in layers) for layers in slow), default=0.0) / device.latency_ms:
        where = f"what runs between modules ({percent(outside)}), " + where
    return f"The dense network {how} {number(device.latency_ms)} ms on {plain(device.title)}; most in: {where}."


def bottlenecks(device: DeviceSummary) -> list[LayerCosts]:
    """Return the modules by falling time; where time is measured, those that were measured alone."""
    known = [layer for layer in device.layers if layer.ms > 0 and (layer.measured or not device.measured)]
    return sorted(known, key=lambda layer: (-layer.ms, layer.name))


def layer_table(device: DeviceSummary, most: int | None = None) -> Table:
    """Return the modules by falling time, then what is not theirs, then the whole.

    Args:
        device: The device.
        most: Rows of modules; the others are one row.
    """
    ranked = bottlenecks(device)
    shown, others = (ranked, []) if most is None else (ranked[:most], ranked[most:])
    rows = [
        Row(
            (
                Cell(_name(layer), plain(layer.type_name, _NAME)),
                Cell(f"{number(layer.ms)} ms", _share_detail(layer)),
                Cell(percent(layer.ms / device.latency_ms)),
                *([Cell(f"{number(layer.modelled_ms)} ms")] if device.measured else []),
                Cell(layer.bound),
                Cell(count(layer.macs)),
                Cell(count(layer.params)),
                Cell(count(layer.weight_bytes + layer.activation_bytes, "B")),
                Cell(f"{number(layer.energy_mj)} mJ"),
            )
        )
        for layer in shown
    ]
    if others:
        rows.append(_sum_row(f"{len(others)} other modules", others, device))
    if device.measured:
        rest = [layer for layer in device.layers if layer.measured is None]
        cells = list(_sum_row("rest", rest, device).cells)
        cells[1], cells[2] = Cell(f"{number(device.rest_ms)} ms"), Cell(percent(device.rest_ms / device.latency_ms))
        cells[-1] = Cell(f"{number(max(0.0, device.energy_mj - sum(layer.energy_mj for layer in ranked)))} mJ")
        rows.append(Row(tuple(cells)))
    total = _sum_row(WHOLE, device.layers, device)
    cells = list(total.cells)
    cells[1], cells[2] = (
        Cell(f"{number(device.latency_ms)} ms", "" if device.measured else _range(device)),
        Cell("100 %"),
    )
    if device.measured:
        cells[3] = Cell(f"{number(device.modelled_ms)} ms", _range(device))
    cells[-1] = Cell(
        f"{number(device.energy_mj)} mJ", f"{number(device.energy_low_mj)}–{number(device.energy_high_mj)}"
    )
    rows.append(Row(tuple(cells), "total"))
    columns = (
        Column("module", numeric=False),
        Column("time", note="95 % interval" if device.measured else ""),
        Column("share"),
        *([Column("modelled", wide=True)] if device.measured else []),
        Column("waits for", numeric=False),
        Column("MACs"),
        Column("params", wide=True),
        Column("bytes", wide=True),
        Column("energy", note="modelled"),
    )
    source = "measured alone, interleaved with the whole network" if device.measured else "modelled"
    return Table(f"Modules by time ({source}) on {plain(device.title)}", columns, tuple(rows))


def payoff_table(payoffs: Sequence[Payoff], step: int = 1) -> Table | None:
    """Return every pattern that was tried, with its ratio and what to think of it; None where none was.

    Args:
        payoffs: What was tried.
        step: Output channels that the device rounds up to; 1 where nothing is known.
    """
    if not payoffs:
        return None
    rows = tuple(
        Row(
            (
                Cell(WHOLE if tried.layer is None else plain(tried.layer, _NAME)),
                Cell(_pattern(tried)),
                Cell(f"{tried.ratio.value:.2f}×", _interval(tried.ratio) + ("" if tried.converged else " ?")),
                Cell(verdict(tried, step)),
            ),
            "pick" if tried.layer is None else "",
        )
        for tried in payoffs
    )
    columns = (
        Column("tried on", numeric=False),
        Column("pattern", numeric=False),
        Column("time after / before", note="95 % interval"),
        Column("verdict", numeric=False),
    )
    return Table("What pays here: each pattern of the space, really tried", columns, rows)


def staircase_table(staircases: Sequence[Staircase]) -> Table | None:
    """Return for each slow layer the widths that are worth taking; None where no width was tried."""
    if not staircases:
        return None
    rows = []
    for stairs in staircases:
        dense = stairs.points[0].channels
        kept = [point for point in stairs.points[1:] if point.on_step]
        slower = [point for point in stairs.points[1:] if point.ratio.low > 1]
        rows.append(
            Row(
                (
                    Cell(plain(stairs.layer, _NAME)),
                    Cell(str(dense)),
                    Cell(_some([f"{p.channels} ({p.ratio.value:.2f}×)" for p in kept])),
                    Cell(_some([str(point.channels) for point in slower])),
                )
            )
        )
    columns = (
        Column("layer", numeric=False),
        Column("channels"),
        Column("widths worth taking", numeric=False),
        Column("slower than dense", numeric=False),
    )
    return Table("Staircase: widths at which the layer alone gets faster", columns, tuple(rows))


def device_table(profile: ProfileRecord) -> Table | None:
    """Return the network on each device; None where no further one was asked for."""
    if not profile.others:
        return None
    rows = tuple(
        Row(
            (
                Cell(plain(device.device, _NAME)),
                Cell(f"{number(device.latency_ms)} ms", "" if device.measured else _range(device)),
                Cell("measured" if device.measured else "modelled"),
                Cell(f"{number(device.energy_mj)} mJ", _spread(device)),
                Cell(count(device.dram_bytes, "B")),
                Cell(_bound_shares(device)),
                Cell(_name(bottlenecks(device)[0]) if bottlenecks(device) else ""),
            ),
            "dense" if device is profile.device else "",
        )
        for device in (profile.device, *profile.others)
    )
    columns = (
        Column("device", numeric=False),
        Column("latency", note="low–high where modelled"),
        Column("which is", numeric=False),
        Column("energy", note="modelled, low–high"),
        Column("DRAM traffic", wide=True),
        Column("waits for", numeric=False, note="share of modelled time"),
        Column("slowest", numeric=False, wide=True),
    )
    return Table("The same network on other devices, by the models: they rank, they do not promise", columns, rows)


def findings(profile: ProfileRecord) -> tuple[Table, ...]:
    """Return what was tried and what other devices would do: those tables that have rows."""
    found = (
        payoff_table(profile.payoffs, measured_step(profile.staircases)),
        staircase_table(profile.staircases),
        device_table(profile),
    )
    return tuple(table for table in found if table is not None)


def next_step(profile: ProfileRecord) -> str:
    """Tell the user what to do now, and how much of the network nothing of it touches."""
    return " ".join(filter(None, (_advice(profile), out_of_reach(profile.device))))


def out_of_reach(device: DeviceSummary) -> str:
    """Say how much of the time lies in modules that multiply and that the space does not prune; empty where little."""
    kept = [layer for layer in bottlenecks(device) if layer.macs and not layer.prunable]
    share = sum(layer.ms for layer in kept) / device.latency_ms
    if share < _MUCH:
        return ""
    more = f" and {len(kept) - 1} more" if len(kept) > 1 else ""
    return (
        f"{percent(share)} of the time is in {_name(kept[0])}{more}, which this space does not prune; cuts elsewhere "
        "shorten that at most by narrower inputs."
    )


def _advice(profile: ProfileRecord) -> str:
    whole = [tried for tried in profile.payoffs if tried.layer is None]
    paying = sorted((tried for tried in whole if tried.pays), key=lambda tried: tried.ratio.value)
    idle = [tried.granularity for tried in whole if not tried.pays]
    command = f"autoprune search {shlex.quote(plain(profile.study))}"
    if not whole:
        return "Next: widen the space, which gives no layer of this network a pattern that can be tried."
    if not paying and any(tried.measured and not tried.converged and tried.ratio.low < 1 for tried in whole):
        return (
            "Next: profile again on a quiet machine; this time the whole network's ratios were too wide to say "
            "what pays."
        )
    if not paying:
        return (
            f"Next: nothing in the space {plain(profile.space)!r} makes this network faster here "
            f"({_listed(idle)}); take another runtime, a larger batch or another device, or search for file size alone."
        )
    best = paying[0]
    advice = f"Next: {command}, where {best.granularity} pays (half of it: {best.ratio.value:.2f}× the time)"
    step = measured_step(profile.staircases)
    if step > 1 and best.granularity == "channel":
        advice += f"; prefer widths that are multiples of {step} (round_to: {step}, or round_to: auto)"
    if idle:
        advice += f"; leave {_listed(idle)} out of the space unless file size is what you want"
    return advice + "."


def verdict(tried: Payoff, step: int = 1) -> str:
    """Say in words what a ratio means; ``step`` as in :func:`payoff_table`."""
    source = "" if tried.measured else ", by the model"
    if tried.pays:
        return f"{1 / tried.ratio.value:.2f}× faster{source}"
    if tried.ratio.low > 1 and tried.ratio.value > 1.02:
        return f"slower{source}" + (_off_step(tried, step) if tried.channels else "")
    if not tried.listed:
        return f"no gain{source}: not exploited by this runtime"
    return f"no gain that can be told from noise{source}" + (_off_step(tried, step) if tried.channels else "")


def notes(profile: ProfileRecord) -> tuple[str, ...]:
    """Return how the numbers were made, in sentences."""
    device = profile.device
    said = [f"Latency: {plain(device.meter)}."]
    if device.measured:
        said.append(
            "Each module was run alone on the inputs that it has inside the network, interleaved with the whole; "
            "its time is its share of the whole. Torch's modules of the same shapes were measured once. "
            "The rest is what runs between modules: sums, functional activations, reshapes, Python."
        )
    else:
        said.append("This device is not measured from here: all times are modelled, so they rank and do not promise.")
    said.append("What a module waits for is the largest part of the roofline's time: launch, arithmetic or memory.")
    said.append(f"Energy is modelled ({plain(device.energy_basis)}).")
    said.append(
        "Patterns were tried without fine-tuning or scoring: time does not depend on which units go. "
        "A ratio with ? did not reach the precision that the study asks for within its budget."
    )
    if profile.uncounted_ops:
        listed = ", ".join(f"{plain(op)} ({times})" for op, times in sorted(profile.uncounted_ops.items()))
        said.append(f"MACs are fvcore's; not counted: {listed}.")
    said += [plain(note) for note in profile.notes]
    said.append("Versions: " + ", ".join(f"{plain(k)} {plain(v)}" for k, v in sorted(profile.versions.items())) + ".")
    return tuple(said)


def measured_step(staircases: Iterable[Staircase]) -> int:
    """Return what all widths that lie on a step are multiples of; 1 where no step was found."""
    stepped = [stairs for stairs in staircases if stairs.steps]
    return gcd(*(width for stairs in stepped for width in (stairs.points[0].channels, *stairs.steps))) or 1


def _off_step(tried: Payoff, step: int) -> str:
    return f"; {tried.channels} is no multiple of {step}" if step > 1 and (tried.channels or 0) % step else ""


def _pattern(tried: Payoff) -> str:
    if tried.channels is not None:
        return f"{plain(tried.granularity)} {percent(tried.sparsity)}: {tried.of} → {tried.channels}"
    return f"{plain(tried.granularity)} {percent(tried.sparsity)}"


def _interval(ratio: Ratio) -> str:
    low, high = f"{ratio.low:.2f}", f"{ratio.high:.2f}"
    return low if low == high else f"{low}–{high}"


def _share_detail(layer: LayerCosts) -> str:
    if layer.measured is None:
        return ""
    scale = layer.measured.ms / layer.measured.share.value
    return f"{number(layer.measured.share.low * scale)}–{number(layer.measured.share.high * scale)}"


def _some(texts: list[str], most: int = 5) -> str:
    more = [f"{len(texts) - most} more"] if len(texts) > most else []
    return ", ".join(texts[:most] + more) or "none"


def _spread(device: DeviceSummary) -> str:
    return f"{number(device.energy_low_mj)}–{number(device.energy_high_mj)}"


def _range(device: DeviceSummary) -> str:
    """Return the interval of the modelled time; nothing for a profile of an earlier version."""
    low, high = device.modelled_low_ms, device.modelled_high_ms
    return "" if low is None or high is None else f"{number(low)}–{number(high)}"


def _sum_row(title: str, layers: Iterable[LayerCosts], device: DeviceSummary) -> Row:
    found = list(layers)
    ms = sum(layer.ms for layer in found)
    return Row(
        (
            Cell(title),
            Cell(f"{number(ms)} ms"),
            Cell(percent(ms / device.latency_ms)),
            *([Cell(f"{number(sum(layer.modelled_ms for layer in found))} ms")] if device.measured else []),
            Cell(""),
            Cell(count(sum(layer.macs for layer in found))),
            Cell(count(sum(layer.params for layer in found))),
            Cell(count(sum(layer.weight_bytes + layer.activation_bytes for layer in found), "B")),
            Cell(f"{number(sum(layer.energy_mj for layer in found))} mJ"),
        )
    )


def _bound_shares(device: DeviceSummary) -> str:
    total = sum(layer.modelled_ms for layer in device.layers) or 1.0
    shares = {
        bound: sum(layer.modelled_ms for layer in device.layers if layer.bound == bound) / total
        for bound in ("compute", "memory", "launch")
    }
    ranked = sorted(shares.items(), key=lambda pair: -pair[1])
    return f"{ranked[0][0]} {percent(ranked[0][1])}"


def _listed(keys: list[str]) -> str:
    return ", ".join(plain(key) for key in dict.fromkeys(keys))


def _name(layer: LayerCosts) -> str:
    return plain(layer.name, _NAME) or "between modules"
