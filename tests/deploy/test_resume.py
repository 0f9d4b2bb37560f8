"""A training that stops at any step goes on as if it had not: the same masks and weights, bit for bit."""

import signal
import subprocess
import sys
from pathlib import Path

import killed_training
import pytest
import torch
from killed_training import parts, run
from small_task import small_net
from test_sparsifier import config

import autoprune as ap
from autoprune.errors import ConfigError
from autoprune.training.methods import METHODS

# Slimming needs channels with batch norm and shares all that it keeps with 'gradual'.
METHODS_OF_WEIGHTS = [name for name in METHODS.names() if name != "slimming"]


def assert_same(one, other):
    assert one.masks.keys() == other.masks.keys()
    for name, mask in one.masks.items():
        assert torch.equal(mask, other.masks[name]), name
    for (name, mine), theirs in zip(one.model.state_dict().items(), other.model.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name
    assert one.steps == other.steps


def stopped(folder, method, remove, at, monkeypatch):
    """Train up to a step, and leave only the files."""
    monkeypatch.setattr(killed_training, "STEPS", at)
    run(folder, method, remove)
    monkeypatch.undo()


@pytest.mark.parametrize("method", METHODS_OF_WEIGHTS)
def test_every_method_resumes_in_the_middle_of_a_schedule(method, tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", method)
    for at in (1, 4, 5, 11):
        folder = tmp_path / str(at)
        folder.mkdir()
        stopped(folder, method, "end", at, monkeypatch)
        assert_same(run(folder, method), whole)


def test_a_smaller_network_resumes_too(tmp_path, monkeypatch):
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", remove="now")
    for at in (1, 3, 6, 9):
        folder = tmp_path / str(at)
        folder.mkdir()
        stopped(folder, "gradual", "now", at, monkeypatch)
        assert_same(run(folder, remove="now"), whole)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "at"), [("gradual", 4), ("rigl", 7), ("l0", 5)])
def test_a_killed_process_resumes(method, at, tmp_path):
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    script = Path(killed_training.__file__)
    command = [sys.executable, str(script), str(tmp_path / "killed"), method, "end", str(at)]
    died = subprocess.run(command, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    assert torch.load(tmp_path / "killed" / "checkpoint.pt", weights_only=True)["step"] == at
    assert_same(run(tmp_path / "killed", method), run(tmp_path / "whole", method))


def changed(state, **update):
    return {**state, **update}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: {}, "no state of a Sparsifier"),
        (lambda state: changed(state, config="{}"), "made with another config"),
        (lambda state: changed(state, schedule="OneShotSchedule(at=0)"), r"made with schedule OneShotSchedule\(at=0\)"),
        (lambda state: changed(state, method="rigl"), "made with method rigl, not gradual"),
        (lambda state: changed(state, remove="now"), "made with remove now, not end"),
        (lambda state: {key: value for key, value in state.items() if key != "gone"}, "damaged"),
        (lambda state: changed(state, masks={"inner.weight": torch.zeros(2, dtype=torch.uint8)}), "damaged"),
        (
            lambda state: changed(state, shapes={name: each[::-1] for name, each in state["shapes"].items()}),
            "another shape",
        ),
        (lambda state: changed(state, gone={"stem": torch.tensor([99])}), "units of 'stem' that this model lacks"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(change, sentence, tmp_path):
    donor = run(tmp_path)
    model, _, sparsifier = parts("gradual", "end")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=sentence):
        sparsifier.load_state_dict(change(donor.state_dict()))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert (sparsifier.steps, sparsifier.masks) == (0, {})


def test_another_hyperparameter_is_refused_and_an_older_state_is_not():
    model = small_net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def made(strength):
        chosen = config({"head": {"granularity": "weight", "criterion": "magnitude_l1", "sparsity": 0.5}})
        return ap.Sparsifier(model, chosen, optimizer, ap.OneShotSchedule(at=9), method=ap.L1(strength=strength))

    state = made(0.001).state_dict()
    with pytest.raises(ConfigError, match=r"made with strength 0\.001 of method 'l1', not 0\.01; give what it was"):
        made(0.01).load_state_dict(state)
    made(0.001).load_state_dict(state)
    made(0.01).load_state_dict({key: value for key, value in state.items() if key != "settings"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda state: changed(state, gone={"stem": torch.tensor([99])}), "units of 'stem' that this model lacks"),
        (lambda state: changed(state, gone={"stem": torch.arange(8)}), "all units of 'stem'"),
        (lambda state: changed(state, gone={}), "'inner.weight' in another shape"),
    ],
)
def test_a_state_of_a_smaller_network_that_does_not_fit_changes_nothing(change, sentence, tmp_path):
    donor = run(tmp_path, remove="now").state_dict()
    assert donor["gone"], "channels were cut out"
    model, _, sparsifier = parts("gradual", "now")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ConfigError, match=sentence):
        sparsifier.load_state_dict(change(donor))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    sparsifier.load_state_dict(donor)
