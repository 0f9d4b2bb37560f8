"""int8 of the digits network by torchao, beside float32: ``python tests/benchmarks/int8_torchao.py DIRECTORY``.

Needs ``pip install --no-deps torchao==0.18.0``, in an environment of its own. Static int8 by its PT2E flow with the x86
quantiser; DIRECTORY keeps the trained network. Times are processor time of one call, the least of 30 samples.
"""

import sys
import time
import warnings
from pathlib import Path

import torch

from autoprune.examples.digits import task


class Called(torch.nn.Module):
    """An exported graph, which has no evaluation mode, as a module that has one."""

    def __init__(self, graph):
        super().__init__()
        self.graph = (graph,)  # hidden from train() and eval()

    def forward(self, x):
        return self.graph[0](x)


def milliseconds(call, x):
    best = float("inf")
    for _ in range(30):
        begun = time.process_time()
        for _ in range(10):
            call(x)
        best = min(best, (time.process_time() - begun) / 10)
    return 1e3 * best


@torch.no_grad()
def main():
    warnings.simplefilter("ignore")
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer.x86_inductor_quantizer import (
        X86InductorQuantizer,
        get_default_x86_inductor_quantization_config,
    )

    torch.set_num_threads(1)
    known = task(directory=Path(sys.argv[1]))
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    graph = torch.export.export(known.model, (known.batches[0][0],), dynamic_shapes=shapes).module()
    quantiser = X86InductorQuantizer().set_global(get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(graph, quantiser)
    for images, _ in known.batches[:4]:
        prepared(images)
    int8 = convert_pt2e(prepared)
    one = known.example_inputs
    compiled, compiled_int8 = torch.compile(known.model), torch.compile(int8)
    print("| network | validation score | ms |\n|:--|--:|--:|")
    for name, scored, call in (
        ("float32, eager", known.model, known.model),
        ("float32, compiled", known.model, compiled),
        ("int8 by torchao, compiled", Called(int8), compiled_int8),
    ):
        call(one)
        print(f"| {name} | {known.evaluate(scored.eval()):.2%} | {milliseconds(call, one):.2f} |", flush=True)


if __name__ == "__main__":
    main()
