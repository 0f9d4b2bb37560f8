"""Production on a machine with torch, numpy, pydantic, PyYAML and safetensors alone; run by test_bare_environment.py.

Arguments: a folder with ``p.safetensors`` and ``record.json`` of ``small_task``, and nothing else.
"""

import importlib.util
import json
import sys
from pathlib import Path

import torch
from small_task import cross_entropy, images, labelled, small_net

import autoprune as ap
from autoprune.spec.document import parse_document

for name in ("optuna", "fvcore", "ray", "pandas", "sqlalchemy", "click", "rich", "plotly", "onnx", "sklearn"):
    assert importlib.util.find_spec(name) is None, f"{name} is no part of this environment"

folder = Path(sys.argv[1])
record = parse_document(ap.TrialRecord, json.loads((folder / "record.json").read_text()), "record")
loaded = ap.load_pruned(small_net(), folder / "p.safetensors")
torch.save(loaded(images(8, 5)).detach(), folder / "outputs.pt")
achieved = ap.verify(loaded, record, small_net(), images(2, 0))
achieved.raise_for_differences()
assert achieved.unchecked == ()

model = small_net()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
schedule = ap.CubicSchedule(begin=0, end=4, every=1)
sparsifier = ap.Sparsifier(model, record.config, optimizer, schedule, example_inputs=images(1, 0))
for step in range(5):
    optimizer.zero_grad()
    cross_entropy(model, labelled(small_net(), 16, step)).backward()
    optimizer.step()
    sparsifier.step()
smaller = sparsifier.finalize(record=record)
ap.save_pruned(smaller, folder / "trained.safetensors", record.config)
again = ap.load_pruned(small_net(), folder / "trained.safetensors")
assert torch.equal(again(images(8, 5)), smaller(images(8, 5)))
print(sparsifier.achieved)
