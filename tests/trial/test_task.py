"""Tasks: found by reference, checked when they are made, and told in one sentence when they cannot be used."""

import dataclasses
import sys

import numpy as np
import pytest
import torch
from small_task import task

from autoprune.errors import TaskError
from autoprune.trial.task import Calibration, Task, check_batches, load_task, score, score_dense


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model": 3}, "Task.model is an int; give a torch.nn.Module"),
        ({"model": None}, "Task.model is None"),
        ({"example_inputs": "x"}, "Task.example_inputs is a str; give a tensor"),
        ({"example_inputs": torch.zeros(0, 4)}, "holds a tensor without entries"),
        ({"example_inputs": {"x": (torch.zeros(1), torch.zeros(0, 4))}}, "holds a tensor without entries"),
        ({"evaluate": None}, "Task.evaluate is None; give a function"),
        ({"evaluate": 0.5}, "Task.evaluate is a float"),
        ({"test": 1}, "Task.test is an int"),
        ({"loss": "mse"}, "Task.loss is a str"),
        ({"finetune": True}, "Task.finetune is a bool"),
        ({"batches": 3}, "Task.batches is an int; give a list, a DataLoader or a function"),
        ({"batches": iter([1])}, "an iterator, which can be walked once"),
        ({"batches": (x for x in [1])}, "an iterator, which can be walked once"),
        ({"higher_is_better": "yes"}, "Task.higher_is_better is a str; give True or False"),
    ],
)
def test_what_a_task_cannot_be_made_of(changes, sentence):
    with pytest.raises(TaskError, match=sentence):
        dataclasses.replace(task(), **changes)


@pytest.mark.parametrize(
    "value", [0.5, 1, np.float32(0.5), np.float64(0.5), torch.tensor(0.5), torch.tensor([0.5]), np.array(0.5)]
)
def test_a_score_may_be_any_one_number(value):
    found = score(lambda model: value, torch.nn.Identity(), "evaluate")
    assert type(found) is float
    assert found == float(value)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (float("nan"), "returned nan; return a finite score"),
        (torch.tensor(float("inf")), "returned inf"),
        ("good", "returned a str; return the score as one float"),
        (None, "returned None"),
        (True, "returned a bool"),
        (torch.ones(3), r"returned a float32 tensor \(3,\)"),
        (torch.tensor(True), "returned a bool"),
        ((0.5, 0.4), "returned a tuple"),
        (1j, "returned a complex"),
    ],
)
def test_what_is_no_score(value, sentence):
    with pytest.raises(TaskError, match=sentence):
        score(lambda model: value, torch.nn.Identity(), "evaluate")


def test_scoring_is_in_evaluation_mode_and_without_gradients():
    model = torch.nn.Dropout().train()
    assert score(lambda m: float(m.training or torch.is_grad_enabled()), model, "evaluate") == 0


@pytest.mark.parametrize("error", [ValueError("no\ndata"), MemoryError("x"), SystemExit(3)])
def test_what_raises_on_the_dense_model_is_the_tasks_failure(error):
    def evaluate(model):
        raise error

    with pytest.raises(
        TaskError, match=f"Task.evaluate raised {type(error).__name__}: .* on the dense model"
    ) as caught:
        score_dense(evaluate, torch.nn.Identity(), "evaluate")
    assert "\n" not in str(caught.value)


def raising(*_):
    raise KeyError("labels")


@pytest.mark.parametrize(
    ("batches", "loss", "sentence"),
    [
        ([], None, "Task.batches gave no batch"),
        (lambda: iter([]), None, "Task.batches gave no batch"),
        (raising, None, "Task.batches raised KeyError: 'labels' at the first batch"),
        (lambda: 3, None, "Task.batches raised TypeError"),
        ([1], raising, "Task.loss raised KeyError: 'labels' on the first batch"),
        ([1], lambda m, b: 3, "Task.loss returned an int on the first batch"),
        ([1], lambda m, b: torch.ones(2), r"Task.loss returned a float32 tensor \(2,\) on the first batch"),
        ([1], lambda m, b: torch.tensor(float("nan")), "Task.loss returned the value nan on the first batch"),
    ],
)
def test_data_that_cannot_be_used_is_told_at_once(batches, loss, sentence):
    with pytest.raises(TaskError, match=sentence):
        check_batches(Calibration((), batches, loss), torch.nn.Identity())


def test_batches_are_walked_again_whatever_gives_them():
    class Sequence:
        def __getitem__(self, i):
            return [1, 2][i]

    for batches in ([1, 2], lambda: iter([1, 2]), torch.utils.data.DataLoader([1, 2], batch_size=None), Sequence()):
        data = Calibration((), dataclasses.replace(task(), batches=batches).batches)
        assert [list(data.walk()), list(data.walk())] == [[1, 2], [1, 2]]


FILE = """
from autoprune.trial.task import Task
from small_task import task as make

def task(): return make()
def placed(directory): return directory.mkdir(exist_ok=True) or make()
ready = make()
number = 3
def none(): pass
def wrong(): return 3
def raises(): raise ValueError("line one\\nline two")
def wants(a, b): return make()
def leaves(): raise SystemExit(3)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_task.py"
    path.write_text(FILE)
    return path


@pytest.mark.parametrize("name", ["task", "placed", "ready"])
def test_a_task_is_found_in_a_file(file, tmp_path, name):
    assert isinstance(load_task(f"{file}:{name}", tmp_path / "kept"), Task)


def test_a_task_is_found_in_a_module_of_the_working_directory(file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert isinstance(load_task("my_task:task"), Task)
    sys.modules.pop("my_task")


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("tusk", "has no function 'tusk'; did you mean 'task'?"),
        ("number", "is an int; give a function that returns an autoprune.Task"),
        ("none", "returned None; return an autoprune.Task"),
        ("wrong", "returned an int"),
        ("raises", "raised ValueError: line one line two; mend the function"),
        ("wants", "raised TypeError: .* missing 2 required"),
        ("leaves", "raised SystemExit: 3"),
    ],
)
def test_a_function_that_gives_no_task(file, name, sentence):
    with pytest.raises(TaskError, match=sentence) as caught:
        load_task(f"{file}:{name}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nosuchmodule", r"does not import \(ModuleNotFoundError: No module named 'nosuchmodule'\); install it"),
        ("def task(:", r"does not import \(SyntaxError: .*\); mend the module"),
        ("raise SystemExit('bye')", r"does not import \(SystemExit: bye\)"),
        ("1 / 0", "ZeroDivisionError"),
    ],
)
def test_a_file_that_does_not_import(tmp_path, text, sentence):
    (tmp_path / "t.py").write_text(text)
    with pytest.raises(TaskError, match=sentence):
        load_task(f"{tmp_path / 't.py'}:task")


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("nope.py:task", "no such file 'nope.py'; give the path of a Python file"),
        ("nosuchpackage.mod:task", "No module named 'nosuchpackage'"),
        ("task", "is not of the form package.module:function"),
        (":task", "is not of the form"),
        ("json:", "is not of the form"),
        ("json:nope", "has no function 'nope'"),
    ],
)
def test_a_reference_that_leads_nowhere(reference, sentence):
    with pytest.raises(TaskError, match=sentence):
        load_task(reference)
