"""The report of a run: one page that opens from disk, the same in Markdown, and the files that scripts read.

The same records give the same bytes: nothing in it depends on when or where it is rendered.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.errors import RunDirectoryError, StorageError
from autoprune.results.configs import config_texts
from autoprune.results.export import front_json
from autoprune.results.markdown import render_markdown
from autoprune.results.page.render import render_html
from autoprune.results.pictures import FOLDER, pictures
from autoprune.results.tabular import front_csv, trials_csv
from autoprune.spec.record import RunRecords, write_whole

_CONFIG_NAME = re.compile(r"\d{3,}\.yaml")
_PICTURE_NAME = re.compile(r"(front-\w+|layers|hypervolume|predicted|devices)\.svg")


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report.

    Attributes:
        html: The page.
        markdown: The same with static plots.
        front_csv: The front as a table.
        trials_csv: All trials as a table.
        front_json: The front as a document (``autoprune/front/1``).
        plots: Static plots that the Markdown shows.
        configs: One pruning config for each pruned front trial, by number.
    """

    html: Path
    markdown: Path
    front_csv: Path
    trials_csv: Path
    front_json: Path
    plots: tuple[Path, ...]
    configs: tuple[Path, ...]


def write_report(records: RunRecords, directory: Path) -> ReportPaths:
    """Write the report of ``records`` into ``directory``, which is made if it is missing.

    Configs that an earlier render left and that are no longer on the front are removed; other files stay.

    Raises:
        RunDirectoryError: The directory cannot be written.
        StorageError: The disk is full.
    """
    texts = report_files(records)
    paths = ReportPaths(
        html=directory / "index.html",
        markdown=directory / "report.md",
        front_csv=directory / "front.csv",
        trials_csv=directory / "trials.csv",
        front_json=directory / "front.json",
        plots=tuple(directory / name for name in texts if name.startswith(f"{FOLDER}/")),
        configs=tuple(directory / name for name in texts if name.startswith("configs/")),
    )
    try:
        for folder in ("configs", FOLDER):
            (directory / folder).mkdir(parents=True, exist_ok=True)
        for name in stale(directory, texts):
            (directory / name).unlink()
        for name, text in texts.items():
            write_whole(directory / name, text)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            raise StorageError(
                f"no report can be written to {directory} ({error}); free some space, then run 'autoprune report'"
            ) from error
        raise RunDirectoryError(f"no report can be written to {directory} ({error}); give a writable folder") from error
    return paths


def report_files(records: RunRecords) -> dict[str, str]:
    """Return every file of the report by its path in the report's folder: the same records give the same texts."""
    drawn = pictures(records)
    return {
        "index.html": render_html(records),
        "report.md": render_markdown(records, drawn),
        "front.csv": front_csv(records),
        "trials.csv": trials_csv(records),
        "front.json": front_json(records),
        **{picture.path: picture.svg for picture in drawn},
        **{config.path: config.text for config in config_texts(records)},
    }


def stale(directory: Path, texts: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files that an earlier render left in ``directory`` and that are no part of the report any more."""
    made = (("configs", _CONFIG_NAME), (FOLDER, _PICTURE_NAME))
    names = (
        f"{folder}/{path.name}"
        for folder, pattern in made
        if (directory / folder).is_dir()
        for path in (directory / folder).iterdir()
        if pattern.fullmatch(path.name)
    )
    return tuple(sorted(name for name in names if name not in texts))
