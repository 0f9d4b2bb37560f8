"""A benchmark command as a user would write one: ONNX Runtime, or whatever fault the test asks for."""

import json
import sys
import time
from pathlib import Path


def measure(path: str, runs: int) -> list[float]:
    import numpy as np
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    feed = {
        i.name: np.ones(i.shape, np.float32 if i.type == "tensor(float)" else np.float16) for i in session.get_inputs()
    }
    session.run(None, feed)
    samples = []
    for _ in range(runs):
        begin = time.perf_counter()
        session.run(None, feed)
        samples.append(1e3 * (time.perf_counter() - begin))
    return samples


def pretended(path: str) -> float:
    """Return a time that follows from the file, without running it: as many microseconds as it has kilobytes."""
    return Path(path).stat().st_size * 1e-6


def main() -> None:
    how, path, runs = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if how == "onnx":
        print("warming up ...")
        print(json.dumps({"samples_ms": measure(path, runs), "device": "here"}))
    elif how == "pretend":
        print(json.dumps([pretended(path)] * runs))
    elif how == "hang":
        time.sleep(60)
    elif how == "die":
        print("no such accelerator", file=sys.stderr)
        sys.exit(3)
    elif how == "flaky":  # fails at every second call
        flag = Path(sys.argv[4])
        if not flag.exists():
            flag.touch()
            sys.exit(1)
        flag.unlink()
        print(pretended(path))
    elif how == "summary":
        print(json.dumps({"mean_ms": pretended(path), "p90_ms": 7.0, "p99_ms": 9.0}))
    else:
        print(how)


if __name__ == "__main__":
    main()
