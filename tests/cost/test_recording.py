"""Recordings: written from any meter, replayed the same, damaged and foreign ones refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.cost.meters import ModelInputs, RecordingMeter, ReplayMeter, TorchMeter
from autoprune.cost.meters.recording import pair_key
from autoprune.errors import MeterError, RunDirectoryError, SpecError, UsageError
from autoprune.spec.latency import LatencySpec
from autoprune.spec.recording import RecordedLatency, RecordingHeader, append_recording, read_recording
from autoprune.testing import check_meter

INPUTS = ModelInputs((torch.ones(1, 8),))
DENSE = nn.Linear(8, 64)


def recorder(path: Path, **spec: object) -> RecordingMeter:
    latency = LatencySpec(record=str(path), half_width=0.9, budget_s=0.02, **spec)
    return RecordingMeter(TorchMeter(latency), latency)


def replay(path: Path, **spec: object) -> ReplayMeter:
    return ReplayMeter(LatencySpec(runtime="recorded", recording=str(path), half_width=0.9, budget_s=0.02, **spec))


def test_what_is_recorded_passes_the_suite_and_so_does_its_replay(tmp_path: Path) -> None:
    path = tmp_path / "new" / "recording.jsonl"

    def record(spec: LatencySpec) -> RecordingMeter:
        spec = spec.model_copy(update={"record": str(path)})
        return RecordingMeter(TorchMeter(spec), spec)

    def replayed(spec: LatencySpec) -> ReplayMeter:
        return ReplayMeter(spec.model_copy(update={"runtime": "recorded", "recording": str(path)}))

    check_meter(record)
    check_meter(replayed)


def test_a_replay_is_the_measurement(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    meter = recorder(path)
    first, again = (meter.measure_pair(DENSE, nn.Linear(8, 16), INPUTS) for _ in range(2))
    alone = meter.measure(DENSE, INPUTS)
    played = replay(path)
    for wanted in (first, again, again):
        found = played.measure_pair(DENSE, nn.Linear(8, 16), INPUTS)  # other weights: the same time
        assert (found.ratio, found.low, found.high, found.pairs) == (
            wanted.ratio,
            wanted.low,
            wanted.high,
            wanted.pairs,
        )
        assert (found.candidate_p99_ms, found.outliers) == (wanted.candidate_p99_ms, wanted.outliers)
        assert (found.conditions, found.prepare_s) == (wanted.conditions, wanted.prepare_s)
        assert (found.warmup_rounds, found.steady) == (wanted.warmup_rounds, wanted.steady)
        assert found.meter == f"{wanted.meter}, replayed"
    assert played.measure(DENSE, INPUTS).samples_s == alone.samples_s[: played.measure(DENSE, INPUTS).samples]


def test_a_replay_at_another_precision_judges_the_interval_anew(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    entry = RecordedLatency(
        networks=pair_key(DENSE, DENSE, INPUTS, None),
        dense_s=(1e-3,) * 10,
        candidate_s=(0.9e-3, 1.1e-3) * 5,
        meter="measured",
        converged=False,
        reason="it was slow",
        slowed=7,
    )
    header = RecordingHeader(latency=LatencySpec(half_width=0.01), machine="a board")
    append_recording(path, header, entry)
    found = {
        half: ReplayMeter(LatencySpec(runtime="recorded", recording=str(path), half_width=half)).measure_pair(
            DENSE, DENSE, INPUTS
        )
        for half in (0.01, 0.5, 0.02)
    }
    assert [(each.converged, each.pairs, each.slowed) for each in found.values()] == [
        (False, 10, 7),
        (True, 10, 7),
        (False, 10, 7),
    ]
    assert found[0.01].reason == "it was slow"
    assert found[0.02].reason.startswith("the recording ended after 10 pairs at ±")


def test_a_slow_machine_stays_slow_at_any_precision(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    entry = RecordedLatency(
        networks=pair_key(DENSE, DENSE, INPUTS, None),
        dense_s=(1e-3,) * 10,
        candidate_s=(1e-3,) * 10,
        meter="measured",
        converged=False,
        reason="it was slow",
        speed=0.6,
    )
    append_recording(path, RecordingHeader(latency=LatencySpec(half_width=0.01), machine="a board"), entry)
    replayed = ReplayMeter(LatencySpec(runtime="recorded", recording=str(path), half_width=0.5))
    found = replayed.measure_pair(DENSE, DENSE, INPUTS)
    assert (found.converged, found.reason, found.speed) == (False, "it was slow", 0.6)


def test_what_was_not_recorded_cannot_be_replayed(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    recorder(path).measure_pair(DENSE, nn.Linear(8, 16), INPUTS)
    masked = nn.Linear(8, 16)
    with torch.no_grad():
        masked.weight[0] = 0
    for model in (nn.Linear(8, 15), masked):
        with pytest.raises(MeterError, match=r"holds no measurement of this network beside this reference"):
            replay(path).measure_pair(DENSE, model, INPUTS)
    with pytest.raises(MeterError, match=r"holds no measurement of this network;"):
        replay(path).measure(DENSE, INPUTS)
    with pytest.raises(UsageError, match=r"was recorded with batch 1 and the study asks for 4; set latency.batch"):
        replay(path, batch=4)


def test_a_recording_goes_on_after_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    recorder(path).measure_pair(DENSE, DENSE, INPUTS)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[1][:50])
    assert len(read_recording(path).measurements) == 1
    recorder(path).measure_pair(DENSE, nn.Linear(8, 16), INPUTS)
    assert len(read_recording(path).measurements) == 2
    assert path.read_bytes().startswith(whole)


def test_wrong_files_are_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl"
    with pytest.raises(SpecError, match=r"no such recording; record one with latency.record"):
        replay(path)
    path.write_text("not json\n")
    for use in (replay, recorder):
        with pytest.raises(SpecError, match=r"JSON|no recording"):
            use(path)
    path.write_text('{"schema":"autoprune/trial/1"}\n')
    with pytest.raises(SpecError, match=r"'autoprune/recording/1' is needed"):
        replay(path)
    path.unlink()
    recorder(path).measure_pair(DENSE, DENSE, INPUTS)
    with pytest.raises(RunDirectoryError, match=r"holds measurements with batch 1 and the study asks for 8"):
        recorder(path, batch=8)
    text = path.read_text().replace('"dense_s":[', '"dense_s":[-1.0,')
    path.write_text(text)
    with pytest.raises(SpecError, match=r"line 2: key 'dense_s.0' is -1.0"):
        replay(path)
