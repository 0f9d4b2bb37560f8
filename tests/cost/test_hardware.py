"""Device profiles: those that ship load, and each mistake in one is told in a sentence."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoprune.cost import host
from autoprune.errors import SpecError, UnknownNameError
from autoprune.spec import library
from autoprune.spec.document import parse_document, read_yaml
from autoprune.spec.hardware import DeviceProfile, Figure, load_device


@pytest.mark.parametrize("name", library.names("hw_models"))
def test_every_profile_loads_and_round_trips(name: str, tmp_path: Path) -> None:
    profile = load_device(name)
    assert profile.name == name
    assert profile.title
    path = tmp_path / "copy.yaml"
    path.write_text(profile.to_yaml(), encoding="utf-8")
    assert load_device("copy.yaml", relative_to=tmp_path) == profile
    assert load_device(str(path)) == profile


def figures_of(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Yield every figure of a profile's YAML with its path."""
    if isinstance(document, dict) and "value" in document:
        yield path, document
    elif isinstance(document, dict | list):
        for key, inner in document.items() if isinstance(document, dict) else enumerate(document):
            yield from figures_of(inner, (*path, key))


@pytest.mark.parametrize("name", library.names("hw_models"))
def test_every_figure_has_a_source_and_is_read_in_it_or_has_a_range(name: str) -> None:
    found = dict(figures_of(read_yaml(library.folder("hw_models") / f"{name}.yaml")))
    assert len(found) > 10
    for path, figure in found.items():
        assert figure["source"].strip(), path
        assert "HARDWARE" not in figure["source"], path  # a source is a paper, a vendor or a measurement
        assert "range" in figure or figure["confidence"] in ("measured", "datasheet"), path


# Ceilings, pJ per MAC and per DRAM bit, worked out by hand from data sheets: (full load - idle) over the dense peak.
CEILINGS = [
    ("nvidia-h200", {"int8": 0.63, "float16": 1.26}, 16),
    ("h100-sxm", {"int8": 0.63, "float16": 1.26}, 23),
    ("a100-sxm-80gb", {"int8": 1.1, "float16": 2.2}, 21),
    ("l4", {"int8": 0.46, "float16": 0.93}, 23),
    ("jetson-orin-nano", {"int8": 1.1}, 20),
    ("jetson-agx-orin", {"int8": 1.2}, 31),
    ("coral-edge-tpu", {"int8": 1.0}, None),
    ("raspberry-pi-5", {"int8": 21, "float32": 84}, 47),
    ("xeon-8480", {"int8": 2.2}, None),
]


@pytest.mark.parametrize(("name", "per_mac", "per_bit"), CEILINGS)
def test_energies_stay_below_what_the_data_sheet_allows(
    name: str, per_mac: dict[str, float], per_bit: float | None
) -> None:
    profile = load_device(name)
    for dtype, ceiling in per_mac.items():
        assert profile.mac_energy(dtype).value <= 2 * ceiling
        spare = profile.power.tdp_w.value - profile.power.idle_w.value
        # The profile's own peak and power give the same ceiling: a sparse peak would give half of it.
        assert 1e12 * spare / profile.peak(dtype).value == pytest.approx(ceiling, rel=0.26)
    assert (per_bit is None) == (not profile.dram.on_package)
    if per_bit is not None:
        assert profile.dram.energy_pj_per_bit.value <= 2 * per_bit


# What the field stands in, and factors that people get wrong in it.
WRONG_UNITS = {
    "peak_macs_per_s": {"in tera": 1e-12},
    "mac_energy_pj": {"in joules": 1e-12},
    "utilisation": {"in percent": 1e2},
    "bytes": {"in MB": 1e-6, "in GB": 1e-9},
    "bandwidth": {"in GB/s": 1e-9},
    "energy_pj_per_bit": {"in joules": 1e-12, "in femtojoules": 1e3},
    "tdp_w": {"in mW": 1e3, "in kW": 1e-3},
    "idle_w": {"in mW": 1e3},
    "active_w": {"in mW": 1e3},
    "launch_us": {"in seconds": 1e-6, "in ns": 1e3},
}


@pytest.mark.parametrize("name", library.names("hw_models"))
def test_a_copied_profile_with_one_wrong_unit_is_refused(name: str) -> None:
    original = read_yaml(library.folder("hw_models") / f"{name}.yaml")
    tried = 0
    for path, found in figures_of(original):
        field = next((key for key in reversed(path) if key in WRONG_UNITS), None)
        if field is None or not found["value"]:
            continue
        for unit, factor in WRONG_UNITS[field].items():
            data = copy.deepcopy(original)
            place = data
            for key in path:
                place = place[key]
            place["value"] *= factor
            if "range" in place:
                place["range"] = [end * factor for end in place["range"]]
            with pytest.raises(SpecError) as caught:
                parse_document(DeviceProfile, data, f"{path} {unit}")
            message = str(caught.value)
            assert "\n" not in message
            assert re.search(r"check|mend|give", message), message
            named = {field, field.removesuffix("_pj_per_bit"), "memory" if "memory" in path else field}
            assert any(word in message for word in named), message
            tried += 1
    assert tried > 15


def test_levels_and_power_are_checked_against_one_another() -> None:
    assert "energy_pj_per_bit grows outwards" in broken("memory", 1, "energy_pj_per_bit", value=figure(12.0))
    assert "measured_bandwidth of l2" in broken("memory", 1, "measured_bandwidth", value=figure(6e12))
    assert "active_w is 1500 W" in broken("power", "active_w", value=figure(1500))
    assert "pJ per MAC" in broken(
        "compute", "peak_macs_per_s", value={"float32": figure(5e11)}
    )  # 700 W for half a tera
    assert "shorter than any launch" in broken("runtime", "launch_us", value=figure(4e-6))


def test_only_this_machine_and_its_gpu_can_be_measured() -> None:
    assert load_device("local-cpu").meters == ("torch", "torch_compile", "onnxruntime")
    others = [load_device(name) for name in library.names("hw_models") if name != "local-cpu"]
    assert {profile.name for profile in others if profile.gpu} == set(GPUS)
    assert all(profile.meters == (("cuda",) if profile.gpu else ()) for profile in others)


GPUS = ("nvidia-h200", "h100-sxm", "a100-sxm-80gb", "l4", "rtx-4090")


def test_figures_have_ends_even_without_a_range() -> None:
    figure = Figure(value=3.0, source="test", confidence="estimate")
    assert (figure.low, figure.high) == (3.0, 3.0)


BASE: dict[str, Any] = read_yaml(library.folder("hw_models") / "nvidia-h200.yaml")


def broken(*path: Any, value: Any) -> str:
    """Return the message for the H200 with one value replaced."""
    data = copy.deepcopy(BASE)
    place = data
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(SpecError) as caught:
        parse_document(DeviceProfile, data, "mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml: ")
    assert "\n" not in message
    return message


def figure(value: float, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    ends = {} if low is None else {"range": [low, high]}
    return {"value": value, "source": "test", "confidence": "estimate", **ends}


def test_a_range_contains_its_value() -> None:
    message = broken("power", "idle_w", value=figure(74, 80, 90))
    assert "does not contain the value 74" in message


def test_a_wrong_unit_is_told() -> None:
    message = broken("compute", "peak_macs_per_s", "float16", value=figure(494.5))  # in tera
    assert "494.5 MACs/s is not plausible" in message
    assert "check the unit" in message
    assert "compute.peak_macs_per_s.float16" in message
    assert "bytes/s is not plausible" in broken("memory", 2, "bandwidth", value=figure(4800))
    assert "pJ per bit is not plausible" in broken("memory", 2, "energy_pj_per_bit", value=figure(9e-12))


def test_energies_fit_the_power_of_the_board() -> None:
    assert "power over peak rate allows" in broken("compute", "mac_energy_pj", "float16", value=figure(4.6))
    assert "power over bandwidth allows" in broken("memory", 2, "energy_pj_per_bit", value=figure(60.0))
    assert "draws more under load" in broken("power", "tdp_w", value=figure(50))


def test_levels_are_ordered() -> None:
    assert "memory grows from the innermost" in broken("memory", 0, "bytes", value=figure(1e9))
    assert "bandwidth falls outwards" in broken("memory", 1, "bandwidth", value=figure(1e12))


def test_a_sparse_multiplier_is_at_most_two() -> None:
    assert "above 2" in broken("sparse_support", 0, "speedup", value=figure(2.5))


def test_keys_and_schema_are_strict() -> None:
    assert "unknown key 'power.tpd_w'" in broken("power", "tpd_w", value=figure(1))
    assert "schema" in broken("schema", value="autoprune/device/2")
    assert "source" in broken("power", "tdp_w", value={"value": 700, "confidence": "estimate"})
    assert "confidence" in broken("power", "tdp_w", value={"value": 700, "source": "x", "confidence": "sure"})
    assert "fusion" in broken("runtime", "fusion", value=["conv+magic"])


def test_an_unknown_device_is_named() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'eyeriss'"):
        load_device("eyeris")


def test_detection_replaces_what_the_machine_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for index, (kind, size) in enumerate(
        [("Data", "48K"), ("Instruction", "64M"), ("Unified", "2048K"), ("Unified", "8M")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "type").write_text(kind + "\n")
        (folder / "size").write_text(size + "\n")
    monkeypatch.setattr(host, "_CACHES", tmp_path)
    monkeypatch.setattr(host, "core_count", lambda: 4)
    before = load_device("local-cpu")
    after = host.detect(before)
    assert (after.memory[-2].bytes.value, after.memory[-2].bytes.confidence) == (8 * 2**20, "measured")
    assert (after.compute.cores.value, after.compute.cores.confidence) == (4, "measured")
    assert after.peak("float32").value == pytest.approx(before.peak("float32").value / 2)
    assert after.power.idle_w.value == pytest.approx(before.power.idle_w.value / 2)
    assert after.title == host.machine_title()
    assert "4 cores" in after.title
    assert parse_document(DeviceProfile, yaml.safe_load(after.to_yaml()), "detected") == after


def test_detection_leaves_what_it_cannot_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(host, "_CACHES", tmp_path / "none")
    monkeypatch.setattr(host, "_CPUINFO", tmp_path / "none")
    before = load_device("local-cpu")
    assert host.detect(before).memory == before.memory
    assert host.machine_title()
    other = load_device("eyeriss")
    assert host.detect(other) is other
