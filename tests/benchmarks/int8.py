"""int8 after pruning on the digits network: calibration methods of ONNX Runtime as a table.

python tests/benchmarks/int8.py > reports/int8/README.md
"""

import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

import torch

import autoprune
from autoprune.cost.host import machine_title
from autoprune.examples.plain_loop import half_of_the_channels
from autoprune.spec.study import LatencySpec

HEADING = """# int8 after pruning

Made by `python tests/benchmarks/int8.py > reports/int8/README.md`, here with ONNX Runtime {onnxruntime} on {cpu}. The
network is that of the demo; *pruned* has half of its channels and 300 steps of fine-tuning. Scores are on the 450
validation images of the digits. Both files run under ONNX Runtime; the ratio of latencies is int8 over float32 at batch
1 and one thread, paired, with its 95 % interval. Ranges are found on 512 training images.

int8 makes the file a quarter to a third, and on this processor under ONNX Runtime it is *slower*: measure before you
choose it. Weights take seven bits (why: `autoprune/trial/int8.py`). Why not torchao: transformers
imports it where it is installed, and says at every start that the compiled extensions of torchao 0.18.0 do not load
beside torch 2.13's CPU build. Its PyTorch parts run; on the dense network of another training of the demo, static int8
by its PT2E flow keeps the score (99.33 % both) and, compiled, takes 1.42 ms of processor time a call at batch 1, where
float32 takes 1.39 ms compiled and 1.17 ms eager: no gain here either (`python tests/benchmarks/int8_torchao.py`).

| network | calibration | float32 score | int8 score | float32 file | int8 file | latency ratio | difference |
|---|---|--:|--:|--:|--:|--:|--:|
"""


def main() -> None:
    torch.set_num_threads(1)
    sys.stdout.write(HEADING.format(onnxruntime=version("onnxruntime"), cpu=machine_title()))
    with tempfile.TemporaryDirectory() as directory:
        task = autoprune.load_task("autoprune.examples.digits:task", directory)
        config = half_of_the_channels(task.model, task.example_inputs)
        smaller = autoprune.apply(task.model, config, task.example_inputs, batches=task.batches)
        task.finetune(smaller, 300)
        for name, model in (("dense", task.model), ("pruned", smaller)):
            for calibration in ("minmax", "entropy", "percentile"):
                record = autoprune.quantize(
                    model,
                    Path(directory) / "int8.onnx",
                    task.example_inputs,
                    task.batches,
                    evaluate=task.evaluate,
                    calibration=calibration,
                    latency=LatencySpec(budget_s=5),
                )
                ratio = record.latency
                cells = (
                    name,
                    calibration,
                    f"{record.float_score:.2%}",
                    f"{record.score:.2%}",
                    f"{record.float_size_bytes:,} B",
                    f"{record.size_bytes:,} B",
                    f"{ratio.ratio:.2f} ({ratio.ratio_low:.2f} to {ratio.ratio_high:.2f})",
                    f"{record.difference:.1e}",
                )
                sys.stdout.write(f"| {' | '.join(cells)} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
