"""Every network of ``tests/graph`` from a config to the numbers of another runtime, as a table.

python tests/benchmarks/round_trip.py > reports/round-trip/README.md
"""

import sys
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

TESTS = Path(__file__).parents[1]

HEADING = """# There and back

Made by `python tests/benchmarks/round_trip.py > reports/round-trip/README.md`, here with torch {torch}, ONNX Runtime
{onnxruntime}, one thread. The networks are the small ones of `tests/graph`, in float32, with random weights.

Half of the units of every group and half of the weights of the last layer go at random. Then: `apply`, `save_pruned`,
`load_pruned` onto another instance of the class with other weights. *Same bits*: every output of the loaded network
equals that of the saved one, bit for bit. *Same cut*: `prune_like` of the dense checkpoint gives the same weights, bit
for bit. *Expanded*, *ONNX*, *torch.export*: largest difference of outputs, over their largest absolute value, between
the smaller network and the dense-shaped one of `expand_pruned`, the ONNX file under ONNX Runtime, and the `.pt2` file
loaded anew.

| network | parameters | left | same bits | same cut | expanded | ONNX | torch.export |
|---|--:|--:|---|---|--:|--:|--:|
"""


def main() -> None:
    sys.path[:0] = [str(TESTS / "graph"), str(TESTS / "deploy")]
    from round_trip import go_round
    from test_surgery_equivalence import CASES

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # of third parties
    sys.stdout.write(HEADING.format(torch=version("torch").partition("+")[0], onnxruntime=version("onnxruntime")))
    for name in CASES:
        with tempfile.TemporaryDirectory() as directory:
            trip = go_round(name, Path(directory), (".onnx", ".pt2"))
        marks = ("yes" if good else "**no**" for good in (trip.same_bits, trip.like))
        numbers = (trip.expanded, trip.exported[".onnx"], trip.exported[".pt2"])
        cells = (
            name,
            f"{trip.dense:,}",
            f"{trip.pruned / trip.dense:.0%}",
            *marks,
            *(f"{number:.0e}" for number in numbers),
        )
        sys.stdout.write(f"| {' | '.join(cells)} |\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
