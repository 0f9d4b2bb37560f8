"""Every format that crosses the disk still loads as its first version wrote it, and is written the same."""

import json
import statistics
from pathlib import Path

import pytest
import torch
from small_task import images, small_net

import autoprune
from autoprune.cost.meters import ModelInputs, ReplayMeter
from autoprune.graph.trace import fingerprint
from autoprune.results.profile_tables import next_step
from autoprune.spec.document import load_document
from autoprune.spec.front import front, hypervolume_of
from autoprune.spec.latency import LatencySpec
from autoprune.spec.profile import read_profile
from autoprune.spec.record import write_records
from autoprune.spec.space import SpaceSpec
from autoprune.spec.study import StudySpec

HERE = Path(__file__).parent


@pytest.mark.parametrize(("kind", "name"), [(StudySpec, "study-1"), (SpaceSpec, "space-1")])
def test_a_document_is_written_as_it_was_read(kind, name, tmp_path):
    document = load_document(kind, HERE / f"{name}.yaml")
    (tmp_path / "again.yaml").write_text(document.to_yaml(), encoding="utf-8")
    assert load_document(kind, tmp_path / "again.yaml") == document


def test_the_study_means_what_it_meant():
    spec = autoprune.load_study(HERE / "study-1.yaml")
    assert [str(bound) for bound in spec.bounds] == ["accuracy_drop at most 1", "macs at most 95% of dense"]
    assert spec.search.timeout_s == 600
    assert spec.space.resolve("head", "Linear") is None
    assert spec.space.resolve("inner", "Conv2d").sparsities == (0.0, 0.25, 0.5)
    assert spec.space.resolve("stem", "Conv2d").granularities == ("channel", "weight", "2:4")
    assert spec.space.resolve("stem", "Conv2d").round_to == 2


def test_the_config_still_gives_the_same_network():
    config = autoprune.load_config(HERE / "config-1.yaml")
    assert config.model.fingerprint == fingerprint(small_net()), "fingerprints of old configs stay valid"
    smaller = autoprune.apply(small_net(), config, images(1, 0))
    torch.testing.assert_close(smaller(images(8, 5)), torch.load(HERE / "pruned-1-outputs.pt", weights_only=True))


@pytest.mark.parametrize("number", [1, 2])
def test_the_pruned_file_still_loads(number):
    loaded = autoprune.load_pruned(small_net(), HERE / f"pruned-{number}.bin")
    wanted = torch.load(HERE / f"pruned-{number}-outputs.pt", weights_only=True)
    torch.testing.assert_close(loaded(images(8, 5)), wanted)


def test_a_file_without_kept_indices_says_so():
    assert autoprune.read_pruned(HERE / "pruned-1.bin").kept is None
    assert autoprune.read_pruned(HERE / "pruned-2.bin").config.provenance.trial == 7
    with pytest.raises(autoprune.AutopruneError, match="holds no kept indices"):
        autoprune.prune_like(small_net(), HERE / "pruned-1.bin")


def test_the_records_still_load_and_are_kept_whole(tmp_path):
    records = autoprune.read_records(HERE / "records-1.jsonl")
    assert len(records.trials) == 10
    assert {trial.number for trial in front(records)} <= set(range(10))
    assert 0 < hypervolume_of(records) < 1
    write_records(records, tmp_path / "again.jsonl")
    old, new = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in (HERE / "records-1.jsonl", tmp_path / "again.jsonl")
    )
    for before, after in zip(old, new, strict=True):
        assert subset(before, after), "what was recorded is kept"


def test_the_recording_still_replays():
    path, inputs = HERE / "recording-1.jsonl", ModelInputs((images(1, 0),))
    spec = LatencySpec(runtime="recorded", recording=str(path), half_width=0.1, budget_s=0.5)
    meter = ReplayMeter(spec)
    pair, alone = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[1:])
    found = meter.measure_pair(small_net(), small_net(4), inputs)
    ratios = [b / a for a, b in zip(pair["dense_s"], pair["candidate_s"], strict=True)]
    assert found.ratio == pytest.approx(statistics.median(ratios))
    assert found.meter == f"{pair['meter']}, replayed"
    assert meter.measure(small_net(4), inputs, 10.0).ms == pytest.approx(1e3 * statistics.median(alone["candidate_s"]))


def subset(before, after):
    """Whether ``after`` holds all of ``before``; later versions may add keys with defaults."""
    if isinstance(before, dict):
        return all(key in after and subset(value, after[key]) for key, value in before.items())
    return before == after


def test_a_profile_loads_and_is_told_and_written_as_it_was():
    found = read_profile(HERE / "profile-1.json")
    assert found.to_json() + "\n" == (HERE / "profile-1.json").read_text(encoding="utf-8")
    assert [layer.name for layer in found.device.layers if layer.macs] == ["stem", "inner", "outer", "head"]
    assert sum(layer.macs for layer in found.device.layers if layer.name == "inner") == 8 * 12 * 9 * 36
    assert {tried.granularity for tried in found.payoffs} == {"channel", "2:4"}
    assert next_step(found).startswith("Next: autoprune search study.yaml, where channel pays")
