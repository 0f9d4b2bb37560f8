"""The small task, made to go wrong once in each way for which a flag lies in the run directory."""

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import small_task
import torch

FAULTS = ("kill", "sleep", "allocate", "nan", "kill-meter")


def task(directory: Path):
    """Return the task; the dense network is scored before any flag is looked at."""
    plain = small_task.task()
    dense = sum(parameter.numel() for parameter in plain.model.parameters())

    def claimed(fault):
        try:
            (directory / fault).unlink()
        except FileNotFoundError:
            return False
        return True

    def evaluate(model):
        if sum(parameter.numel() for parameter in model.parameters()) < dense:
            if claimed("kill"):
                os.kill(os.getpid(), signal.SIGKILL)
            if claimed("sleep"):
                time.sleep(3600)
            if claimed("allocate"):
                held = []
                while True:
                    held.append(torch.ones(4_000_000))
            if claimed("nan"):
                return float("nan")
            if claimed("wait-for-the-end"):
                wait_for_the_end()
        time.sleep(float(os.environ.get("SMALL_TASK_SLEEP", "0")))
        return plain.evaluate(model)

    def wait_for_the_end():
        """Tell on which node this waits, and wait."""
        import ray

        (directory / "told").write_text(ray.get_runtime_context().get_node_id())
        (directory / "told").rename(directory / "waits")
        time.sleep(3600)

    def in_meter():
        return Path("/proc/self/cmdline").read_bytes().startswith(b"ray::MeterActor.measure")

    def forward(*_):
        if in_meter() and (directory / "trials-began").exists() and claimed("kill-meter"):
            os.kill(os.getpid(), signal.SIGKILL)

    plain.model.register_forward_pre_hook(forward)
    return replace(plain, evaluate=evaluate)
