"""How long the page of a large run takes to render and to open, and what it weighs: ``reports/report-page``.

    python tests/benchmarks/report_page.py reports/report-page

Each run is synthetic (tests/results/synthetic_run.py, with everything that a search may find out). A page is opened
from disk in a fresh context of a headless browser; "opened" ends when every part is drawn, "bound moved" is the time
from moving a slider to the next frame after everything has followed. Medians of so many openings as asked.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "results"))

from playwright.sync_api import Browser, sync_playwright
from synthetic_run import layer_names, run_records, with_findings

from autoprune.results.page.render import render_html

SIZES = ((40, 12), (200, 24), (2000, 60))
_MOVED = """async () => {
    const slider = document.querySelector("#max-macs");
    const start = performance.now();
    slider.value = Math.floor(Number(slider.max) / 2);
    slider.dispatchEvent(new Event("input"));
    await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
    return performance.now() - start;
}"""


def opened(browser: Browser, path: Path) -> tuple[float, float]:
    """Seconds until the page is drawn, and until it has followed a slider."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    start = time.perf_counter()
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready=yes]", state="attached", timeout=60_000)
    page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    seconds = time.perf_counter() - start
    moved = page.evaluate(_MOVED) / 1000
    context.close()
    return seconds, moved


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--openings", type=int, default=7)
    options = parser.parse_args()
    path = os.environ.get("AUTOPRUNE_BROWSER") or shutil.which("chromium") or shutil.which("google-chrome")
    rows = []
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        version = browser.version
        for trials, groups in SIZES:
            records = with_findings(run_records(trials, names=layer_names(groups)))
            start = time.perf_counter()
            html = render_html(records)
            rendered = time.perf_counter() - start
            page = Path(folder) / f"{trials}.html"
            page.write_text(html, encoding="utf-8")
            found = [opened(browser, page) for _ in range(options.openings)]
            middle = [statistics.median(values) for values in zip(*found, strict=True)]
            rows.append((trials, groups, page.stat().st_size / 1e6, rendered, *middle, max(f[0] for f in found)))
            print(rows[-1], flush=True)
        browser.close()
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "README.md").write_text(table(rows, version, options.openings), encoding="utf-8")


def table(rows: list[tuple[float, ...]], version: str, openings: int) -> str:
    """The README of the folder."""
    lines = [
        f"| {trials:,} | {groups} | {size:.2f} MB | {rendered:.1f} s | {seconds:.2f} s ({slowest:.2f}) | "
        f"{moved * 1000:.0f} ms |"
        for trials, groups, size, rendered, seconds, moved, slowest in rows
    ]
    head = [
        "# The page of a report: size and time to open",
        "",
        "Synthetic runs with everything that a search may find out, opened from disk in a fresh context of headless",
        f"Chromium {version.split('.')[0]} at 1280 x 900 on {platform.machine()}, {os.cpu_count()} cores; medians of "
        f"{openings} openings at a load of {os.getloadavg()[0]:.1f},",
        "in brackets the slowest. *Opened*: every part is drawn. *Bound moved*: from a slider to the frame in which",
        "front, parallel coordinates and counts have followed. Wanted: 2,000 trials of 60 groups in less than 2 s and",
        "15 MB.",
        "",
        "```",
        "python tests/benchmarks/report_page.py reports/report-page",
        "```",
        "",
        "| trials | groups | page | rendered in | opened in | bound moved |",
        "|--:|--:|--:|--:|--:|--:|",
    ]
    return "\n".join([*head, *lines, ""])


if __name__ == "__main__":
    main()
