"""The synthetic run that most tests of the results read."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from synthetic_run import run_records

from autoprune.spec.record import RunRecords


@pytest.fixture(scope="session")
def records() -> RunRecords:
    return run_records()
