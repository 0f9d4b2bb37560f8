"""Pruned files: bit-identical in a new process, as large as was counted, and never silently wrong."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from small_task import images, small_net, task

import autoprune
from autoprune.cost.macs import count_macs
from autoprune.cost.storage import size_bytes
from autoprune.deploy.pruned_file import PrunedFile, checksum
from autoprune.deploy.save import load_pruned, save_pruned
from autoprune.errors import ConfigError, SpecError
from autoprune.graph.groups import find_groups
from autoprune.graph.trace import fingerprint
from autoprune.pruning.kept import kept_of
from autoprune.pruning.plan import cuts_of
from autoprune.pruning.surgery import cut
from autoprune.spec.config import ModelIdentity, PruningConfig

ABSENT = (
    "optuna,fvcore,ray,pandas,plotly,rich,click,jinja2,sqlalchemy,onnx,onnxscript,onnxruntime,sklearn,scipy,"
    "lightning,transformers,accelerate"
)
"""What a machine that only loads does not have."""

CHOICES = {
    "dense": {},
    "weight": {"inner": {"granularity": "weight", "criterion": "magnitude_l1", "sparsity": 0.7}},
    "2:4": {"outer": {"granularity": "2:4", "criterion": "magnitude_l1"}},
    "channel": {"stem": {"granularity": "channel", "criterion": "taylor", "sparsity": 0.5}},
    "both": {
        "inner": [
            {"granularity": "channel", "criterion": "magnitude_l2", "sparsity": 0.5},
            {"granularity": "weight", "criterion": "random", "sparsity": 0.75},
        ],
        "stem": {"granularity": "channel", "criterion": "batchnorm_scale", "sparsity": 0.25},
        "head": {"granularity": "weight", "criterion": "taylor", "sparsity": 0.9},
    },
}


def config_for(key):
    identity = ModelIdentity(fingerprint=fingerprint(small_net()))
    return PruningConfig.model_validate({"schema": "autoprune/config/1", "model": identity, "layers": CHOICES[key]})


@pytest.fixture(scope="module")
def pruned():
    found = {}
    for key in CHOICES:
        known = task()
        found[key] = autoprune.apply(
            known.model, config_for(key), known.example_inputs, batches=known.batches, loss=known.loss
        )
    return found


def tensor_bytes(path):
    content = Path(path).read_bytes()
    return len(content) - 8 - int.from_bytes(content[:8], "little")


@pytest.mark.parametrize("key", CHOICES)
def test_what_is_loaded_computes_the_same_bits(pruned, tmp_path, key):
    path = tmp_path / "p.safetensors"
    assert save_pruned(pruned[key], path, config_for(key)) == path.stat().st_size
    loaded = load_pruned(small_net(), path)
    x = images(8, 5)
    assert torch.equal(loaded(x), pruned[key](x))
    assert loaded.state_dict().keys() == pruned[key].state_dict().keys()
    assert not loaded.training
    assert tensor_bytes(path) == size_bytes(pruned[key]) == size_bytes(loaded)
    assert count_macs(loaded, (x,)).total == count_macs(pruned[key], (x,)).total


def test_a_smaller_network_is_a_smaller_file(pruned, tmp_path):
    sizes = {
        key: save_pruned(model, tmp_path / f"{len(key)}-{key[:1]}", config_for(key)) for key, model in pruned.items()
    }
    assert sizes["both"] < min(sizes["weight"], sizes["2:4"], sizes["channel"]) < sizes["dense"]


def test_two_entries_cut_first_and_then_zero_what_is_left(pruned):
    weight = pruned["both"].inner.weight
    assert weight.shape[0] == 6
    assert int((weight == 0).sum()) == weight.numel() * 3 // 4


def test_the_dense_model_is_never_touched():
    known = task()
    before = {name: value.clone() for name, value in known.model.state_dict().items()}
    autoprune.apply(known.model, config_for("both"), known.example_inputs, batches=known.batches, loss=known.loss)
    assert all(torch.equal(value, before[name]) for name, value in known.model.state_dict().items())


@pytest.mark.slow
def test_a_new_process_computes_the_same_bits(pruned, tmp_path):
    for key, model in pruned.items():
        save_pruned(model, tmp_path / f"{key.replace(':', '')}.safetensors", config_for(key))
    code = """
import sys
class Absent:  # a machine with torch, numpy, pydantic, PyYAML and safetensors only
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in sys.argv[2].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import torch
from pathlib import Path
from small_task import images, small_net
import autoprune
torch.set_num_threads(1)
for path in sorted(Path(sys.argv[1]).glob("*.safetensors")):
    torch.save(autoprune.load_pruned(small_net(), path)(images(8, 5)), path.with_suffix(".pt"))
"""
    here = Path(__file__).parent.parent
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), ABSENT],
        check=True,
        env={"PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"},
    )
    for key, model in pruned.items():
        assert torch.equal(torch.load(tmp_path / f"{key.replace(':', '')}.pt", weights_only=True), model(images(8, 5)))


def test_tensors_that_are_shared_are_stored_once(tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(6, 6), torch.nn.Linear(6, 6)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x))

    model = Tied().eval()
    save_pruned(model, tmp_path / "t", dense=model)
    loaded = load_pruned(Tied(), tmp_path / "t")
    assert loaded.b.weight is loaded.a.weight
    assert tensor_bytes(tmp_path / "t") == size_bytes(model)
    assert torch.equal(loaded(torch.ones(1, 6)), model(torch.ones(1, 6)))


@pytest.fixture
def file(pruned, tmp_path):
    path = tmp_path / "p.safetensors"
    save_pruned(pruned["both"], path, config_for("both"))
    return path


@pytest.mark.parametrize("keep", [0, 4, 100, -1, -200])
def test_a_truncated_file_is_told(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(SpecError, match=r"p\.safetensors is damaged or no safetensors file"):
        load_pruned(small_net(), file)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 64, b"\xff" * 64, b"PK\x03\x04" + b"x" * 99])
def test_a_foreign_file_is_told(tmp_path, content):
    (tmp_path / "p").write_bytes(content)
    with pytest.raises(SpecError, match="is damaged or no safetensors file"):
        load_pruned(small_net(), tmp_path / "p")


def test_a_file_of_somebody_else_is_told(tmp_path):
    save_file({"a": torch.ones(3)}, tmp_path / "p")
    with pytest.raises(SpecError, match="without autoprune's metadata"):
        load_pruned(small_net(), tmp_path / "p")
    with pytest.raises(SpecError, match="no such file"):
        load_pruned(small_net(), tmp_path / "nope")
    with pytest.raises(SpecError, match="no such file"):
        load_pruned(small_net(), tmp_path)


def test_another_network_is_refused(file):
    with pytest.raises(ConfigError, match="build the model exactly as it was before pruning"):
        load_pruned(small_net(16), file)


def rewritten(file, change):
    with safe_open(str(file), framework="pt") as handle:
        about = json.loads(handle.metadata()["autoprune"])
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
    change(about, tensors)
    # Whoever means harm writes a checksum that fits.
    text = json.dumps(about)
    save_file(tensors, file, metadata={"autoprune": text, "sha256": checksum(text, tensors)})


def drop_tensor(about, tensors):
    tensors.pop("head.bias")


def drop_mask(about, tensors):
    tensors.pop(next(name for name in tensors if name.endswith("::mask")))


def short_values(about, tensors):
    name = next(name for name in tensors if name.endswith("::mask")).removesuffix("::mask")
    tensors[name] = tensors[name][:-1].clone()


def huge_shape(about, tensors):
    about["tensors"]["head.bias"]["shape"] = [10**12]


def overflowing_shape(about, tensors):
    about["tensors"]["head.weight"] = {"shape": [2**32, 2**32], "stored": "bitmask"}
    tensors["head.weight"], tensors["head.weight::mask"] = torch.zeros(0), torch.zeros(0, dtype=torch.uint8)


def places_that_are_too_many(about, tensors):
    about["place_sets"][0]["size"] = 10**9


def places_that_are_no_base64(about, tensors):
    about["place_sets"][0]["bits"] = "%%%"


def places_of_no_set(about, tensors):
    about["kept"][0]["places"] = 99


def places_of_another_size(about, tensors):
    about["place_sets"][0] = {"size": 8, "bits": "AA=="}


def whole_numbers_for_fractions(about, tensors):
    tensors["head.bias"] = torch.zeros(4, dtype=torch.int32)


def negative_shape(about, tensors):
    about["tensors"]["head.bias"]["shape"] = [-4]


def alias_of_itself(about, tensors):
    about["tensors"]["head.bias"] = {"shape": [4], "stored": "alias", "alias": "head.bias"}


def unknown_tensor(about, tensors):
    about["tensors"]["nose.bias"] = about["tensors"].pop("head.bias")


def unknown_key(about, tensors):
    about["colour"] = "red"


def newer_schema(about, tensors):
    about["schema"] = "autoprune/pruned/9"


@pytest.mark.parametrize(
    "change",
    [
        drop_tensor,
        drop_mask,
        short_values,
        huge_shape,
        overflowing_shape,
        places_that_are_too_many,
        places_that_are_no_base64,
        places_of_no_set,
        places_of_another_size,
        whole_numbers_for_fractions,
        negative_shape,
        alias_of_itself,
        unknown_tensor,
        unknown_key,
        newer_schema,
    ],
)
def test_a_file_that_does_not_match_its_description_is_told(file, change):
    rewritten(file, change)
    with pytest.raises((SpecError, ConfigError)) as caught:
        load_pruned(small_net(), file)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_byte_of_the_file_can_change_unseen(file):
    """Every 61st byte is flipped in turn: header, document, checksum, weights and masks."""
    content = file.read_bytes()
    for place in range(0, len(content), 61):
        file.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        with pytest.raises((SpecError, ConfigError), match=r"p\.safetensors"):
            load_pruned(small_net(), file)


@pytest.mark.parametrize("claimed", [2**63, 2**32, 10**8 + 1])
def test_a_header_that_claims_too_much_is_not_read(file, claimed):
    file.write_bytes(claimed.to_bytes(8, "little") + file.read_bytes()[8:])
    with pytest.raises(SpecError, match=f"its header claims {claimed:,} bytes, the file has "):
        load_pruned(small_net(), file)


def test_deep_nesting_is_told(file):
    with safe_open(str(file), framework="pt") as handle:
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118 - no mapping
    save_file(tensors, file, metadata={"autoprune": "[" * 200_000})
    with pytest.raises(SpecError, match=r"p\.safetensors is damaged"):
        load_pruned(small_net(), file)


def test_a_pickle_is_never_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "executed",))

    torch.save(Trap(), tmp_path / "p.safetensors")
    with pytest.raises(SpecError, match="damaged or no safetensors file"):
        load_pruned(small_net(), tmp_path / "p.safetensors")
    assert not (tmp_path / "executed").exists()


def test_precision_is_kept(pruned, tmp_path):
    half = copy.deepcopy(pruned["both"]).to(torch.bfloat16)
    save_pruned(half, tmp_path / "p", config_for("both"))
    loaded = load_pruned(small_net(), tmp_path / "p")
    x = images(4, 5).to(torch.bfloat16)
    assert loaded(x).dtype == torch.bfloat16
    assert torch.equal(loaded(x), half(x))


def test_the_kept_indices_are_those_of_the_dense_channels(pruned, file):
    """A network that is only cut holds the dense weights: the indices say which."""
    about = autoprune.read_pruned(file)
    places = about.kept_places().places
    assert set(places) >= {("stem.weight", 0), ("norm.weight", 0), ("inner.weight", 0), ("inner.weight", 1)}
    dense = small_net()
    stem = dense.stem.weight[places["stem.weight", 0]]
    assert torch.equal(pruned["both"].stem.weight, stem)
    assert about.dense_shape("inner.weight") == tuple(dense.inner.weight.shape)
    assert torch.__version__.startswith(about.versions["torch"].partition("+")[0])


def test_the_same_cut_is_made_on_another_checkpoint(pruned, file):
    other = small_net()
    with torch.no_grad():
        for value in other.parameters():
            value.add_(torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    alike = autoprune.prune_like(other, file)
    places = autoprune.read_pruned(file).kept_places().places
    rows, columns = places["inner.weight", 0], places["inner.weight", 1]
    mask = pruned["both"].inner.weight != 0
    assert torch.equal(alike.inner.weight, other.inner.weight[rows][:, columns] * mask)
    assert torch.equal(autoprune.prune_like(small_net(), file).stem.weight, pruned["both"].stem.weight)


def test_cuts_of_cuts_are_told_in_dense_numbers():
    dense = small_net()
    graph = find_groups(dense, (images(1, 0),))
    once = cut(dense, cuts_of(graph, {"inner": torch.tensor([0, 3])}))
    twice = cut(once, cuts_of(find_groups(once, (images(1, 0),)), {"inner": torch.tensor([0, 9])}))
    assert kept_of(twice).places["inner.weight", 0].tolist() == [2, 4, 5, 6, 7, 8, 9, 10]
    assert torch.equal(twice.inner.weight, dense.inner.weight[kept_of(twice).places["inner.weight", 0]])


def test_a_file_for_another_width_says_what_differs(file):
    with pytest.raises(ConfigError, match=r"stem\.weight is \(8, 4, 3, 3\) there and \(16, 4, 3, 3\) here"):
        load_pruned(small_net(16), file)


def test_a_state_that_is_no_tensor_is_refused(tmp_path):
    class Extra(torch.nn.Linear):
        def get_extra_state(self):
            return {"scale": 1}

    with pytest.raises(ConfigError, match="'_extra_state' is dict, and a file without pickle holds tensors alone"):
        save_pruned(Extra(2, 2), tmp_path / "p", dense=Extra(2, 2))


def test_the_file_says_what_it_is(file):
    with safe_open(str(file), framework="pt") as handle:
        about = PrunedFile.model_validate(json.loads(handle.metadata()["autoprune"]))
    assert about.config == config_for("both")
    assert about.fingerprint == fingerprint(small_net())


def test_saving_needs_to_know_the_architecture(pruned, tmp_path):
    with pytest.raises(ConfigError, match="give config, or dense"):
        save_pruned(pruned["both"], tmp_path / "p")


def test_a_place_that_cannot_be_written_leaves_nothing_behind(pruned, tmp_path):
    (tmp_path / "p").mkdir()
    with pytest.raises(OSError, match="p"):
        save_pruned(pruned["both"], tmp_path / "p", config_for("both"))
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


@pytest.mark.parametrize(
    ("layers", "sentence"),
    [
        (
            {"head": {"granularity": "channel", "criterion": "random", "sparsity": 0.5}},
            "the channels of layer 'head' stay",
        ),
        (
            {"outer": {"granularity": "channel", "criterion": "random", "sparsity": 0.5}},
            "are tied to group 'stem'; prune",
        ),
        ({"nose": {"granularity": "channel", "criterion": "random", "sparsity": 0.5}}, "unknown group 'nose'; known: "),
        ({"nose": {"granularity": "weight", "criterion": "random", "sparsity": 0.5}}, "unknown layer 'nose'"),
        ({"stem": {"granularity": "chanel", "criterion": "random", "sparsity": 0.5}}, "did you mean 'channel'?"),
        ({"stem": {"granularity": "weight", "criterion": "randon", "sparsity": 0.5}}, "did you mean 'random'?"),
    ],
)
def test_a_config_that_does_not_fit_is_told(layers, sentence):
    config = config_for("dense").model_copy(update={"layers": PruningConfig.model_validate(
        {"schema": "autoprune/config/1", "model": {"fingerprint": "x"}, "layers": layers}).layers})  # fmt: skip
    with pytest.raises(autoprune.AutopruneError, match=sentence.replace("(", r"\(").replace("?", r"\?")):
        autoprune.apply(small_net(), config, images(1, 0))


def test_a_config_for_another_architecture_is_refused():
    with pytest.raises(ConfigError, match="the config is for the architecture"):
        autoprune.apply(small_net(16), config_for("weight"), images(1, 0))


def test_a_config_for_another_architecture_says_what_differs():
    other = torch.nn.Sequential(torch.nn.Conv2d(4, 3, 3), torch.nn.ReLU(), torch.nn.Conv2d(3, 2, 3)).eval()
    with pytest.raises(ConfigError, match="of 3 layers that the config names 'inner' is missing, 'stem' is missing, "):
        autoprune.apply(other, config_for("both"), images(1, 0))
    with pytest.raises(ConfigError, match="it has all 1 layers that the config names, so a width"):
        autoprune.apply(small_net(16), config_for("weight"), images(1, 0))


def test_at_least_one_unit_stays_however_much_is_asked():
    for granularity in ("channel", "weight"):
        layers = {"inner": {"granularity": granularity, "criterion": "random", "sparsity": 0.999999}}
        data = {"schema": "autoprune/config/1", "model": config_for("dense").model, "layers": layers}
        smaller = autoprune.apply(small_net(), PruningConfig.model_validate(data), images(1, 0))
        assert int(smaller.inner.weight.count_nonzero()) > 0
        assert smaller.inner.out_channels >= 1
        assert bool(smaller(images(2, 0)).isfinite().all())
