"""One of two processes of a data-parallel training: ``data_parallel.py RANK FOLDER``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from residual import net
from small_task import cross_entropy, images, labelled, small_net
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import autoprune as ap
from autoprune.graph.trace import fingerprint
from autoprune.spec.config import ModelIdentity, PruningConfig


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    inner = small_net().train()
    layers = {
        "stem": {"granularity": "channel", "criterion": "magnitude_l1", "sparsity": 0.5},
        "inner": {"granularity": "weight", "criterion": "taylor", "sparsity": 0.6},
    }
    config = PruningConfig(model=ModelIdentity(fingerprint=fingerprint(inner)), layers=layers)
    model = DistributedDataParallel(inner)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    sparsifier = ap.Sparsifier(
        model,
        config,
        optimizer,
        ap.CubicSchedule(begin=0, end=9, every=3),
        example_inputs=images(1, 0),
        batches=[labelled(small_net(), 16, 100 + rank)],  # data that differs: the criterion alone would disagree
        loss=cross_entropy,
    )
    for step in range(12):
        optimizer.zero_grad()
        cross_entropy(model, labelled(small_net(), 16, 2 * step + rank)).backward()
        optimizer.step()
        sparsifier.step()
    found = {"masks": dict(sparsifier.masks), "model": inner.state_dict(), "blocks": blocks_masked(rank)}
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def blocks_masked(seed: int) -> list[int]:
    """Return which two of four residual blocks a random choice masks: of this seed, if no other process decides."""
    model = net()
    layers = {"blocks.0": {"granularity": "depth", "criterion": "random", "sparsity": 0.5}}
    config = PruningConfig(model=ModelIdentity(fingerprint=fingerprint(model)), layers=layers, seed=seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    ap.Sparsifier(model, config, optimizer, example_inputs=torch.zeros(1, 3, 8, 8))
    return [i for i, block in enumerate(model.blocks) if not block.first.weight.any()]


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
