"""From a config to the smaller model, on ResNet-56, against Torch-Pruning (pip install torch-pruning), pair by pair.

    PYTHONPATH=DATA/nets python tests/benchmarks/surgery_time.py

Both remove half of the channels inside every residual block by the L1 norm, from a dense model that is kept. Ours
traces once and slices; Torch-Pruning copies, traces and prunes for each trial, as its users do. CPU time, one thread.
"""

import copy
import statistics
import time

import torch
import torch_pruning
from nets_resnet_cifar import resnet_cifar

from autoprune.graph.groups import find_groups
from autoprune.pruning.criteria import Evidence
from autoprune.pruning.plan import make_plan
from autoprune.pruning.scores import ScoreBook
from autoprune.pruning.surgery import prune
from autoprune.spec.config import LayerChoice, ModelIdentity, PruningConfig

TRIALS = 15


def main() -> None:
    torch.set_num_threads(1)
    model, inputs = resnet_cifar(56).eval(), torch.randn(1, 3, 32, 32)
    graph = find_groups(model, (inputs,))
    inner = [name for name in graph.groups if name.endswith("conv1") and name.startswith("layer")]
    choice = LayerChoice(granularity="channel", criterion="magnitude_l1", sparsity=0.5)
    config = PruningConfig(model=ModelIdentity(fingerprint=graph.fingerprint), layers=dict.fromkeys(inner, (choice,)))
    book = ScoreBook(Evidence(model, tuple(layer.weight for layer in graph.layers.values()), ()))

    def ours() -> torch.nn.Module:
        return prune(model, make_plan(config, graph, book))

    def theirs() -> torch.nn.Module:
        copied = copy.deepcopy(model)
        tied = torch_pruning.DependencyGraph().build_dependency(copied, example_inputs=inputs)
        modules = dict(copied.named_modules())
        for name in inner:
            weight = modules[name].weight
            lowest = weight.abs().sum((1, 2, 3)).argsort()[: weight.shape[0] // 2].tolist()
            tied.get_pruning_group(modules[name], torch_pruning.prune_conv_out_channels, idxs=lowest).prune()
        return copied

    sizes = [sum(p.numel() for p in build().parameters()) for build in (ours, theirs)]
    assert sizes[0] == sizes[1], sizes
    pairs = []
    for _ in range(TRIALS):
        spent = []
        for build in (ours, theirs):
            started = time.process_time()
            build()
            spent.append(time.process_time() - started)
        pairs.append(spent)
    ratios = sorted(b / a for a, b in pairs)
    print("| | ms CPU, median |\n|:--|--:|")
    print(f"| autoprune: plan and cut | {1e3 * statistics.median(a for a, _ in pairs):.1f} |")
    print(f"| Torch-Pruning: copy, trace, prune | {1e3 * statistics.median(b for _, b in pairs):.1f} |")
    print(f"| **ratio** (min, median, max) | {ratios[0]:.1f}, **{statistics.median(ratios):.1f}**, {ratios[-1]:.1f} |")


if __name__ == "__main__":
    main()
