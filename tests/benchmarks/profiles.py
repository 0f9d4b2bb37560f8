"""Make ``reports/profiles``: what ``autoprune profile`` tells of three trained networks on this machine.

PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/profiles.py DATA

DATA is the folder of data and trained networks. About three minutes, alone: times are measured.
"""

import argparse
import os
import sys
from pathlib import Path

import torch

from autoprune.results import profile_tables as tables
from autoprune.results.profile_report import write_profile
from autoprune.results.table import to_markdown
from autoprune.spec.profile import ProfileRecord, read_profile
from autoprune.spec.study import load_study

COMMAND = "PYTHONPATH=DATA/nets OMP_NUM_THREADS=1 python tests/benchmarks/profiles.py DATA"
DEVICES = ("raspberry-pi-5", "jetson-orin-nano", "nvidia-h200", "stm32h743")
MIXED = "[channel, head, '2:4']"
SPACE = """
  schema: autoprune/space/1
  name: heads-and-channels
  description: Heads of attention, channels, and 2:4
  rules:
    - {{granularity: {patterns}, criterion: [magnitude_l1, taylor], sparsity: {{low: 0.0, high: 0.75, step: 0.25}}}}
"""
NETWORKS = {
    "resnet20": ("ResNet-20, CIFAR-10", "resnet20.py", " channels-2of4", "torch"),
    "dscnn": ("DS-CNN, keyword spotting", "dscnn.py", " channels-2of4", "onnxruntime"),
    "chargpt": ("character GPT, Shakespeare", "chargpt.py", SPACE.format(patterns=MIXED), "torch"),
}
HERE = Path(__file__).parent


def study_text(task: Path, space: str, runtime: str) -> str:
    return (
        f"schema: autoprune/study/1\ntask: {task}:task\ndevice: local-cpu\nspace:{space.rstrip()}\n"
        "objectives: [accuracy_drop, macs, latency_ms, energy_mj]\n"
        f"latency: {{runtime: {runtime}, batch: 1, threads: 1}}\n"
    )


def profiled(name: str, folder: Path) -> ProfileRecord:
    """Profile one network as the command does; what is there already is read."""
    from autoprune.trial.profile.run import profile_study
    from autoprune.trial.task import load_task

    if (folder / "profile.json").exists():
        return read_profile(folder / "profile.json")
    title, task, space, runtime = NETWORKS[name]
    print(title, file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "study.yaml"
    path.write_text(study_text(Path(os.path.relpath(HERE / task, folder)), space, runtime), encoding="utf-8")
    spec = load_study(path)
    found = profile_study(load_task(spec.task, folder), spec, DEVICES, str(path))
    write_profile(found, folder)
    return found


def told(name: str, found: ProfileRecord) -> str:
    title, _, _, runtime = NETWORKS[name]
    whole = [tried for tried in found.payoffs if tried.layer is None]
    wanted = (
        tables.layer_table(found.device, most=6),
        tables.payoff_table(whole),
        tables.staircase_table(found.staircases),
        tables.device_table(found),
    )
    shown = "\n\n".join(f"{table.caption}.\n\n{to_markdown(table)}" for table in wanted if table is not None)
    said = f"**{tables.headline(found)}** {tables.next_step(found)}"
    links = f"[profile.md]({name}/profile.md), [profile.html]({name}/profile.html), [study]({name}/study.yaml)"
    return f"## {title}, {runtime}\n\n{said}\n\n{links}\n\n{shown}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("reports/profiles"))
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    arguments = parser.parse_args()
    os.environ["AUTOPRUNE_DATA"] = str(arguments.data.resolve())
    torch.set_num_threads(1)
    parts = [told(name, profiled(name, arguments.output / name)) for name in arguments.networks]
    head = (
        f"# Three networks profiled\n\n```\n{COMMAND}\n```\n\n"
        "DATA is the folder of data and trained networks. A folder that holds a profile is not measured again: remove "
        "it first. Modules are measured alone, interleaved with the whole network; other devices are modelled.\n"
    )
    (arguments.output / "README.md").write_text("\n".join([head, *parts]), encoding="utf-8")


if __name__ == "__main__":
    main()
