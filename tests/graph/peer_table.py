"""Print, architecture by architecture, what may go and what stays, beside what Torch-Pruning finds.

Torch-Pruning is a peer and no dependency; install it for this script alone, then run it from the checkout:

    pip install --no-deps torch-pruning==1.6.1
    python tests/graph/peer_table.py > reports/graph/README.md
"""

from __future__ import annotations

import copy
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from test_surgery_equivalence import CASES, EXACT, build, first
from torch import nn

from autoprune.graph.groups import ModelGraph
from autoprune.pruning.proof import half_of_each, proven_groups, surgery_error

HEADING = """# Which channels can go

Made by `python tests/graph/peer_table.py > reports/graph/README.md`, here with torch {torch} and Torch-Pruning {peer}.
The networks are the small ones of `tests/graph`, with random weights, in float64.

*Ours.* Groups of coupled channels, and of attention heads, with their units; the share of the output channels of all
layers that can go; the largest difference of outputs, relative, between the smaller network (a random half of every
group removed) and the dense one in which nothing reads what was removed; what stays, in channels, and why. *Blocks*:
residual blocks that the identity may replace, of those in their stages; the network without them equals the exported
graph with their branches zero, or they would not be counted.

*Torch-Pruning.* Each group of its `DependencyGraph` in turn, the output layer left out: a random half is removed, and
the result is put to the same test, against the dense network in which the consumers that Torch-Pruning itself names do
not read the channels that it names. *Exact*: groups that pass ({exact:g}). *Wrong*: groups whose network runs and
computes something else; with layer norm or RMS norm over the channels that is so by design, and such channels we pin.
*Broken*: groups that it refuses, or whose network does not run. Of attention it wants to be told the heads, and leaves
the counts of the modules to its user; here it is told nothing, as we are.

| network | groups (units) | heads | blocks | can go | difference | what stays | its exact | wrong | broken | worst |
|---|--:|--:|--:|--:|--:|---|--:|--:|--:|--:|
"""


PATIENCE = 20
"""Seconds for one call of Torch-Pruning on a network of a few thousand weights."""


@dataclass
class Verdict:
    """How Torch-Pruning fares on one network; ``note`` where it yields no groups at all."""

    exact: int = 0
    wrong: int = 0
    broken: int = 0
    worst: float = 0.0
    note: str = ""

    def __str__(self) -> str:
        if self.note:
            return f"{self.note} | | | "
        return f"{self.exact} | {self.wrong} | {self.broken} | {f'{self.worst:.0e}' if self.wrong else ''}"


def ours(model: nn.Module, inputs: tuple[Any, ...]) -> str:
    """Return our cells of one row."""
    graph, _ = proven_groups(model, inputs)
    error = surgery_error(model, graph, half_of_each(graph, seed=1), inputs)
    assert error < EXACT
    counts = []
    for kind in ("channel", "head"):
        groups = [group for group in graph.groups.values() if group.kind == kind]
        counts.append(f"{len(groups)} ({sum(group.units for group in groups)})" if groups else "")
    total = sum(layer.shape[layer.out_dim] for layer in graph.layers.values())
    share = 1 - sum(pinned.channels for pinned in graph.pinned) / total
    stages = graph.stages.values()
    blocks = f"{sum(s.units for s in stages)} of {sum(s.depth for s in stages)}" if stages else ""
    return f"{counts[0]} | {counts[1]} | {blocks} | {share:.0%} | {error:.0e} | {what_stays(graph)}"


def what_stays(graph: ModelGraph) -> str:
    """Return reasons with the channels that each holds, the most first."""
    by_reason: Counter[str] = Counter()
    for pinned in graph.pinned:
        by_reason[pinned.reason.replace(" (the network's input, a constant)", "")] += pinned.channels
    return "; ".join(f"{count}: {reason}" for reason, count in by_reason.most_common())


@contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Raise ``TimeoutError`` in what does not end."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"no answer in {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def stop_reading(module: nn.Module, channels: list[int]) -> None:
    """Zero the weights of a layer that read some of its input channels."""
    weight = getattr(module, "weight", None)
    if weight is None or weight.dim() < 2:
        return  # a norm or a reshape: nothing is summed over there
    if isinstance(module, nn.ConvTranspose2d) or type(module).__name__ == "Conv1D":
        weight[channels] = 0
        return
    per_group, rows = weight.shape[1], weight.shape[0] // getattr(module, "groups", 1)
    for channel in channels:
        part, place = divmod(channel, per_group)
        weight[part * rows : (part + 1) * rows, place] = 0


def parts_of(group: Any, channels: int) -> int:
    """Return into how many equal parts grouped convolutions cut a group: each must lose the same places."""
    convolutions = [d.target.module for d, _ in group if isinstance(d.target.module, nn.modules.conv._ConvNd)]
    parts = [m.groups for m in convolutions if 1 < m.groups < m.in_channels and channels % m.groups == 0]
    return max(parts, default=1)


class Peer:
    """Torch-Pruning on one network."""

    def __init__(self, library: Any, model: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._tp, self._model, self._inputs = library, model, inputs

    def verdict(self) -> Verdict:
        """Judge every group alone."""
        result = Verdict()
        try:
            with limited(PATIENCE):
                roots = self._roots()
        except Exception as error:  # noqa: BLE001 - whatever a peer raises is its result
            return Verdict(note=str(error) if isinstance(error, TimeoutError) else type(error).__name__)
        for layer, channels in roots:
            try:
                with limited(PATIENCE):
                    difference = self._difference(layer, channels)
            except Exception:  # noqa: BLE001
                result.broken += 1
                continue
            result.exact += difference < EXACT
            result.wrong += difference >= EXACT
            result.worst = max(result.worst, difference)
        return result

    def _dependencies(self, model: nn.Module) -> Any:
        """Build its graph; it finds bare parameters by itself."""
        return self._tp.DependencyGraph().build_dependency(model, self._inputs, output_transform=first, verbose=False)

    def _roots(self) -> list[tuple[str, int]]:
        """Return the root layer of each group with at least two channels, and how many it has."""
        model = copy.deepcopy(self._model)
        graph = self._dependencies(model)
        names = {module: name for name, module in model.named_modules()}
        layers = [module for module in names if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear)]
        roots = [group[0].dep.target.module for group in graph.get_all_groups(ignored_layers=layers[-1:])]
        return [(names[root], n) for root in roots if (n := graph.get_out_channels(root)) > 1]

    def _difference(self, layer: str, channels: int) -> float:
        """Return the relative difference after half of a group is removed."""
        smaller, masked = copy.deepcopy(self._model), copy.deepcopy(self._model)
        graph = self._dependencies(smaller)
        root = smaller.get_submodule(layer)
        remove = graph.get_pruner_of_module(root).prune_out_channels
        parts = parts_of(graph.get_pruning_group(root, remove, list(range(channels))), channels)
        local = torch.randperm(channels // parts, generator=torch.Generator().manual_seed(1))[: channels // parts // 2]
        places = [part * (channels // parts) + place for part in range(parts) for place in sorted(local.tolist())]
        group = graph.get_pruning_group(root, remove, places)
        names = {module: name for name, module in smaller.named_modules()}
        reading = [(names[d.target.module], idxs) for d, idxs in group if d.handler.__name__ == "prune_in_channels"]
        with torch.no_grad():
            for name, idxs in reading:
                stop_reading(masked.get_submodule(name), idxs)
            if not graph.check_pruning_group(group):
                raise ValueError("nothing would be left")
            group.prune()
            small, large = first(smaller(*self._inputs)), first(masked(*self._inputs))
        if small.shape != large.shape:
            raise ValueError("another shape of output")
        return float((small - large).abs().max() / large.abs().max())


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    try:
        import torch_pruning
    except ImportError:
        sys.exit("this script compares with Torch-Pruning: pip install --no-deps torch-pruning==1.6.1")
    print(HEADING.format(torch=torch.__version__, peer=version("torch-pruning"), exact=EXACT), end="")
    for name in CASES:
        model, inputs = build(name)
        print(f"| {name} | {ours(model, inputs)} | {Peer(torch_pruning, model, inputs).verdict()} |", flush=True)


if __name__ == "__main__":
    main()
