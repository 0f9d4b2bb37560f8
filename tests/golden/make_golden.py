"""Make the golden files: ``python tests/golden/make_golden.py``. For a new schema number, never to mend a test.

Every format that crosses the disk stands here as version 1 wrote it; ``test_golden.py`` proves that it still loads.
"""

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))


def main() -> None:
    import torch
    from small_task import images, small_net, task

    import autoprune
    from autoprune.search.study import Study
    from autoprune.spec.config import Provenance

    torch.set_num_threads(1)
    spec = autoprune.load_study(HERE / "study-1.yaml")
    with tempfile.TemporaryDirectory() as directory:
        study = Study(task(), spec, directory)
        study.run()
        text = (Path(directory) / "records.jsonl").read_text(encoding="utf-8").replace(directory, "run")
    (HERE / "records-1.jsonl").write_text(text, encoding="utf-8")
    config = autoprune.load_config(HERE / "config-1.yaml")
    smaller = autoprune.apply(small_net(), config, images(1, 0))
    config = config.model_copy(update={"provenance": Provenance(run="run", trial=7, version="0.1.0")})
    autoprune.save_pruned(smaller, HERE / "pruned-2.bin", config)
    torch.save(smaller(images(8, 5)), HERE / "pruned-2-outputs.pt")
    record_latency()
    profile()


def profile() -> None:
    from small_task import task

    from autoprune.spec.profile import ProfileRecord
    from autoprune.spec.study import StudySpec
    from autoprune.trial.profile.run import profile_study

    spec = StudySpec(task="small_task.py:task", device="eyeriss", space="channels-2of4")
    found: ProfileRecord = profile_study(task(), spec, ["raspberry-pi-5"], "study.yaml")
    (HERE / "profile-1.json").write_text(found.to_json() + "\n", encoding="utf-8")


def record_latency() -> None:
    from small_task import images, small_net

    from autoprune.cost.meters import ModelInputs, RecordingMeter, TorchMeter
    from autoprune.spec.latency import LatencySpec

    path, inputs = HERE / "recording-1.jsonl", ModelInputs((images(1, 0),))
    path.unlink(missing_ok=True)
    spec = LatencySpec(half_width=0.1, budget_s=0.5, record=str(path))
    meter = RecordingMeter(TorchMeter(spec), spec)
    meter.measure_pair(small_net(), small_net(4), inputs)
    meter.measure(small_net(4), inputs, budget_s=0.02)


if __name__ == "__main__":
    main()
