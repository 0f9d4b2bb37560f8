"""The synthetic run that most tests of the results read, and a browser for those that look at the page."""

import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from synthetic_run import run_records, with_findings

from autoprune.spec.record import RunRecords

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def records() -> RunRecords:
    return run_records()


@pytest.fixture(scope="session")
def rich() -> RunRecords:
    """A run with everything that a search may find out, on two further devices."""
    return with_findings(run_records(60))


@pytest.fixture(scope="session")
def browser():
    """An installed Chromium without a window; AUTOPRUNE_BROWSER names another one than the first on the path."""
    path = os.environ.get("AUTOPRUNE_BROWSER") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser is installed: one of {', '.join(BROWSERS)}, or AUTOPRUNE_BROWSER=PATH")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield opened
        opened.close()
