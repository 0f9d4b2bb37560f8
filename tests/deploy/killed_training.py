"""A pruned training that saves every step and may be killed: ``killed_training.py FOLDER METHOD REMOVE KILL_AT``."""

import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from small_task import cross_entropy, images, labelled, small_net

import autoprune as ap
from autoprune.graph.trace import fingerprint
from autoprune.spec.config import ModelIdentity, PruningConfig

STEPS = 12


def parts(method, remove):
    model = small_net().train()
    weights = {"granularity": "weight", "criterion": "magnitude_l1", "sparsity": 0.7}
    layers = {"inner": weights, "head": weights}
    if method == "gradual":
        layers["stem"] = {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5}
    chosen = PruningConfig(model=ModelIdentity(fingerprint=fingerprint(model)), layers=layers)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    schedule = ap.CubicSchedule(begin=2, end=8, every=2)
    sparsifier = ap.Sparsifier(
        model, chosen, optimizer, schedule, method=method, example_inputs=images(1, 0), remove=remove
    )
    return model, optimizer, sparsifier


def run(folder, method="gradual", remove="end", kill_at=None):
    torch.set_num_threads(1)
    model, optimizer, sparsifier = parts(method, remove)
    checkpoint = Path(folder) / "checkpoint.pt"
    first = 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        first = saved["step"]
        if remove == "now":
            sparsifier.load_state_dict(saved["sparsifier"])
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        if remove == "end":
            sparsifier.load_state_dict(saved["sparsifier"])
    data = [labelled(small_net(), 16, seed) for seed in range(4)]
    for step in range(first, STEPS):
        optimizer.zero_grad()
        cross_entropy(model, data[step % 4]).backward()
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        optimizer.step()
        sparsifier.step()
        state = {
            "step": step + 1,
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "sparsifier": sparsifier.state_dict(),
        }
        part = checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(checkpoint)
    return sparsifier


if __name__ == "__main__":
    run(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
