"""``autoprune apply`` and ``autoprune export``, as a user types them."""

import json
import sys
from pathlib import Path

import onnx
import pytest

from autoprune import cli

TESTS = Path(__file__).parent.parent
TASK = f"{TESTS / 'small_task.py'}:task"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the command in this process and return (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["autoprune", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        said = capsys.readouterr()
        return stop.value.code, said.out, said.err

    return call


def test_from_a_config_to_files_of_other_runtimes(run, tmp_path):
    code, said, _ = run("apply", TESTS / "golden" / "config-1.yaml", "--task", TASK, "-o", "p.safetensors")
    assert code == 0
    assert "Compared with the config: as asked" in said
    for name in ("n.onnx", "n.pt2"):
        code, said, _ = run("export", "p.safetensors", "--task", TASK, "-o", name, "--dynamic-batch")
        assert code == 0
        assert f"{(tmp_path / name).stat().st_size:,} B, largest relative difference to torch" in said
    code, said, _ = run("export", "p.safetensors", "--task", TASK, "-o", "q.onnx", "--int8")
    assert code == 0
    entry = next(item for item in onnx.load("q.onnx").metadata_props if item.key == "autoprune.quantized")
    record = json.loads(entry.value)
    assert f"{record['size_bytes']:,} B" in said
    assert f"{record['score']:.4f}" in said
    assert record["size_bytes"] < (tmp_path / "q.onnx").stat().st_size


def test_a_config_that_asks_for_int8_gives_the_int8_file(run, tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text((TESTS / "golden" / "config-1.yaml").read_text() + "precision: int8\n")
    code, said, _ = run("apply", config, "--task", TASK, "-o", "p.safetensors")
    assert code == 0
    assert "The config asks for int8: 'autoprune export p.safetensors" in said
    code, said, _ = run("export", "p.safetensors", "--task", TASK, "-o", "there.onnx")
    assert code == 0
    code, said, _ = run("apply", config, "--task", TASK, "-o", "here.onnx")
    assert code == 0
    assert "Compared with the config: as asked" in said
    there, here = (onnx.load(name) for name in ("there.onnx", "here.onnx"))
    assert [value.raw_data for value in here.graph.initializer] == [value.raw_data for value in there.graph.initializer]
    assert any(value.data_type == onnx.TensorProto.INT8 for value in here.graph.initializer)
    code, _, said = run("export", "p.safetensors", "--task", TASK, "-o", "n.pt2")
    assert code == 2
    assert "int8 networks are ONNX files, name it .onnx" in said


def test_wrong_use_is_one_sentence(run):
    config = TESTS / "golden" / "config-1.yaml"
    code, _, said = run("apply", config, "--task", TASK, "-o", "p.onnx")
    assert code == 2
    assert "does not ask for int8" in said
    code, _, said = run("apply", config, "--task", TASK, "-o", "p.safetensors", "--max-drop", "0")
    assert code == 1
    assert "the accuracy drop is " in said
    assert "where at most 0 is allowed" in said
    code, _, said = run("export", "p.safetensors", "--task", TASK, "-o", "n.tflite")
    assert code == 2
    assert "name the file .onnx (ONNX) or .pt2 (torch)" in said
    code, _, said = run("export", "nope", "--task", TASK, "-o", "n.onnx")
    assert code == 2
    assert "no such file" in said
