"""Make the golden files: ``python tests/results/make_golden.py``. For a new schema number, never to mend a test."""

from pathlib import Path

from synthetic_run import run_records

from autoprune.results.export import front_json

if __name__ == "__main__":
    (Path(__file__).parent / "golden" / "front-1.json").write_text(front_json(run_records(5)), encoding="utf-8")
