"""A model sharded by FSDP2 on one process, given to a sparsifier: prints what it says."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import torch
from small_task import small_net
from torch import distributed
from torch.distributed.fsdp import fully_shard

import autoprune as ap
from autoprune.graph.trace import fingerprint
from autoprune.spec.config import ModelIdentity, PruningConfig

if __name__ == "__main__":
    distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}/meeting", rank=0, world_size=1)
    model = small_net()
    identity = ModelIdentity(fingerprint=fingerprint(model))
    mesh = distributed.device_mesh.init_device_mesh("cpu", (1,))
    fully_shard(model, mesh=mesh)
    try:
        ap.Sparsifier(model, PruningConfig(model=identity, layers={}), torch.optim.SGD(model.parameters(), lr=0.1))
    except ap.AutopruneError as error:
        print(error)
    distributed.destroy_process_group()
