"""Save in one process, load in another that has torch, numpy, pydantic, PyYAML and safetensors, and no search.

The environment is a folder of links to what those five need, by the metadata of the installed packages.
"""

import subprocess
import sys
from importlib.metadata import distribution, distributions
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from small_task import images, task
from test_achieved import LAYERS, config_of

import autoprune as ap
from autoprune.spec.study import StudySpec
from autoprune.trial.runner import TrialRunner

TESTS = Path(__file__).parent.parent
WANTED = ("torch", "numpy", "pydantic", "PyYAML", "safetensors")
NEVER = {"optuna", "fvcore", "ray", "pandas", "sqlalchemy", "click", "plotly", "onnx", "onnxruntime"}


def needed() -> dict[str, object]:
    """Return the distributions that the five need, themselves among them."""
    installed = {canonicalize_name(each.metadata["Name"]): each for each in distributions()}
    found, open_names = {}, [canonicalize_name(name) for name in WANTED]
    while open_names:
        name = open_names.pop()
        if name in found or name not in installed:
            continue
        found[name] = installed[name]
        for text in installed[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                open_names.append(canonicalize_name(requirement.name))
    return found


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bare")
    for each in (*needed().values(), distribution("autoprune")):
        for file in each.files or ():
            top = file.parts[0]
            source = Path(each.locate_file(top))
            if top not in ("..", "__pycache__") and source.exists() and not (folder / top).exists():
                (folder / top).symlink_to(source)
    (folder / "autoprune").symlink_to(Path(ap.__file__).parent)
    return folder


def test_the_environment_holds_what_it_should():
    assert {"torch", "numpy", "pydantic", "pyyaml", "safetensors"} <= set(needed())
    assert not NEVER & set(needed())


@pytest.mark.slow
def test_production_needs_nothing_of_a_search(bare, tmp_path):
    spec = {"schema": "autoprune/study/1", "task": "x:y", "device": "eyeriss", "space": "channels"}
    runner = TrialRunner(task(), StudySpec.model_validate(spec))
    layers = {name: LAYERS[name] for name in ("stem", "inner")}
    record = runner.run(config_of(layers), 1, "test", runner.run_dense(0))
    known = task()
    smaller = ap.apply(known.model, record.config, known.example_inputs, batches=known.batches)
    ap.save_pruned(smaller, tmp_path / "p.safetensors", record.config)
    (tmp_path / "record.json").write_text(record.to_json(), encoding="utf-8")
    start = f"import sys; sys.path[:0] = [{str(bare)!r}, {str(TESTS)!r}]; sys.argv = ['bare', {str(tmp_path)!r}]; "
    code = (
        start + f"import runpy; runpy.run_path({str(TESTS / 'deploy' / 'bare_production.py')!r}, run_name='__main__')"
    )
    # -I and -S: neither site-packages nor the variables of this environment are seen.
    ran = subprocess.run([sys.executable, "-I", "-S", "-W", "error", "-c", code], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.strip().endswith("as asked")
    assert torch.equal(torch.load(tmp_path / "outputs.pt", weights_only=True), smaller(images(8, 5)).detach())
