"""Make a reference study under reports/ anew: search, records, report and README.

    python tests/benchmarks/reference.py digits
    python tests/benchmarks/reference.py resnet20-cifar10 --data DATA
    python tests/benchmarks/reference.py dscnn-kws --data DATA

DATA is the folder of data and weights. The search runs in runs/reference/NAME and is begun anew; --render leaves it
out and makes README and report from the records that are there.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from autoprune.results.picks import picks
from autoprune.results.report import write_report
from autoprune.results.summary import headline
from autoprune.results.table import picks_table as table_of_picks
from autoprune.results.table import to_markdown
from autoprune.results.trust import trust
from autoprune.spec.record import read_records

ROOT = Path(__file__).parents[2]
ABOUT = {
    "digits": (
        "Handwritten digits: channels, weights and 2:4",
        """The study of `make demo` with more trials: a small residual network on scikit-learn's digits, fine-tuned for
30 steps in each trial.""",
    ),
    "resnet20-cifar10": (
        "ResNet-20 on CIFAR-10: channels and 2:4",
        """Every candidate is fine-tuned for 20 steps and batch norm is recalibrated before it is scored. Validation is
the first 1,000 of the 2,000 test images here, test the last 1,000. DATA is the folder of data and weights.

What noise does: 30 trials of this study beside three busy processes on the same two cores, dense at 4.93 ms instead of
2.07 ms, gave these ratios for the uniform configs (quiet, then busy): 1.00 and 1.01, 0.94 and 0.99, 0.90 and 0.92, 0.84
and 0.86, 0.76 and 0.75.""",
    ),
    "dscnn-kws": (
        "DS-CNN, keyword spotting: channels, for a microcontroller",
        """MLPerf Tiny's depthwise-separable network for an STM32H743, whose latency and energy are modelled: they rank,
they do not promise. Each candidate is re-fitted by least squares and learns from the dense network for 80 steps on 400
samples; only 1,000 evaluation samples are there, so 300 validate and 300 test: one sample is 0.33 pp. DATA is the
folder of data and weights.""",
    ),
}


def search(name, data):
    run = Path("runs") / "reference" / name
    shutil.rmtree(ROOT / run, ignore_errors=True)
    environment = dict(os.environ)
    if data is not None:
        environment |= {"AUTOPRUNE_DATA": str(data), "PYTHONPATH": str(data / "nets")}
    command = [sys.executable, "-m", "autoprune", "search", f"reports/{name}/study.yaml", "-o", str(run)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    shutil.copy(ROOT / run / "records.jsonl", ROOT / "reports" / name / "records.jsonl")


def readme(name, records):
    title, about = ABOUT[name]
    told = headline(records)
    more = "\n\n".join(told.more)
    data = "" if name == "digits" else " --data DATA"
    rows = to_markdown(
        table_of_picks(records, lambda t: f"report/configs/{t.number:03d}.yaml" if t.origin != "dense" else "")
    )
    lines = "\n".join(f"- **{what}:** {sentence}" for what, sentence in trust(records).sentences)
    return f"""# {title}

{about}

```
python tests/benchmarks/reference.py {name}{data}
autoprune report reports/{name} --check     # whether report/ is what records.jsonl gives, byte for byte
```

**{told.main}**

{more}

{rows}

{lines}

The whole report: [report/report.md](report/report.md), or `report/index.html` in a browser.
Searched on {records.study.machine}, {len(records.trials)} trials.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=ABOUT)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--render", action="store_true")
    arguments = parser.parse_args()
    if not arguments.render:
        search(arguments.name, arguments.data.resolve() if arguments.data else None)
    folder = ROOT / "reports" / arguments.name
    records = read_records(folder / "records.jsonl")
    write_report(records, folder / "report")
    assert picks(records).named(), "a reference study shows something"
    (folder / "README.md").write_text(readme(arguments.name, records), encoding="utf-8")


if __name__ == "__main__":
    main()
