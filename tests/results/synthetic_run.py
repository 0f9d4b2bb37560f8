"""A synthetic but realistic run: a small residual network, seeded, with every kind of trial that a study records."""

from __future__ import annotations

import random
from typing import Any

from autoprune.spec.config import LayerChoice, ModelIdentity, Provenance, PruningConfig
from autoprune.spec.findings import (
    DamageRecord,
    DeviceValues,
    DroppedChoice,
    Prediction,
    PredictorRecord,
    RungRecord,
    WorkerRecord,
)
from autoprune.spec.profile import DeviceSummary, LayerCosts, LayerShare, Payoff, Ratio, Staircase, StairPoint
from autoprune.spec.record import (
    EnergyRecord,
    GroupRecord,
    LatencyRecord,
    LayerRecord,
    RunRecords,
    StudyRecord,
    Timings,
    TrialRecord,
)
from autoprune.spec.study import SearchSpec, StudySpec

OBJECTIVES = ("accuracy_drop", "macs", "latency_ms", "energy_mj")
DENSE = {
    "macs": 41.6e6,
    "params": 272474.0,
    "size_bytes": 1089896.0,
    "dram_bytes": 3.1e6,
    "latency_ms": 3.42,
    "energy_mj": 28.4,
}
SCORE = 0.9833
BOUND = 0.04
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    'it\'s `quoted` | "twice" {{ 7*7 }} {% raw %}',
    "layer." + "x" * 300,
    "\u202eשלום عالم",
    "🔥.conv",
    "</pre></script><svg onload=alert(3)>",
)


def layer_names(groups: int) -> list[str]:
    return ["stem.conv", *(f"stage{1 + i // 4}.{i % 4 // 2}.conv{1 + i % 2}" for i in range(groups - 1))][:groups]


def channels_of(index: int) -> int:
    return 16 * 2 ** min(index // 4, 2)


def study_record(
    objectives: tuple[str, ...] = OBJECTIVES,
    names: list[str] | None = None,
    constraints: dict[str, Any] | None = None,
    task: str = "autoprune.examples.digits:task",
    **changes: Any,
) -> StudyRecord:
    names = layer_names(12) if names is None else names
    reference = {name: DENSE.get(name, BOUND) for name in objectives}
    data: dict[str, Any] = {
        "spec": StudySpec(
            task=task,
            space="cnn-mixed",
            objectives=objectives,
            constraints={"accuracy_drop": BOUND} if constraints is None else constraints,
            search=SearchSpec(sampler="greybox", trials=40, seed=7),
        ),
        "device_title": "This machine: 2 x86 cores, AVX-512",
        "fingerprint": "sha256:5f1c9a0b7d3e4a21",
        "dense_score": SCORE,
        "higher_is_better": True,
        "groups": {
            name: GroupRecord(layers=(name,) if i % 2 else (name, f"{name}.shortcut"), units=channels_of(i))
            for i, name in enumerate(names)
        },
        "pinned": {
            "its outputs are the model's outputs": ("head.fc",),
            "flattened into a size that the code fixes": ("neck.0", "neck.1"),
        },
        "reference": reference,
        "versions": {"autoprune": "0.1.0", "torch": "2.13.0", "python": "3.11.7", "optuna": "5.0.0"},
        "machine": "Intel(R) Xeon(R) Processor, 2 cores, Linux 6.1",
        "notes": ("Surgery checked on 8 samples: largest difference between masked and removed 3.1e-06.",),
    }
    return StudyRecord(**(data | changes))


def trial_record(
    number: int,
    sparsity: float,
    names: list[str],
    rng: random.Random,
    origin: str = "greybox",
    drop: float | None = None,
    task: str = "autoprune.examples.digits:task",
) -> TrialRecord:
    """A complete trial; its costs follow from the sparsities of its layers."""
    dense = origin == "dense"
    fractions = [0.0 if dense else min(max(rng.gauss(sparsity, 0.15), 0.0), 0.9) for _ in names]
    fractions = [round(f * 20) / 20 for f in fractions]
    layers = layer_records(names, fractions, dense)
    share = sum(layer.macs for layer in layers.values()) / DENSE["macs"] if names else 1 - sparsity
    ratio = 1.0 if dense else 0.22 + 0.78 * share**0.85 + rng.gauss(0, 0.01)
    width = 0.0 if dense else abs(rng.gauss(0.012, 0.004))
    if drop is None:
        drop = 0.0 if dense else round(((1 - share) ** 4 * 0.08 + rng.gauss(-0.001, 0.003)) * 1797 / 4) / 1797 * 4
    values = values_of(share, ratio, drop)
    return TrialRecord(
        number=number,
        state="complete",
        origin=origin,
        config=config_of(number, names, [] if dense else fractions, rng, task),
        values=values,
        score=SCORE - drop,
        test_score=None if drop > 0.03 else 0.9778 - drop + rng.gauss(0, 0.002),
        violations={"accuracy_drop": drop - BOUND} if drop > BOUND else {},
        layers=layers,
        uncounted_ops={"aten::scaled_dot_product_attention": 2} if number % 2 else {},
        latency=latency_record(values["latency_ms"], ratio, width),
        energy=energy_record(values, share, ratio),
        recovery="batch norm re-estimated on 512 samples",
        timings=Timings(
            prune_s=0.04, cost_s=0.01, recover_s=0.3 + 0.1 * rng.random(), evaluate_s=0.5, latency_s=2.1, propose_s=0.2
        ),
        finished_at="2026-01-02T03:04:05Z",
    )


def layer_records(names: list[str], fractions: list[float], dense: bool) -> dict[str, LayerRecord]:
    """Layers without a fraction of their channels; MACs fall with what a layer reads and what it makes."""
    layers, before = {}, 1.0
    for i, (name, fraction) in enumerate(zip(names, fractions, strict=True)):
        full = channels_of(i)
        left = max(full - int(full * fraction), 1)
        layers[name] = LayerRecord(
            channels=left,
            dense_channels=full,
            weight_sparsity=0.5 if i % 5 == 3 and not dense else 0.0,
            macs=int(DENSE["macs"] / len(names) * left / full * before),
        )
        before = left / full
    return layers


def values_of(share: float, ratio: float, drop: float) -> dict[str, float]:
    params = float(int(DENSE["params"] * (0.1 + 0.9 * share)))
    return {
        "accuracy_drop": drop,
        "macs": float(int(DENSE["macs"] * share)),
        "params": params,
        "size_bytes": params * 4,
        "dram_bytes": DENSE["dram_bytes"] * (0.2 + 0.8 * share),
        "latency_ms": DENSE["latency_ms"] * ratio,
        "energy_mj": DENSE["energy_mj"] * (0.6 * ratio + 0.4 * share),
    }


def config_of(number: int, names: list[str], fractions: list[float], rng: random.Random, task: str) -> PruningConfig:
    """A channel choice for each fraction, every fifth layer with 2:4 too; no fractions: dense."""
    criteria = ("magnitude_l1", "taylor", "batchnorm_scale")
    return PruningConfig(
        model=ModelIdentity(fingerprint="sha256:5f1c9a0b7d3e4a21"),
        seed=7,
        layers={
            name: (LayerChoice(granularity="channel", criterion=criteria[rng.randrange(3)], sparsity=fraction),)
            + ((LayerChoice(granularity="2:4", criterion="magnitude_l1"),) if i % 5 == 3 else ())
            for i, (name, fraction) in enumerate(zip(names, fractions, strict=False))
        },
        provenance=Provenance(run="runs/digits", trial=number, task=task, device="local-cpu", version="0.1.0"),
    )


def latency_record(ms: float, ratio: float, width: float) -> LatencyRecord:
    return LatencyRecord(
        ms=ms,
        ratio=ratio,
        ratio_low=ratio - width,
        ratio_high=ratio + width,
        candidate_ms=ms * 1.01,
        candidate_p90_ms=ms * 1.12,
        dense_ms=DENSE["latency_ms"] * 1.01,
        pairs=60,
        converged=width < 0.02,
        meter="measured: torch 2.13.0, 1 thread, batch 1, float32, inference_mode, 10 warm-up runs, pairs A B B A",
    )


def energy_record(values: dict[str, float], share: float, ratio: float) -> EnergyRecord:
    energy = values["energy_mj"]
    return EnergyRecord(
        mj=energy,
        low_mj=energy * 0.8,
        high_mj=energy * 1.3,
        time_mj=energy * 0.5,
        compute_mj=energy * 0.2,
        memory_mj=energy * 0.3,
        macs_only_mj=DENSE["energy_mj"] * share,
        time_only_mj=DENSE["energy_mj"] * ratio,
        dram_bytes=values["dram_bytes"],
        basis="uncalibrated: ranking only",
    )


def failed(number: int, error: str) -> TrialRecord:
    return TrialRecord(number=number, state="failed", origin="greybox", error=error)


def run_records(
    trials: int = 40,
    objectives: tuple[str, ...] = OBJECTIVES,
    names: list[str] | None = None,
    seed: int = 0,
    errors: tuple[str, ...] = (
        'Traceback (most recent call last):\n  File "task.py", line 3, in evaluate\nRuntimeError: out of memory',
    ),
    **study: Any,
) -> RunRecords:
    """A run of ``trials`` trials: the dense one, a uniform ladder, proposals, and one failure per error text."""
    names = layer_names(12) if names is None else names
    rng = random.Random(seed)
    record = study_record(objectives, names, **study)
    task = record.spec.task
    made: list[TrialRecord] = []
    for number in range(trials):
        if number == 0:
            made.append(trial_record(0, 0.0, names, rng, origin="dense", task=task))
        elif number < 6:
            made.append(trial_record(number, 0.12 * number, names, rng, origin="uniform", task=task))
        elif number < 6 + len(errors):
            made.append(failed(number, errors[number - 6]))
        elif number == 6 + len(errors):
            made.append(TrialRecord(number=number, state="pruned", origin="greybox", error="a repeat of trial 3"))
        else:
            made.append(trial_record(number, rng.uniform(0.1, 0.7), names, rng, task=task))
    return RunRecords(study=record, trials=tuple(made))


def with_findings(records: RunRecords, devices: tuple[str, ...] = ("raspberry-pi-5", "nvidia-h200")) -> RunRecords:
    """The same run with everything that a search may find out beside its trials' values."""
    rng = random.Random(1)
    names = list(records.study.groups)
    study = records.study.model_copy(
        update={
            "dense": dense_summary(records.study.device_title, names),
            "payoffs": (
                Payoff(granularity="channel", sparsity=0.5, ratio=ratio(0.6), measured=True),
                Payoff(granularity="2:4", sparsity=0.5, ratio=ratio(1.0), measured=True, listed=False),
            ),
            "staircases": tuple(staircase(name) for name in names[:1]),
            "damage": damage_of(names),
            "dropped": tuple(
                DroppedChoice(name=name, granularity="2:4", reason="2:4 does not pay here: 1.00x the time (0.98-1.02)")
                for name in names
            ),
            "predictor": PredictorRecord(
                basis="60 layers measured alone", measurements=60, mean_error=0.06, within_10=0.85, spearman=0.97
            ),
            "devices": {key: f"Title of {key}" for key in devices},
        }
    )
    trials = tuple(enriched(trial, devices, rng) for trial in records.trials)
    return records.model_copy(update={"study": study, "trials": trials})


def dense_summary(title: str, names: list[str]) -> DeviceSummary:
    latency = DENSE["latency_ms"]
    return DeviceSummary(
        device="local-cpu",
        title=title,
        meter="measured: torch 2.13.0",
        measured=True,
        latency_ms=latency,
        modelled_ms=latency * 0.8,
        rest_ms=latency * 0.1,
        energy_mj=28.4,
        energy_low_mj=20.0,
        energy_high_mj=40.0,
        energy_basis="uncalibrated: ranking only",
        dram_bytes=3.1e6,
        peak_macs_per_s=5e10,
        bandwidth=1e10,
        channel_step=8,
        layers=tuple(layer_costs(i, name, len(names)) for i, name in enumerate(names)),
    )


def layer_costs(index: int, name: str, layers: int) -> LayerCosts:
    latency = DENSE["latency_ms"]
    return LayerCosts(
        name=name,
        type_name="Conv2d",
        prunable=True,
        calls=1,
        macs=DENSE["macs"] / layers,
        params=1000,
        weight_bytes=4000.0,
        activation_bytes=9000.0 * (1 + index % 4),
        dram_bytes=13000.0,
        measured=LayerShare(
            share=ratio(0.9 / layers, 0.1 / layers), ms=latency * (0.5 + 0.8 * (index % 3) / 2) / layers
        ),
        modelled_ms=latency * 0.8 / layers,
        launch_ms=0.01,
        compute_ms=0.2,
        memory_ms=0.1,
        bound=("compute", "memory", "launch")[index % 3],
        energy_mj=2.0,
    )


def staircase(name: str) -> Staircase:
    return Staircase(
        layer=name,
        measured=True,
        points=(
            StairPoint(channels=16, ratio=ratio(1.0), on_step=False),
            StairPoint(channels=9, ratio=ratio(1.1), on_step=False),
            StairPoint(channels=8, ratio=ratio(0.5), on_step=True),
        ),
    )


def damage_of(names: list[str]) -> tuple[DamageRecord, ...]:
    return tuple(
        DamageRecord(
            name=name,
            granularity="channel",
            criterion=criterion,
            sparsity=sparsity,
            drop=round(sparsity**2 * (0.02 + 0.002 * i) + offset, 5),
            macs=DENSE["macs"] * (1 - sparsity / len(names)),
        )
        for i, name in enumerate(names)
        for sparsity in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
        for criterion, offset in (("taylor", 0.0), ("magnitude_l1", 0.001))
    )


def enriched(trial: TrialRecord, devices: tuple[str, ...], rng: random.Random) -> TrialRecord:
    """A measured trial with prediction, rungs, worker and what it costs on further devices."""
    if trial.latency is None or trial.score is None:
        return trial
    ms, drop, latency = trial.latency.ms, trial.values["accuracy_drop"], DENSE["latency_ms"]
    turned = 1.6 - trial.latency.ratio * 0.6  # on the last device the order is turned round
    layers = {
        name: layer.model_copy(
            update={"dram_bytes": 2e4 + layer.macs * 0.02, "predicted_ms": 0.02 + layer.macs / DENSE["macs"] * latency}
        )
        for name, layer in trial.layers.items()
    }
    return trial.model_copy(
        update={
            "layers": layers,
            "prediction": Prediction(ms=ms * 1.1, low_ms=ms * 0.9, high_ms=ms * 1.3, source="60 layers"),
            "rungs": (
                RungRecord(name="256 samples", score=trial.score, drop=drop + rng.gauss(0, 0.002), seconds=0.5),
                *([RungRecord(name="all", score=trial.score, drop=drop, seconds=2.0)] if trial.number % 3 else []),
            ),
            "worker": WorkerRecord(
                host="node-1", pid=100 + trial.number % 2, threads=1, attempts=1 + (trial.number == 8)
            ),
            "devices": {
                key: DeviceValues(
                    latency_ms=10.0 * r, ratio=r, ratio_low=r, ratio_high=r, energy_mj=5.0 * r, measured=False
                )
                for key, r in zip(devices, (trial.latency.ratio, turned), strict=False)
            },
        }
    )


def ratio(value: float, width: float = 0.02) -> Ratio:
    return Ratio(value=value, low=value - width, high=value + width)
